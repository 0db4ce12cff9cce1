"""A split over an index: which targets, which of their sentences, in which words."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from riszoo.data.images import load
from riszoo.data.index import NO_TARGET, Index
from riszoo.data.record import Ints, Record, Sentence, Split, Target
from riszoo.errors import UserError

TextField = Literal["raw", "sent"]


class IndexSplit(Split):
    """The targets of an index that belong to a split and whose images are wanted; records are built on access.

    `keep` says for each image of the index whether it takes part; `facts` go into the description.
    """

    def __init__(
        self,
        index: Index,
        targets: Ints,
        *,
        dataset: str,
        name: str,
        folder: Path,
        masks: Path,
        text: TextField = "raw",
        expressions: str = "all",
        strict: bool = False,
        keep: NDArray[np.bool_] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.index, self.dataset, self.name = index, dataset, name
        self._folder, self._masks, self._strict = folder, masks, strict
        self._text, self._expressions, self._facts = text, expressions, facts or {}
        if keep is not None:
            targets = targets[keep[index.target_image[targets]]]
        self.targets = targets[np.argsort(index.target_image[targets], kind="stable")]
        self.images, self.target_image = np.unique(index.target_image[self.targets], return_inverse=True)
        self._phrases, self.sentence_target = _choose(index, self.targets, expressions)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, image: int) -> Record:
        if not -len(self) <= image < len(self):
            raise IndexError(f"{self.dataset} {self.name} has {len(self)} images, not {image}")
        image %= len(self)
        first, last = np.searchsorted(self.target_image, [image, image + 1]).tolist()
        number = int(self.images[image])
        size = self.index.size(number)
        path = self._folder / self.index.strings["image_file"][number]
        targets = tuple(self._target(place) for place in range(first, last))
        return Record(
            self.index.strings["image_id"][number], size, targets, functools.partial(load, path, size, self._strict)
        )

    def _target(self, place: int) -> Target:
        first, last = np.searchsorted(self.sentence_target, [place, place + 1]).tolist()
        target = int(self.targets[place])
        return Target(
            self.index.strings["target_id"][target],
            self.index.segmentation(target, self._masks),
            tuple(self._sentence(phrase) for phrase in self._phrases[first:last].tolist()),
            bool(self.index.arrays["target_known"][target] == NO_TARGET),
        )

    def _sentence(self, phrase: int) -> Sentence:
        strings = self.index.strings
        return Sentence(
            strings["sentence_id"][phrase], strings[self._text][phrase], tuple(strings["tags"][phrase].split())
        )

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.index.digest} {self.dataset} {self.name} {self._text}".encode())
        digest.update(np.ascontiguousarray(self.targets, "<i8").tobytes())
        digest.update(np.ascontiguousarray(self._phrases, "<i8").tobytes())
        return digest.hexdigest()

    def image_ids(self) -> list[str]:
        return [self.index.strings["image_id"][number] for number in self.images.tolist()]

    def image_keys(self) -> list[str]:
        return [self.index.strings["image_key"][number] for number in self.images.tolist()]

    def image_version(self, image: int) -> str:
        """The file's place, size and time of change, which a glance tells; content would be read at every start."""
        number = int(self.images[image])
        path = self._folder / self.index.strings["image_file"][number]
        try:
            stat = path.stat()
            file = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            file = "absent"  # shown as black
        return f"{path.resolve()} {file} {self.index.size(number)} {self._strict}"

    def paths(self) -> list[Path]:
        """The file of each image."""
        return [self._folder / self.index.strings["image_file"][number] for number in self.images.tolist()]

    def texts(self) -> Iterable[str]:
        return (self.index.strings[self._text][phrase] for phrase in self._phrases.tolist())

    def find(self, name: str) -> Record:
        """The record of an image, target or sentence by its id."""
        for place in range(len(self)):
            record = self[place]
            names = {
                record.image_id,
                *(t.target_id for t in record.targets),
                *(s.sentence_id for _, s in record.sentences()),
            }
            if name in names:
                return record
        raise UserError(f"{self.dataset} {self.name} has no image, target or sentence '{name}'")

    def without(self, keys: Iterable[str]) -> IndexSplit:
        """The same split less the images of these keys."""
        barred = set(keys)
        keep = np.ones(self.index.images, np.bool_)
        keep[[n for n, key in zip(self.images.tolist(), self.image_keys(), strict=True) if key in barred]] = False
        return IndexSplit(
            self.index, self.targets, dataset=self.dataset, name=self.name, folder=self._folder, masks=self._masks,
            text=self._text, expressions=self._expressions, strict=self._strict, keep=keep, facts=self._facts,
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        return {
            "expressions": self._expressions,
            "sentences": len(self.sentence_target),
            "text": self._text,
            "content": self.index.digest,
            **self._facts,
        }


def _choose(index: Index, targets: Ints, expressions: str) -> tuple[Ints, Ints]:
    """(the phrase of each sentence, the target of each sentence); `random(seed)` depends on nothing but the seed."""
    first, last = index.arrays["target_phrases"][targets].T
    many = last - first
    if expressions == "all":
        starts = np.cumsum(many) - many
        sentence_target = np.repeat(np.arange(len(targets)), many)
        return np.arange(len(sentence_target)) + (first - starts)[sentence_target], sentence_target
    chosen = first
    if expressions != "first":
        draw = np.random.default_rng(_seed(expressions)).random(len(index.target_image))
        chosen = first + (draw[targets] * many).astype(np.int64)
    return chosen.astype(np.int64), np.arange(len(targets))


def _seed(expressions: str) -> int:
    found = re.fullmatch(r"random\((\d+)\)", expressions)
    if not found:
        raise UserError(f"--data.expressions '{expressions}': choose all, first or random(SEED), such as random(1)")
    return int(found[1])
