"""A data set as flat arrays: nothing grows with the number of records but a few memory-mapped buffers.

One row an image, a target, a sentence and an annotation; a pool contains the content of all its items in a row, and
`<pool>.ends` where each of them ends, starting with 0.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from riszoo.data.masks import NoTarget, Polygons, Rles, Segmentation, Size, Union, Unlabelled
from riszoo.data.readers.mask_files import MaskFile
from riszoo.data.readers.validation import PIXELS, SIDE, check_outlines, path_in
from riszoo.data.record import Ints, Record, Sentence, Target

FORMAT = "riszoo-index-3"
POLYGONS, RLES, MASK_FILE = range(3)  # kinds of annotation
LABELLED, NO_TARGET, UNLABELLED = range(3)  # kinds of target


class Strings:
    """Many strings in one run of bytes."""

    def __init__(self, content: NDArray[np.uint8], ends: Ints) -> None:
        self.content, self.ends = content, ends

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, row: int) -> str:
        return self.content[self.ends[row] : self.ends[row + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def find(self, text: str) -> int | None:
        """The row of a string, or None."""
        return next((row for row, found in enumerate(self) if found == text), None)


class Index:
    """Every image, target, sentence and annotation of one annotation file."""

    STRINGS: ClassVar = (
        "image_id", "image_file", "image_key", "target_id", "sentence_id", "text", "sent", "tags", "split",
        "mask_file", "problem_id", "problem",
    )  # fmt: skip
    NUMBERS: ClassVar = {  # name: type code, columns
        "image_size": ("i", 2), "target_image": ("q", 1), "target_split": ("h", 1), "target_kind": ("B", 1),
        "target_annotations": ("q", 2), "target_sentences": ("q", 2), "annotation_kind": ("B", 1),
        "annotation_parts": ("q", 2),
    }  # fmt: skip
    POOLS: ClassVar = {"outline": "d", "runs": "I"} | dict.fromkeys(STRINGS, "B")

    def __init__(self, arrays: dict[str, NDArray[Any]], about: dict[str, Any], path: Path | None = None) -> None:
        self.arrays, self.about, self.path = arrays, about, path
        self.strings = {name: Strings(arrays[name], arrays[f"{name}.ends"]) for name in self.STRINGS}
        self.target_image: Ints = arrays["target_image"]

    def __reduce__(self) -> tuple[Any, ...]:
        """A memory-mapped index travels to a worker as its path."""
        return (Index.load, (self.path,)) if self.path else (Index, (self.arrays, self.about))

    @property
    def digest(self) -> str:
        """A hash of the whole content, equal on every machine."""
        return str(self.about["digest"])

    @property
    def images(self) -> int:
        return len(self.arrays["image_size"])

    @property
    def problems(self) -> list[tuple[str, str]]:
        """(id, reason) of every record that was left out."""
        return list(zip(self.strings["problem_id"], self.strings["problem"], strict=True))

    def splits(self) -> list[str]:
        """The names of the splits as filed."""
        return list(self.strings["split"])

    # -- single rows --------------------------------------------------------------------------------------------------

    def size(self, image: int) -> Size:
        height, width = self.arrays["image_size"][image].tolist()
        return height, width

    def sentence(self, row: int) -> Sentence:
        strings = self.strings
        tags = tuple(strings["tags"][row].split())
        return Sentence(strings["sentence_id"][row], strings["text"][row], tags, strings["sent"][row])

    def target(self, row: int, sentences: tuple[Sentence, ...], folder: Path) -> Target:
        """A target with the given sentences; the paths of mask files are relative to `folder`."""
        no_target = bool(self.arrays["target_kind"][row] == NO_TARGET)
        return Target(self.strings["target_id"][row], self._segmentation(row, folder), sentences, no_target)

    def _segmentation(self, target: int, folder: Path) -> Segmentation:
        size = self.size(int(self.target_image[target]))
        kind = self.arrays["target_kind"][target]
        if kind == UNLABELLED:
            return Unlabelled(size, self.strings["target_id"][target])
        if kind == NO_TARGET:
            return NoTarget(size)
        first, last = self.arrays["target_annotations"][target].tolist()
        members = tuple(self._annotation(row, size, folder) for row in range(first, last))
        return members[0] if len(members) == 1 else Union(size, members)

    def _annotation(self, row: int, size: Size, folder: Path) -> Segmentation:
        first, last = self.arrays["annotation_parts"][row].tolist()
        kind = self.arrays["annotation_kind"][row]
        if kind == MASK_FILE:
            return MaskFile(size, path_in(folder, self.strings["mask_file"][first]))
        pool = "outline" if kind == POLYGONS else "runs"
        ends = self.arrays[f"{pool}.ends"][first : last + 1].tolist()
        parts = tuple(self.arrays[pool][start:end] for start, end in itertools.pairwise(ends))
        return Polygons(size, parts) if kind == POLYGONS else Rles(size, parts)

    def mask_files(self) -> list[tuple[str, Size]]:
        """The path of each mask file, relative to the folder of masks, and the size of its image."""
        rows = np.flatnonzero(self.arrays["annotation_kind"] == MASK_FILE)
        targets = np.searchsorted(self.arrays["target_annotations"][:, 1], rows, side="right")
        parts = self.arrays["annotation_parts"][rows, 0].tolist()
        images = self.target_image[targets].tolist()
        return [(self.strings["mask_file"][n], self.size(i)) for n, i in zip(parts, images, strict=True)]

    # -- building, saving, loading ------------------------------------------------------------------------------------

    @classmethod
    def build(cls, records: Iterable[Record], problems: list[tuple[str, str]]) -> Index:
        """From a reader's records; `problems` is the list that the reader's reports go into."""
        builder = _Builder()
        for record in records:
            builder.add(record)
        for name, reason in problems:
            builder.add_string("problem_id", name)
            builder.add_string("problem", reason)
        arrays = builder.arrays()
        return cls(arrays, {"format": FORMAT, "digest": _digest(arrays)})

    def save(self, path: Path) -> None:
        """As safetensors, written under a temporary name first, so that an index is complete or absent."""
        from safetensors.numpy import save_file

        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")  # several processes may prepare at once
        try:
            save_file(self.arrays, temporary, metadata={"about": json.dumps(self.about)})
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Index:
        """Memory-mapped through torch: safetensors' numpy reader would copy. Raises ValueError for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["about"])
                if about["format"] != FORMAT:
                    raise ValueError(f"its format is {about['format']}, not {FORMAT}")
                arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        for pool in cls.POOLS:
            _check_ends(arrays[f"{pool}.ends"], len(arrays[pool]))
        _check_rows(arrays)
        check_outlines(arrays["outline"], arrays["outline.ends"])
        return cls(arrays, about, path)


