"""The embedded data set: rendered images with referring sentences whose ground truth is exact."""

from riszoo.data.scenes.split import PLANS, VERSION, ScenesSplit
from riszoo.data.scenes.wording import vocabulary

__all__ = ["PLANS", "VERSION", "ScenesSplit", "vocabulary"]
