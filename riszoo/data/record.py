"""One record for the whole way from file to batch: readers yield it, the index stores it, splits return it.

A record is one image with the targets named in it, each with its sentences and its segmentation as filed: protocols
draw the ground truth from it in different ways.
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
    """One referring expression.

    text   what a model reads; from a reader, the sentence as typed
    tags   what it takes to resolve it (scenes), or the subsets it belongs to (PhraseCut, gRefCOCO)
    sent   the same, lower-cased and tokenised, where a file has it or a reader makes it
    """

    sentence_id: str
    text: str
    tags: tuple[str, ...] = ()
    sent: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What one or more sentences refer to: an object, several objects, or none."""

    target_id: str
    segmentation: Segmentation
    sentences: tuple[Sentence, ...]
    no_target: bool = False


def _no_image_folder() -> Pixels:
    raise RuntimeError("a record from an annotation file has no pixels: splits add the image folder")


@dataclass(frozen=True, slots=True)
class Record:
    """One image and its targets. Readers may yield the same image several times, with other targets.

    size   H0, W0
    load   decodes or renders the pixels; nothing is decoded before
    file   the image's file as filed, relative to the image folder
    key    the image's name across data sets, by which leakage is found
    split  the split as filed, which may name several (ReferIt's `testAB`)
    """

    image_id: str
    size: tuple[int, int]
    targets: tuple[Target, ...]
    load: Callable[[], Pixels] = _no_image_folder
    file: str = ""
    key: str = ""
    split: str = ""

    def sentences(self) -> list[tuple[int, Sentence]]:
        """Every sentence with the index of its target, in the split's order."""
        return [(index, sentence) for index, target in enumerate(self.targets) for sentence in target.sentences]


class Split(ABC):
    """One split of one data set.

    Two flat arrays describe it without building a record: the image of each target and the target of each
    sentence, both non-decreasing. The index of a sentence in the split is its index in the second.
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
        """A hash of the split's content, equal on every machine."""

    @property
    def sentence_image(self) -> Ints:
        image: Ints = self.target_image[self.sentence_target]
        return image

    def image_ids(self) -> list[str]:
        """The id of every image; splits over an index answer without building records."""
        return [self[i].image_id for i in range(len(self))]

    def image_keys(self) -> list[str]:
        """The name of each image across data sets, by which leakage is found."""
        return self.image_ids()

    def image_version(self, image: int) -> str:
        """A name that changes whenever the image's pixels do, found without decoding; features are cached under it."""
        return f"{self.fingerprint()} {self[image].image_id}"

    def texts(self) -> Iterable[str]:
        """Every sentence, in order; the training split's give the vocabulary."""
        for i in range(len(self)):
            for _, sentence in self[i].sentences():
                yield sentence.text

    def sentence_ids(self) -> list[str]:
        """The id of every sentence, in order."""
        return [sentence.sentence_id for i in range(len(self)) for _, sentence in self[i].sentences()]

    def describe(self) -> dict[str, Any]:
        """How the sentences were chosen; part of a result's record."""
        return {"expressions": "all"}
