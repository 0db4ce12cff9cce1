"""A data set as flat arrays: nothing grows with the number of records but a few memory-mapped buffers."""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from riszoo.data.masks import Nothing, Points, Polygons, Rles, Runs, Segmentation, Size, Stored, Union, Unknown
from riszoo.data.readers.validation import check_outlines

FORMAT = "riszoo-index-1"
DTYPES = {"F64": "<f8", "I64": "<i8", "I32": "<i4", "U32": "<u4", "I16": "<i2", "U8": "|u1"}
POLYGONS, RLES, STORED = range(3)
MEANT, NO_TARGET, UNKNOWN = range(3)  # what is known of a target


@dataclass(slots=True)
class Piece:
    """One annotation: outlines, or runs, or the name of a file with a mask."""

    outlines: list[Points] = field(default_factory=list)
    runs: list[Runs] = field(default_factory=list)
    stored: str = ""


@dataclass(slots=True)
class Phrase:
    """One sentence as filed: as typed, and tokenised and lower-cased where the set has that too."""

    sentence_id: str
    raw: str
    sent: str
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Ref:
    """What a reader makes of one record; `key` names the image across data sets."""

    image: str
    file: str
    size: Size
    key: str
    target_id: str
    split: str
    pieces: list[Piece]
    phrases: list[Phrase]
    known: int = MEANT


