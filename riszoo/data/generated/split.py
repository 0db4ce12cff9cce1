"""Splits whose images, sentences and masks are made on access, from a version, a seed, a name and an index."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from riszoo.data.generated.rng import RandomStream, WeightedChoices
from riszoo.data.generated.sampling import FormSampler, SceneSentence
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.masks import Mask, Segmentation, shrink
from riszoo.data.record import Pixels, Record, Sentence, Split, Target
from riszoo.errors import UserError, unknown_name

Size = int | tuple[int, int] | Literal["mixed"]
SceneT = TypeVar("SceneT")

SMALLEST, LARGEST = 64, 640
WIDEST = 2.0
MOST_KEPT = 5000
"""The images of a split whose scenes are kept: those for evaluation are needed several times."""
HASHED_SENTENCES, HASHED_IMAGES, HASHED_SIZE = 64, 8, 96


def extent_of(size: tuple[int, int]) -> tuple[float, float]:
    """Width and height in world units of an image of (height, width) pixels."""
    width = math.sqrt(size[1] / size[0])
    return width, 1 / width


@dataclass(frozen=True)
class Plan:
    """The number of images of a split, of sentences of each image, and the shares of their types."""

    images: int
    sentences: int
    mix: WeightedChoices[str]


class Rendering(ABC, Generic[SceneT]):
    """A scene at a size in pixels, drawn when first used. Only the scene is pickled."""

    def __init__(self, scene: SceneT, size: tuple[int, int]) -> None:
        self.scene = scene
        self.size = size

    def __getstate__(self) -> dict[str, Any]:
        return {"scene": self.scene, "size": self.size}

    @abstractmethod
    def pixels(self) -> Pixels:
        """(H0, W0, 3)"""

    @property
    @abstractmethod
    def owner(self) -> NDArray[np.uint8]:
        """(H0, W0): 0 for the ground, k + 1 for thing k, where it is visible."""

    def mask(self, things: int) -> Mask:
        """(H0, W0): the visible part of the given things, one bit each."""
        numbers = range(int(self.owner.max()))
        mask: Mask = np.array([False, *(bool(things >> k & 1) for k in numbers)])[self.owner]
        return mask


class Silhouette(Segmentation):
    """The visible part of some things of a rendering."""

    def __init__(self, rendering: Rendering[Any], things: int) -> None:
        self.rendering = rendering
        self.things = things
        self.size = rendering.size

    def draw(self, ground_truth: GroundTruth) -> Mask:
        mask = self.rendering.mask(self.things)
        return mask if ground_truth.frame is None else shrink(mask, ground_truth.frame)


class GeneratedSplit(Split, Generic[SceneT]):
    """One split of a generated data set.

    `size` is the size of every image: a side, (height, width), or `mixed`: a random size for each image, from 64 to 640
    with an aspect ratio of up to 2. Images of the same aspect ratio show the same scene at every size. Every sentence
    has its own target.
    """

    version: ClassVar[str]
    plans: ClassVar[Mapping[str, Plan]]
    appearance: ClassVar[frozenset[str] | None] = None
    """The words of a subject that a reader of appearance knows (guessing.py); None: all."""

    def __init__(self, name: str, size: Size = 96, seed: int = 0) -> None:
        if name not in self.plans:
            raise unknown_name("split", name, self.plans, of=self.dataset)
        self.name = name
        self.size = _checked(size, self.dataset)
        self.seed = seed
        self.plan = self.plans[name]
        self.scenes: dict[int, tuple[SceneT, list[SceneSentence]]] = {}
        self.sentence_target = np.arange(self.plan.images * self.plan.sentences)
        self.target_image = self.sentence_target // self.plan.sentences

    @abstractmethod
    def compose(self, rng: RandomStream, extent: tuple[float, float]) -> SceneT:
        """A random scene."""

    @abstractmethod
    def sampler(self, scene: SceneT, rng: RandomStream) -> FormSampler:
        """Draws sentences about a scene."""

    @abstractmethod
    def rendering(self, scene: SceneT, size: tuple[int, int]) -> Rendering[SceneT]:
        """The scene at a size in pixels."""

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return self.plan.images

    def __getitem__(self, image: int) -> Record:
        image = range(len(self))[image]
        scene, sentences = self.scene(image)
        rendering = self.rendering(scene, self.size_of(image))
        name = self.image_id(image)
        targets = tuple(_target(f"{name}-{k}", rendering, sentence) for k, sentence in enumerate(sentences))
        return Record(name, rendering.size, targets, rendering.pixels)

    def scene(self, image: int) -> tuple[SceneT, list[SceneSentence]]:
        """The scene of an image and its sentences, without drawing it. Of a split for evaluation they are kept."""
        if image not in self.scenes:
            found = self._scene(image)
            if len(self) > MOST_KEPT:
                return found
            self.scenes[image] = found
        return self.scenes[image]

    def _scene(self, image: int) -> tuple[SceneT, list[SceneSentence]]:
        rng = RandomStream(f"riszoo {self.dataset} {self.seed} {self.name} {image}")
        extent = extent_of(self.size_of(image))
        while True:
            scene = self.compose(rng, extent)
            sentences = self.sampler(scene, rng).sample(self.plan.sentences, self.plan.mix)
            if sentences:
                return scene, sentences

    def size_of(self, image: int) -> tuple[int, int]:
        """Height and width of an image."""
        if self.size != "mixed":
            return self.size
        rng = RandomStream(f"riszoo {self.dataset} size {self.seed} {self.name} {image}")
        longer = math.exp(rng.between(math.log(SMALLEST), math.log(LARGEST)))
        sides = round(longer), max(SMALLEST, round(longer / rng.between(1, WIDEST)))
        return sides if rng.chance(0.5) else sides[::-1]

    def image_id(self, image: int) -> str:
        return f"{self.dataset}{self.seed}-{self.name}-{image:05d}"

    def image_ids(self) -> list[str]:
        return [self.image_id(image) for image in range(len(self))]

    def sentence_ids(self) -> list[str]:
        return [f"{name}-{k}" for name in self.image_ids() for k in range(self.plan.sentences)]

    def image_version(self, image: int) -> str:
        return f"{self.version} {self.image_id(image)} {self.size_of(image)}"

    def text(self, sentence: int) -> str:
        """One sentence by its index in the split, without drawing the image."""
        image, index = divmod(range(len(self.sentence_target))[sentence], self.plan.sentences)
        return self.scene(image)[1][index].text

    def texts(self) -> Iterator[str]:
        """All sentences in order, without drawing images."""
        for image in range(len(self)):
            for sentence in self.scene(image)[1]:
                yield sentence.text

    @abstractmethod
    def vocabulary(self) -> list[str]:
        """Every word that can occur in a sentence, sorted; faster than reading all sentences."""

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "version": self.version, "seed": self.seed, "size": self.size}

    def fingerprint(self) -> str:
        """A hash of the version, name, seed and size, of the first sentences, and of the pixels of the first images.

        The images are always hashed at one size. They do not depend on the machine: random numbers are reproducible,
        and everything is drawn in integers.
        """
        digest = hashlib.sha256(repr((self.version, self.name, self.seed, self.size, len(self))).encode())
        for image in range(HASHED_SENTENCES):
            scene, sentences = self.scene(image)
            digest.update(repr([(sentence.text, sentence.things, sentence.tags) for sentence in sentences]).encode())
            if image < HASHED_IMAGES:
                rendering = self.rendering(scene, (HASHED_SIZE, HASHED_SIZE))
                digest.update(rendering.pixels().tobytes() + rendering.owner.tobytes())
        return digest.hexdigest()


def _checked(size: Size, dataset: str) -> tuple[int, int] | Literal["mixed"]:
    if size == "mixed":
        return "mixed"
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and SMALLEST <= side <= LARGEST for side in sides):
        raise UserError(
            f"{dataset} cannot draw images of size {size!r}: give a side from {SMALLEST} to {LARGEST}, "
            f"a pair (height, width) of them, or 'mixed'."
        )
    return sides[0], sides[1]


def _target(name: str, rendering: Rendering[Any], sentence: SceneSentence) -> Target:
    outline = Silhouette(rendering, sentence.things)
    return Target(name, outline, (Sentence(name, sentence.text, sentence.tags),), no_target=not sentence.things)