class _Builder:
    """Growing arrays that records are added to."""

    def __init__(self) -> None:
        codes = {name: code for name, (code, _) in Index.NUMBERS.items()} | Index.POOLS
        self.columns = {name: array(code) for name, code in codes.items()}
        self.columns |= {f"{pool}.ends": array("q", [0]) for pool in Index.POOLS}
        self.images: dict[str, int] = {}
        self.splits: dict[str, int] = {}

    def add(self, record: Record) -> None:
        if record.image_id not in self.images:
            self.images[record.image_id] = len(self.images)
            self.columns["image_size"].extend(record.size)
            self.add_string("image_id", record.image_id)
            self.add_string("image_file", record.file)
            self.add_string("image_key", record.key)
        if record.split not in self.splits:
            self.splits[record.split] = len(self.splits)
            self.add_string("split", record.split)
        for target in record.targets:
            self.columns["target_image"].append(self.images[record.image_id])
            self.columns["target_split"].append(self.splits[record.split])
            self._add_target(target)

    def _add_target(self, target: Target) -> None:
        shape = target.segmentation
        self.add_string("target_id", target.target_id)
        kind = NO_TARGET if target.no_target else UNLABELLED if isinstance(shape, Unlabelled) else LABELLED
        self.columns["target_kind"].append(kind)
        members = shape.members if isinstance(shape, Union) else (shape,) if kind == LABELLED else ()
        self._add_range("target_annotations", len(self.columns["annotation_kind"]), len(members))
        for member in members:
            self._add_annotation(member)
        self._add_range("target_sentences", self._length("sentence_id"), len(target.sentences))
        for sentence in target.sentences:
            self.add_string("sentence_id", sentence.sentence_id)
            self.add_string("text", sentence.text)
            self.add_string("sent", sentence.sent)
            self.add_string("tags", " ".join(sentence.tags))

    def _add_annotation(self, shape: Segmentation) -> None:
        if isinstance(shape, MaskFile):
            kind, pool, parts = MASK_FILE, "mask_file", [str(shape.path).encode()]
        elif isinstance(shape, Polygons):
            kind, pool, parts = POLYGONS, "outline", [part.tobytes() for part in shape.parts]
        elif isinstance(shape, Rles):
            kind, pool, parts = RLES, "runs", [part.tobytes() for part in shape.parts]
        else:
            raise TypeError(f"a reader may not yield {type(shape).__name__}")
        self.columns["annotation_kind"].append(kind)
        self._add_range("annotation_parts", self._length(pool), len(parts))
        for part in parts:
            self._add_item(pool, part)

    def _length(self, pool: str) -> int:
        return len(self.columns[f"{pool}.ends"]) - 1

    def _add_range(self, name: str, first: int, count: int) -> None:
        self.columns[name].extend((first, first + count))

    def add_string(self, pool: str, text: str) -> None:
        self._add_item(pool, text.encode("utf-8", "replace"))  # lone surrogates cannot be stored

    def _add_item(self, pool: str, content: bytes) -> None:
        self.columns[pool].frombytes(content)
        self.columns[f"{pool}.ends"].append(len(self.columns[pool]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        found = {}
        for name, column in sorted(self.columns.items()):
            values = np.frombuffer(column, column.typecode) if len(column) else np.zeros(0, column.typecode)
            found[name] = values.reshape(-1, 2) if Index.NUMBERS.get(name, ("", 1))[1] == 2 else values
        return found


def _check_ends(ends: Ints, length: int) -> None:
    if len(ends) == 0 or ends[0] != 0 or ends[-1] != length or (np.diff(ends) < 0).any():
        raise ValueError("its parts do not fit together")


def _check_rows(arrays: dict[str, NDArray[Any]]) -> None:
    """Raise ValueError for sizes that no image has, and for rows that name others which do not exist."""
    sizes, targets = arrays["image_size"], len(arrays["target_id.ends"]) - 1
    if len(sizes) and (sizes.min() < 1 or sizes.max() > SIDE or sizes.prod(axis=1, dtype=np.int64).max() > PIXELS):
        raise ValueError("an image of it has an impossible size")
    counts = {
        "target_image": len(sizes),
        "target_split": len(arrays["split.ends"]) - 1,
        "target_annotations": len(arrays["annotation_kind"]) + 1,
        "target_sentences": len(arrays["sentence_id.ends"]),
    }
    for name, count in counts.items():
        rows = arrays[name]
        if len(rows) != targets or (len(rows) and not 0 <= rows.min() <= rows.max() < count):
            raise ValueError("its rows do not fit together")


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
