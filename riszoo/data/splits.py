"""A split over an index: its targets, which of their sentences, and in which spelling."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from riszoo.data.images import load
from riszoo.data.index import Index
from riszoo.data.readers.validation import path_in
from riszoo.data.record import Ints, Record, Sentence, Split, Target
from riszoo.errors import UserError
from riszoo.files import file_state

TextField = Literal["raw", "sent"]


class IndexSplit(Split):
    """The targets of an index that belong to a split and whose images exist; records are built on access.

    `keep` marks the images of the index that take part; `facts` are added to the description.
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
        self._sentences, self.sentence_target = _choose(index, self.targets, expressions)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, image: int) -> Record:
        if not -len(self) <= image < len(self):
            raise IndexError(f"{self.dataset} {self.name} has {len(self)} images, not {image}")
        image %= len(self)
        first, last = np.searchsorted(self.target_image, [image, image + 1]).tolist()
        row = int(self.images[image])
        strings, size = self.index.strings, self.index.size(row)
        file = strings["image_file"][row]
        return Record(
            strings["image_id"][row],
            size,
            tuple(self._target(target) for target in range(first, last)),
            functools.partial(load, path_in(self._folder, file), size, self._strict),
            file,
            strings["image_key"][row],
            self.name,
        )

    def _target(self, target: int) -> Target:
        first, last = np.searchsorted(self.sentence_target, [target, target + 1]).tolist()
        sentences = tuple(self._sentence(row) for row in self._sentences[first:last].tolist())
        return self.index.target(int(self.targets[target]), sentences, self._masks)

    def _sentence(self, row: int) -> Sentence:
        sentence = self.index.sentence(row)
        return sentence if self._text == "raw" else replace(sentence, text=sentence.sent)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.index.digest} {self.dataset} {self.name} {self._text}".encode())
        digest.update(np.ascontiguousarray(self.targets, "<i8").tobytes())
        digest.update(np.ascontiguousarray(self._sentences, "<i8").tobytes())
        return digest.hexdigest()

    def image_ids(self) -> list[str]:
        return [self.index.strings["image_id"][row] for row in self.images.tolist()]

    def image_keys(self) -> list[str]:
        return [self.index.strings["image_key"][row] for row in self.images.tolist()]

    def image_version(self, image: int) -> str:
        """The file's path, size and modification time, found without reading its content."""
        row = int(self.images[image])
        path = path_in(self._folder, self.index.strings["image_file"][row])
        return f"{path.resolve()} {file_state(path)} {self.index.size(row)} {self._strict}"

    def paths(self) -> list[Path]:
        """The file of each image."""
        return [path_in(self._folder, self.index.strings["image_file"][row]) for row in self.images.tolist()]

    def texts(self) -> Iterable[str]:
        strings = self.index.strings["text" if self._text == "raw" else "sent"]
        return (strings[row] for row in self._sentences.tolist())

    def sentence_ids(self) -> list[str]:
        return [self.index.strings["sentence_id"][row] for row in self._sentences.tolist()]

    def find(self, name: str) -> Record:
        """The record of an image, target or sentence by its id."""
        for image in range(len(self)):
            record = self[image]
            names = {
                record.image_id,
                *(t.target_id for t in record.targets),
                *(s.sentence_id for _, s in record.sentences()),
            }
            if name in names:
                return record
        raise UserError(f"{self.dataset} {self.name} has no image, target or sentence '{name}'")

    def without(self, keys: Iterable[str]) -> IndexSplit:
        """The same split without the images of these keys."""
        excluded = set(keys)
        keep = np.ones(self.index.images, np.bool_)
        keep[[row for row, key in zip(self.images.tolist(), self.image_keys(), strict=True) if key in excluded]] = False
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
    """(the index's row of each sentence, the target of each sentence); `random(seed)` depends on the seed alone."""
    first, last = index.arrays["target_sentences"][targets].T
    count = last - first
    if expressions == "all":
        starts = np.cumsum(count) - count
        sentence_target = np.repeat(np.arange(len(targets)), count)
        return np.arange(len(sentence_target)) + (first - starts)[sentence_target], sentence_target
    chosen = first
    if expressions != "first":
        draw = np.random.default_rng(_seed(expressions)).random(len(index.target_image))
        chosen = first + (draw[targets] * count).astype(np.int64)
    return chosen.astype(np.int64), np.arange(len(targets))


def _seed(expressions: str) -> int:
    found = re.fullmatch(r"random\((\d+)\)", expressions)
    if not found:
        raise UserError(f"--data.expressions '{expressions}': choose all, first or random(SEED), such as random(1)")
    return int(found[1])
