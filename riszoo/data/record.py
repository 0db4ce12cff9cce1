"""The record every reader yields, and the split that holds them.

A record is one image with the targets named in it, each with its sentences and its segmentation *as filed*:
protocols draw the ground truth from it in different ways.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riszoo.data.masks import Segmentation

Pixels = NDArray[np.uint8]  # (H0, W0, 3), RGB
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One expression. `tags` name what it takes to resolve it (scenes) or the subsets it belongs to (PhraseCut)."""

    sentence_id: str
    text: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What one or more sentences name: an object, several, or nothing."""

    target_id: str
    segmentation: Segmentation
    sentences: tuple[Sentence, ...]
    no_target: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One image. `load` decodes or renders its pixels; nothing is decoded before."""

    image_id: str
    size: tuple[int, int]  # H0, W0
    targets: tuple[Target, ...]
    load: Callable[[], Pixels]

    def sentences(self) -> list[tuple[int, Sentence]]:
        """Every sentence with the place of its target, in the split's order."""
        return [(place, sentence) for place, target in enumerate(self.targets) for sentence in target.sentences]


class Split(ABC):
    """One split of one set.

    Two flat arrays describe it without touching a record: the image of each target and the target of each
    sentence, both non-decreasing. A sentence's place in the split is its index in the second.
    """

    dataset: str
    name: str
    target_image: Ints  # (targets,)
    sentence_target: Ints  # (sentences,)

    @abstractmethod
    def __len__(self) -> int:
        """How many images."""

    @abstractmethod
    def __getitem__(self, image: int) -> Record: ...

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of what the split holds, equal on every machine."""

    @property
    def sentence_image(self) -> Ints:
        image: Ints = self.target_image[self.sentence_target]
        return image

    def image_ids(self) -> list[str]:
        """The id of every image; readers with an index answer without building records."""
        return [self[i].image_id for i in range(len(self))]

    def image_keys(self) -> list[str]:
        """What each image is called across data sets: leaks are found by it."""
        return self.image_ids()

    def image_version(self, image: int) -> str:
        """Another whenever the image's pixels are, told without decoding it: features are kept under it."""
        return f"{self.fingerprint()} {self[image].image_id}"

    def texts(self) -> Iterable[str]:
        """Every sentence, in order; a vocabulary is made of the training split's."""
        for i in range(len(self)):
            for _, sentence in self[i].sentences():
                yield sentence.text

    def describe(self) -> dict[str, Any]:
        """How its sentences were chosen; part of a result's record."""
        return {"expressions": "all"}
