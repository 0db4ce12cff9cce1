"""The splits of the embedded set.

train, val        images and sentences of one kind
testA, testB      as in RefCOCO, by kind of object: the targets of testA are round shapes (circle, ring, heart, moon),
                  those of testB angular ones (square, triangle, star, cross); one or two others stand among them
unseen            images whose things and targets are combinations of shape and colour that no other split shows,
                  with one or two seen combinations among them
general           sentences that name one thing, several, or nothing
general-train     the same kind, for training

The images of each come from a stream of throws of their own.
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
from riszoo.data.scenes.chance import Dice, Odds
from riszoo.data.scenes.layout import HELD_OUT, SEEN, Combination, Scene, extent_of, family, imagine
from riszoo.data.scenes.render import Rendering, Silhouette
from riszoo.data.scenes.sentences import GENERAL, SINGLE, Saying, Speaker
from riszoo.data.scenes.wording import vocabulary
from riszoo.errors import UserError

VERSION = "1"
"""Of worlds, words and pixels together: raised with every change that an image or a sentence shows."""

Size = int | tuple[int, int] | Literal["mixed"]

SMALLEST, LARGEST = 64, 640
WIDEST = 2.0
HASHED_SENTENCES, HASHED_IMAGES, HASHED_SIZE = 64, 8, 96


@dataclass(frozen=True)
class Plan:
    """What a split is made of."""

    images: int
    sentences: int
    wanted: Sequence[Combination] = SEEN
    strangers: Sequence[Combination] = ()
    mix: Odds[str] = Odds(SINGLE)


PLANS = {
    "train": Plan(60_000, 4),
    "val": Plan(1_000, 3),
    "testA": Plan(1_000, 3, family("round"), family("angular")),
    "testB": Plan(1_000, 3, family("angular"), family("round")),
    "unseen": Plan(1_000, 3, tuple(sorted(HELD_OUT)), SEEN),
    "general": Plan(1_000, 3, mix=Odds(GENERAL)),
    "general-train": Plan(60_000, 4, mix=Odds(GENERAL)),
}


class ScenesSplit(Split):
    """One split of the embedded set, made from its seed when asked for.

    `size` is that of every image: a side, (height, width), or `mixed`: between 64 and 640 and up to twice as long as
    wide, another for each image. Images of one form show the same world at every size. Every sentence is a target
    of its own.
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
        scene, sayings = self.scene(image)
        rendering = Rendering(scene, self.size_of(image))
        name = self.image_id(image)
        targets = tuple(_target(f"{name}-{k}", rendering, saying) for k, saying in enumerate(sayings))
        return Record(name, rendering.size, targets, rendering.pixels)

    def scene(self, image: int) -> tuple[Scene, list[Saying]]:
        """An image's world and what is said about it; nothing is drawn."""
        dice = Dice(f"riszoo scenes {self.seed} {self.name} {image}")
        extent = extent_of(self.size_of(image))
        while True:
            scene = imagine(dice, extent, self.plan.wanted, self.plan.strangers)
            sayings = Speaker(scene, dice).say(self.plan.sentences, self.plan.mix)
            if sayings:
                return scene, sayings

    def size_of(self, image: int) -> tuple[int, int]:
        """Height and width of an image."""
        if self.size != "mixed":
            return self.size
        dice = Dice(f"riszoo scenes size {self.seed} {self.name} {image}")
        longer = math.exp(dice.between(math.log(SMALLEST), math.log(LARGEST)))
        sides = round(longer), max(SMALLEST, round(longer / dice.between(1, WIDEST)))
        return sides if dice.chance(0.5) else sides[::-1]

    def image_id(self, image: int) -> str:
        return f"scenes{self.seed}-{self.name}-{image:05d}"

    def image_ids(self) -> list[str]:
        return [self.image_id(image) for image in range(len(self))]

    def image_version(self, image: int) -> str:
        return f"{VERSION} {self.image_id(image)} {self.size_of(image)}"

    def text(self, sentence: int) -> str:
        """One sentence by its place in the split; its image's world is thought up, not drawn."""
        image, place = divmod(range(len(self.sentence_target))[sentence], self.plan.sentences)
        return self.scene(image)[1][place].text

    def texts(self) -> Iterator[str]:
        """Every sentence, in order, with nothing drawn. For the words alone `vocabulary()` answers at once."""
        for image in range(len(self)):
            for saying in self.scene(image)[1]:
                yield saying.text

    def vocabulary(self) -> list[str]:
        """Every word that the set's sentences can hold, sorted."""
        return vocabulary()

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "version": VERSION, "seed": self.seed, "size": self.size}

    def fingerprint(self) -> str:
        """A hash of the version, name, seed and size, of the first sentences, and of the first images' pixels.

        The images are hashed at one size, whatever the split's. Nothing in them depends on the machine: chance is of
        the promised kind, outlines are whole numbers, and Pillow draws and averages in whole numbers (alike since
        11.2.1).
        """
        digest = hashlib.sha256(repr((VERSION, self.name, self.seed, self.size, len(self))).encode())
        for image in range(HASHED_SENTENCES):
            scene, sayings = self.scene(image)
            digest.update(repr([(saying.text, saying.things, saying.tags) for saying in sayings]).encode())
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
            f"a pair (height, width) of such, or 'mixed'."
        )
    return sides[0], sides[1]


def _target(name: str, rendering: Rendering, saying: Saying) -> Target:
    sentence = Sentence(name, saying.text, saying.tags)
    return Target(name, Silhouette(rendering, saying.things), (sentence,), no_target=not saying.things)
