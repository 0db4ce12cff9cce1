"""The splits of the embedded data set.

train, val        images and sentences from one distribution
testA, testB      by kind of object, as in RefCOCO: targets of testA are round (circle, ring, heart, moon), those of
                  testB angular ones (square, triangle, star, cross), with one or two of the other kind as distractors
unseen            things and targets are combinations of shape and colour that no other split contains, with one or two
                  seen combinations as distractors
general           sentences that name one thing, several, or none
general-train     the same distribution, for training
train-spatial     as train, with mostly spatial sentences: a model leaves the plateau of appearance sooner

Each split has its own random stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from riszoo.data.generated.rng import RandomStream, WeightedChoices
from riszoo.data.generated.split import GeneratedSplit, Plan
from riszoo.data.scenes.layout import COLOURS, HELD_OUT, SEEN, Combination, Scene, family, make_scene
from riszoo.data.scenes.render import ShapeRendering
from riszoo.data.scenes.sentences import GENERAL, SINGLE, SPATIAL, SentenceSampler
from riszoo.data.scenes.shapes import SHAPES
from riszoo.data.scenes.wording import vocabulary

VERSION = "1"
"""Version of scenes, sentences and pixels: raised with every change that shows in an image or a sentence."""


@dataclass(frozen=True)
class ScenePlan(Plan):
    """The contents of a split."""

    mix: WeightedChoices[str] = WeightedChoices(SINGLE)
    combinations: Sequence[Combination] = SEEN
    distractors: Sequence[Combination] = ()


PLANS = {
    "train": ScenePlan(60_000, 4),
    "val": ScenePlan(1_000, 3),
    "testA": ScenePlan(1_000, 3, combinations=family("round"), distractors=family("angular")),
    "testB": ScenePlan(1_000, 3, combinations=family("angular"), distractors=family("round")),
    "unseen": ScenePlan(1_000, 3, combinations=tuple(sorted(HELD_OUT)), distractors=SEEN),
    "general": ScenePlan(1_000, 3, WeightedChoices(GENERAL)),
    "general-train": ScenePlan(60_000, 4, WeightedChoices(GENERAL)),
    "train-spatial": ScenePlan(60_000, 4, WeightedChoices(SPATIAL)),
}


class ScenesSplit(GeneratedSplit[Scene]):
    """One split of the embedded data set. Pillow draws and averages in integers, the same way since 11.2.1."""

    dataset = "scenes"
    version = VERSION
    plans: ClassVar[dict[str, ScenePlan]] = PLANS
    appearance = frozenset({*COLOURS, *SHAPES})
    plan: ScenePlan

    def compose(self, rng: RandomStream, extent: tuple[float, float]) -> Scene:
        return make_scene(rng, extent, self.plan.combinations, self.plan.distractors)

    def sampler(self, scene: Scene, rng: RandomStream) -> SentenceSampler:
        return SentenceSampler(scene, rng)

    def rendering(self, scene: Scene, size: tuple[int, int]) -> ShapeRendering:
        return ShapeRendering(scene, size)

    def vocabulary(self) -> list[str]:
        return vocabulary()