class Strings:
    """Many strings as one run of bytes and where each ends."""

    def __init__(self, blob: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.blob, self.ends = blob, ends

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, place: int) -> str:
        return self.blob[self.ends[place] : self.ends[place + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def find(self, text: str) -> int | None:
        return next((place for place, found in enumerate(self) if found == text), None)


class _Growing:
    """Arrays that records are added to."""

    def __init__(self, names: dict[str, str]) -> None:
        self.values = {name: array(code) for name, code in names.items()}

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def string(self, pool: str, text: str) -> None:
        self.many(pool, text.encode())

    def many(self, pool: str, blob: bytes) -> None:
        """One more item of a pool: its content, and where it ends."""
        self.values[pool].frombytes(blob)
        self.values[f"{pool}.ends"].append(len(self.values[pool]))


class Index:
    """Every image, target, sentence and shape of one annotation file, each a row of a flat array."""

    STRINGS: ClassVar = (
        "image_id", "image_file", "image_key", "target_id", "sentence_id", "raw", "sent", "tags", "split",
        "stored", "problem_id", "problem",
    )  # fmt: skip
    NUMBERS: ClassVar = {
        "image_size": ("i", 2), "target_image": ("q", 1), "target_split": ("h", 1), "target_known": ("B", 1),
        "target_pieces": ("q", 2), "target_phrases": ("q", 2), "piece_kind": ("B", 1), "piece_parts": ("q", 2),
    }  # fmt: skip
    POOLS: ClassVar = {"outline": "d", "runs": "I"} | dict.fromkeys(STRINGS, "B")

    def __init__(self, arrays: dict[str, NDArray[Any]], about: dict[str, Any], path: Path | None = None) -> None:
        self.arrays, self.about, self.path = arrays, about, path
        self.strings = {name: Strings(arrays[name], arrays[f"{name}.ends"]) for name in self.STRINGS}
        self.target_image: NDArray[np.int64] = arrays["target_image"]

    def __reduce__(self) -> tuple[Any, ...]:
        """A memory-mapped index travels to a worker as its path."""
        return (Index.load, (self.path,)) if self.path else (Index, (self.arrays, self.about))

    @property
    def digest(self) -> str:
        """A hash of everything held, equal on every machine."""
        return str(self.about["digest"])

    @property
    def images(self) -> int:
        return len(self.arrays["image_size"])

    @property
    def problems(self) -> list[tuple[str, str]]:
        """(id, reason) of every record that was left out."""
        return list(zip(self.strings["problem_id"], self.strings["problem"], strict=True))

    # -- one image, one target ------------------------------------------------------------------------------------

    def size(self, image: int) -> Size:
        height, width = self.arrays["image_size"][image].tolist()
        return height, width

    def splits(self) -> list[str]:
        """As filed."""
        return list(self.strings["split"])

    def segmentation(self, target: int, folder: Path) -> Segmentation:
        size = self.size(int(self.target_image[target]))
        known = self.arrays["target_known"][target]
        if known == UNKNOWN:
            return Unknown(size, self.strings["target_id"][target])
        if known == NO_TARGET:
            return Nothing(size)
        pieces = [self._piece(piece, size, folder) for piece in range(*self.arrays["target_pieces"][target].tolist())]
        return pieces[0] if len(pieces) == 1 else Union(size, tuple(pieces))

    def _piece(self, piece: int, size: Size, folder: Path) -> Segmentation:
        first, last = self.arrays["piece_parts"][piece].tolist()
        kind = self.arrays["piece_kind"][piece]
        if kind == STORED:
            return Stored(size, folder / self.strings["stored"][first])
        pool = "outline" if kind == POLYGONS else "runs"
        ends = self.arrays[f"{pool}.ends"][first : last + 1].tolist()
        parts = tuple(self.arrays[pool][a:b] for a, b in itertools.pairwise(ends))
        return Polygons(size, parts) if kind == POLYGONS else Rles(size, parts)

    # -- in and out -------------------------------------------------------------------------------------------------

    @classmethod
    def build(cls, refs: Iterable[Ref], problems: list[tuple[str, str]]) -> Index:
        """From what a reader yields; `problems` is what it reported meanwhile."""
        flat = {name: code for name, (code, _) in cls.NUMBERS.items()} | cls.POOLS
        grown = _Growing(flat | {f"{pool}.ends": "q" for pool in cls.POOLS})
        for pool in cls.POOLS:
            grown[f"{pool}.ends"].append(0)
        places: dict[str, int] = {}
        splits: dict[str, int] = {}
        for ref in refs:
            _add(grown, ref, places, splits)
        for split in splits:
            grown.string("split", split)
        for record, reason in problems:
            grown.string("problem_id", record)
            grown.string("problem", reason)
        arrays = {name: np.frombuffer(values, values.typecode) for name, values in grown.values.items() if len(values)}
        empty = {name: np.zeros(0, values.typecode) for name, values in grown.values.items() if not len(values)}
        arrays = {name: _shaped(cls, name, values) for name, values in sorted((arrays | empty).items())}
        return cls(arrays, {"format": FORMAT, "digest": _digest(arrays)})

    def save(self, path: Path) -> None:
        """As safetensors, under a passing name first: a half-written index is never found."""
        from safetensors.numpy import save_file

        passing = path.with_name(f"{path.name}.part")
        save_file(self.arrays, passing, metadata={"about": json.dumps(self.about)})
        passing.replace(path)

    @classmethod
    def load(cls, path: Path) -> Index:
        """Memory-mapped. A file that is no index raises ValueError."""
        with path.open("rb") as file:
            held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(held[:8], "little")
        if not 8 < start <= len(held):
            raise ValueError("its header is cut short")
        header = json.loads(held[8:start])
        about = json.loads(header.pop("__metadata__")["about"])
        if about["format"] != FORMAT:
            raise ValueError(f"it is of format {about['format']}")
        arrays = {name: _mapped(held, start, entry) for name, entry in header.items()}
        for pool in cls.POOLS:
            _check_ends(arrays[f"{pool}.ends"], len(arrays[pool]))
        check_outlines(arrays["outline"], arrays["outline.ends"])
        return cls(arrays, about, path)


def _check_ends(ends: NDArray[np.int64], length: int) -> None:
    if len(ends) == 0 or ends[0] != 0 or ends[-1] != length or (np.diff(ends) < 0).any():
        raise ValueError("its parts do not fit together")


def _mapped(held: mmap.mmap, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    first, last = entry["data_offsets"]
    dtype = np.dtype(DTYPES[entry["dtype"]])
    values: NDArray[Any] = np.frombuffer(held, dtype, (last - first) // dtype.itemsize, start + first)
    return values.reshape(entry["shape"])


def _shaped(cls: type[Index], name: str, values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(-1, 2) if cls.NUMBERS.get(name, ("", 1))[1] == 2 else values


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _add(grown: _Growing, ref: Ref, places: dict[str, int], splits: dict[str, int]) -> None:
    if ref.image not in places:
        places[ref.image] = len(places)
        grown["image_size"].extend(ref.size)
        grown.string("image_id", ref.image)
        grown.string("image_file", ref.file)
        grown.string("image_key", ref.key)
    grown["target_image"].append(places[ref.image])
    grown["target_split"].append(splits.setdefault(ref.split, len(splits)))
    grown["target_known"].append(ref.known)
    grown.string("target_id", ref.target_id)
    first = len(grown["piece_kind"])
    for piece in ref.pieces:
        _add_piece(grown, piece)
    grown["target_pieces"].extend((first, first + len(ref.pieces)))
    first = len(grown["sentence_id.ends"]) - 1
    for phrase in ref.phrases:
        grown.string("sentence_id", phrase.sentence_id)
        grown.string("raw", phrase.raw)
        grown.string("sent", phrase.sent)
        grown.string("tags", " ".join(phrase.tags))
    grown["target_phrases"].extend((first, first + len(ref.phrases)))


def _add_piece(grown: _Growing, piece: Piece) -> None:
    kind = STORED if piece.stored else RLES if piece.runs else POLYGONS
    pool = ("outline", "runs", "stored")[kind]
    first = len(grown[f"{pool}.ends"]) - 1
    if kind == STORED:
        grown.string(pool, piece.stored)
    for part in piece.runs if kind == RLES else piece.outlines:
        grown.many(pool, part.tobytes())
    grown["piece_kind"].append(kind)
    grown["piece_parts"].extend((first, len(grown[f"{pool}.ends"]) - 1))
