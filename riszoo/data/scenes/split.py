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

import difflib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from riszoo.data.record import Record, Sentence, Split, Target
from riszoo.data.scenes.layout import HELD_OUT, SEEN, Combination, Scene, extent_of, family, make_scene
from riszoo.data.scenes.render import Rendering, Silhouette
from riszoo.data.scenes.rng import RandomStream, WeightedChoices
from riszoo.data.scenes.sentences import GENERAL, SINGLE, SPATIAL, SceneSentence, SentenceSampler
from riszoo.data.scenes.wording import vocabulary
from riszoo.errors import UserError

VERSION = "1"
"""Version of scenes, sentences and pixels: raised with every change that shows in an image or a sentence."""

Size = int | tuple[int, int] | Literal["mixed"]

SMALLEST, LARGEST = 64, 640
WIDEST = 2.0
HASHED_SENTENCES, HASHED_IMAGES, HASHED_SIZE = 64, 8, 96


@dataclass(frozen=True)
class Plan:
    """The contents of a split."""

    images: int
    sentences: int
    combinations: Sequence[Combination] = SEEN
    distractors: Sequence[Combination] = ()
    mix: WeightedChoices[str] = WeightedChoices(SINGLE)


PLANS = {
    "train": Plan(60_000, 4),
    "val": Plan(1_000, 3),
    "testA": Plan(1_000, 3, family("round"), family("angular")),
    "testB": Plan(1_000, 3, family("angular"), family("round")),
    "unseen": Plan(1_000, 3, tuple(sorted(HELD_OUT)), SEEN),
    "general": Plan(1_000, 3, mix=WeightedChoices(GENERAL)),
    "general-train": Plan(60_000, 4, mix=WeightedChoices(GENERAL)),
    "train-spatial": Plan(60_000, 4, mix=WeightedChoices(SPATIAL)),
}


class ScenesSplit(Split):
    """One split of the embedded data set; images are generated from the seed on access.

    `size` is the size of every image: a side, (height, width), or `mixed`: a random size for each image, from 64 to 640
    with an aspect ratio of up to 2. Images of the same aspect ratio show the same scene at every size. Every sentence
    has its own target.
    """

    dataset = "scenes"

    def __init__(self, name: str, size: Size = 96, seed: int = 0) -> None:
        if name not in PLANS:
            nearest = difflib.get_close_matches(name, PLANS, 1, 0.0)[0]
            raise UserError(f"scenes has no split {name!r}; did you mean {nearest!r}? It has {', '.join(PLANS)}.")
        self.name = name
        self.size = _checked(size)
        self.seed = seed
        self.plan = PLANS[name]
        self.sentence_target = np.arange(self.plan.images * self.plan.sentences)
        self.target_image = self.sentence_target // self.plan.sentences

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return self.plan.images

    def __getitem__(self, image: int) -> Record:
        image = range(len(self))[image]
        scene, sentences = self.scene(image)
        rendering = Rendering(scene, self.size_of(image))
        name = self.image_id(image)
        targets = tuple(_target(f"{name}-{k}", rendering, sentence) for k, sentence in enumerate(sentences))
        return Record(name, rendering.size, targets, rendering.pixels)

    def scene(self, image: int) -> tuple[Scene, list[SceneSentence]]:
        """The scene of an image and its sentences, without drawing it."""
        rng = RandomStream(f"riszoo scenes {self.seed} {self.name} {image}")
        extent = extent_of(self.size_of(image))
        while True:
            scene = make_scene(rng, extent, self.plan.combinations, self.plan.distractors)
            sentences = SentenceSampler(scene, rng).sample(self.plan.sentences, self.plan.mix)
            if sentences:
                return scene, sentences

    def size_of(self, image: int) -> tuple[int, int]:
        """Height and width of an image."""
        if self.size != "mixed":
            return self.size
        rng = RandomStream(f"riszoo scenes size {self.seed} {self.name} {image}")
        longer = math.exp(rng.between(math.log(SMALLEST), math.log(LARGEST)))
        sides = round(longer), max(SMALLEST, round(longer / rng.between(1, WIDEST)))
        return sides if rng.chance(0.5) else sides[::-1]

    def image_id(self, image: int) -> str:
        return f"scenes{self.seed}-{self.name}-{image:05d}"

    def image_ids(self) -> list[str]:
        return [self.image_id(image) for image in range(len(self))]

    def sentence_ids(self) -> list[str]:
        return [f"{name}-{k}" for name in self.image_ids() for k in range(self.plan.sentences)]

    def image_version(self, image: int) -> str:
        return f"{VERSION} {self.image_id(image)} {self.size_of(image)}"

    def text(self, sentence: int) -> str:
        """One sentence by its index in the split, without drawing the image."""
        image, index = divmod(range(len(self.sentence_target))[sentence], self.plan.sentences)
        return self.scene(image)[1][index].text

    def texts(self) -> Iterator[str]:
        """All sentences in order, without drawing images. `vocabulary()` is faster if only the words are needed."""
        for image in range(len(self)):
            for sentence in self.scene(image)[1]:
                yield sentence.text

    def vocabulary(self) -> list[str]:
        """Every word that can occur in a sentence, sorted."""
        return vocabulary()

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "version": VERSION, "seed": self.seed, "size": self.size}

    def fingerprint(self) -> str:
        """A hash of the version, name, seed and size, of the first sentences, and of the pixels of the first images.

        The images are always hashed at one size. They do not depend on the machine: random numbers are reproducible,
        outlines are integers, and Pillow draws and averages in integers (the same way since 11.2.1).
        """
        digest = hashlib.sha256(repr((VERSION, self.name, self.seed, self.size, len(self))).encode())
        for image in range(HASHED_SENTENCES):
            scene, sentences = self.scene(image)
            digest.update(repr([(sentence.text, sentence.things, sentence.tags) for sentence in sentences]).encode())
            if image < HASHED_IMAGES:
                rendering = Rendering(scene, (HASHED_SIZE, HASHED_SIZE))
                digest.update(rendering.pixels().tobytes() + rendering.owner.tobytes())
        return digest.hexdigest()


def _checked(size: Size) -> tuple[int, int] | Literal["mixed"]:
    if size == "mixed":
        return "mixed"
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and SMALLEST <= side <= LARGEST for side in sides):
        raise UserError(
            f"scenes cannot draw images of size {size!r}: give a side from {SMALLEST} to {LARGEST}, "
            f"a pair (height, width) of them, or 'mixed'."
        )
    return sides[0], sides[1]


def _target(name: str, rendering: Rendering, sentence: SceneSentence) -> Target:
    outline = Silhouette(rendering, sentence.things)
    return Target(name, outline, (Sentence(name, sentence.text, sentence.tags),), no_target=not sentence.things)
