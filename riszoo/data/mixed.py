"""Several splits as one, and the pictures that must not be in both a training and an evaluation split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from riszoo.data.base import Ints, Record, Split
from riszoo.data.selection import Selection


class Leak(NamedTuple):
    """A training picture that an evaluation split uses as well."""

    set: str
    picture: str
    used_by: str


class Concatenation(Split):
    """Splits in a row. With `named`, ids carry their set's name, so that no two are alike."""

    def __init__(self, set: str, name: str, parts: Sequence[Selection], *, named: bool = False) -> None:
        self.set, self.name, self.parts, self._named = set, name, list(parts), named
        self._starts = np.cumsum([0] + [len(part) for part in parts])
        self.target_picture = _in_a_row([part.target_picture for part in parts], [len(part) for part in parts])
        self.sentence_target = _in_a_row(
            [part.sentence_target for part in parts], [len(part.target_picture) for part in parts]
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, picture: int) -> Record:
        if not -len(self) <= picture < len(self):
            raise IndexError(f"{self.set} {self.name} has {len(self)} pictures, not {picture}")
        part, place = self._place(picture % len(self))
        return _renamed(part[place], part.set) if self._named else part[place]

    def _place(self, picture: int) -> tuple[Selection, int]:
        part = int(np.searchsorted(self._starts, picture, side="right")) - 1
        return self.parts[part], picture - int(self._starts[part])

    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.fingerprint() for part in self.parts).encode()).hexdigest()

    def picture_ids(self) -> list[str]:
        return [f"{p.set}/{name}" if self._named else name for p in self.parts for name in p.picture_ids()]

    def picture_keys(self) -> list[str]:
        return [key for part in self.parts for key in part.picture_keys()]

    def picture_version(self, picture: int) -> str:
        part, place = self._place(picture)
        return part.picture_version(place)

    def paths(self) -> list[Path]:
        """The file of each picture."""
        return [path for part in self.parts for path in part.paths()]

    def texts(self) -> Iterable[str]:
        return (text for part in self.parts for text in part.texts())

    def without(self, keys: Iterable[str]) -> Concatenation:
        """The same less the pictures of these keys."""
        barred = set(keys)
        parts = [part.without(barred) for part in self.parts]
        return Concatenation(self.set, self.name, parts, named=self._named)

    def describe(self) -> dict[str, Any]:
        parts = {f"{part.set}/{part.name}": part.describe() for part in self.parts}
        return {"expressions": self.parts[0].describe()["expressions"], "parts": parts}


def _in_a_row(arrays: list[Ints], sizes: list[int]) -> Ints:
    starts = np.cumsum([0, *sizes[:-1]])
    return np.concatenate([array + start for array, start in zip(arrays, starts, strict=True)])


def _renamed(record: Record, set: str) -> Record:
    targets = tuple(
        replace(
            target,
            id=f"{set}/{target.id}",
            sentences=tuple(replace(sentence, id=f"{set}/{sentence.id}") for sentence in target.sentences),
        )
        for target in record.targets
    )
    return replace(record, id=f"{set}/{record.id}", targets=targets)


def leaks(training: Sequence[Selection], held_out: Mapping[str, Sequence[str]]) -> list[Leak]:
    """Every picture of the training splits that is held out, with the splits that use it."""
    return [
        Leak(split.set, key, ", ".join(held_out[key]))
        for split in training
        for key in split.picture_keys()
        if key in held_out
    ]
