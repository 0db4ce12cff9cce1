"""Several splits as one, and the images that must not be in both a training and an evaluation split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from riszoo.data.record import Ints, Record, Split
from riszoo.data.splits import IndexSplit


class Leak(NamedTuple):
    """A training image that an evaluation split uses as well."""

    dataset: str
    image: str
    used_by: str


class ConcatSplit(Split):
    """Splits in a row. With `named`, ids carry their set's name, so that no two are alike."""

    def __init__(self, dataset: str, name: str, parts: Sequence[IndexSplit], *, named: bool = False) -> None:
        self.dataset, self.name, self.parts, self._named = dataset, name, list(parts), named
        self._starts = np.cumsum([0] + [len(part) for part in parts])
        self.target_image = _in_a_row([part.target_image for part in parts], [len(part) for part in parts])
        self.sentence_target = _in_a_row(
            [part.sentence_target for part in parts], [len(part.target_image) for part in parts]
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, image: int) -> Record:
        if not -len(self) <= image < len(self):
            raise IndexError(f"{self.dataset} {self.name} has {len(self)} images, not {image}")
        part, place = self._place(image % len(self))
        return _renamed(part[place], part.dataset) if self._named else part[place]

    def _place(self, image: int) -> tuple[IndexSplit, int]:
        part = int(np.searchsorted(self._starts, image, side="right")) - 1
        return self.parts[part], image - int(self._starts[part])

    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.fingerprint() for part in self.parts).encode()).hexdigest()

    def image_ids(self) -> list[str]:
        return [f"{p.dataset}/{name}" if self._named else name for p in self.parts for name in p.image_ids()]

    def image_keys(self) -> list[str]:
        return [key for part in self.parts for key in part.image_keys()]

    def image_version(self, image: int) -> str:
        part, place = self._place(image)
        return part.image_version(place)

    def paths(self) -> list[Path]:
        """The file of each image."""
        return [path for part in self.parts for path in part.paths()]

    def texts(self) -> Iterable[str]:
        return (text for part in self.parts for text in part.texts())

    def without(self, keys: Iterable[str]) -> ConcatSplit:
        """The same less the images of these keys."""
        barred = set(keys)
        parts = [part.without(barred) for part in self.parts]
        return ConcatSplit(self.dataset, self.name, parts, named=self._named)

    def describe(self) -> dict[str, Any]:
        parts = {f"{part.dataset}/{part.name}": part.describe() for part in self.parts}
        return {"expressions": self.parts[0].describe()["expressions"], "parts": parts}


def _in_a_row(arrays: list[Ints], sizes: list[int]) -> Ints:
    starts = np.cumsum([0, *sizes[:-1]])
    return np.concatenate([array + start for array, start in zip(arrays, starts, strict=True)])


def _renamed(record: Record, dataset: str) -> Record:
    targets = tuple(
        replace(
            target,
            target_id=f"{dataset}/{target.target_id}",
            sentences=tuple(
                replace(sentence, sentence_id=f"{dataset}/{sentence.sentence_id}") for sentence in target.sentences
            ),
        )
        for target in record.targets
    )
    return replace(record, image_id=f"{dataset}/{record.image_id}", targets=targets)


def leaks(training: Sequence[IndexSplit], held_out: Mapping[str, Sequence[str]]) -> list[Leak]:
    """Every image of the training splits that is held out, with the splits that use it."""
    return [
        Leak(split.dataset, key, ", ".join(held_out[key]))
        for split in training
        for key in split.image_keys()
        if key in held_out
    ]
