"""Photographic cut-outs composed into images, with referring sentences whose ground truth is exact."""

from riszoo.data.collage.library import Library, find_folder
from riszoo.data.collage.split import PLANS, VERSION, CollageSplit

__all__ = ["PLANS", "VERSION", "CollageSplit", "Library", "find_folder"]
