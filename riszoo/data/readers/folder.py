"""Images of one's own: a folder with one JSONL or CSV a split."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riszoo.data.images import ImageError, size_of
from riszoo.data.index import MEANT, NO_TARGET, UNKNOWN, Phrase, Piece, Ref
from riszoo.data.masks import Size
from riszoo.data.readers import validation
from riszoo.data.readers.base import Counts, Reader, Report, coco_key
from riszoo.data.readers.refer import pieces_of
from riszoo.data.readers.validation import RecordError
from riszoo.errors import UserError

FIELDS = {
    "image": ("image", "image", "file_name", "img"),
    "sentence": ("sentence", "sentences", "text", "expression"),
    "mask": ("mask", "segmentation", "polygon", "polygons", "rle"),
}
NOTHING = "none"
LONGEST = 1 << 24  # characters in a CSV cell: outlines are long
SUFFIXES = (".jsonl", ".csv", ".ndjson")


class Folder(Reader):
    """Lines of image, sentence and mask; lines that share image and mask are one target with several sentences."""

    name = dataset = "folder"
    by = "lines"
    publisher = "you"
    images_from = "you"
    folders = ("",)
    published: dict[str, Counts] = {}  # noqa: RUF012 - nothing is published about it

    @property
    def advice(self) -> str:
        return "write a line for each sentence there (image, sentence, mask)"

    def units(self, split: str) -> tuple[str, ...]:
        return (split,)

    def all_units(self, root: Path) -> tuple[str, ...]:
        found = root.iterdir() if root.is_dir() else ()
        return tuple(sorted({path.stem for path in found if path.suffix in SUFFIXES})) or ("train",)

    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        return [[root / f"{unit}{suffix}" for suffix in SUFFIXES]]

    def refs(self, files: list[Path], unit: str, report: Report) -> Iterator[Ref]:
        gathered: dict[tuple[str, str], Ref] = {}
        sizes: dict[str, Size] = {}
        for place, line in enumerate(_lines(files[0]), 1):
            try:
                _gather(line, place, unit, files[0].parent, gathered, sizes)
            except (RecordError, ImageError, LookupError, TypeError, ValueError, OverflowError) as error:
                report(f"{files[0].name}:{place}", str(error))
        yield from gathered.values()


def _lines(path: Path) -> Iterator[Any]:
    """One row a line; a broken line is a text, which no reader takes for a row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                csv.field_size_limit(LONGEST)
                yield from csv.DictReader(file)
                return
            for line in filter(str.strip, file):
                yield _parsed(line)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read line by line: {error}; save it as UTF-8 text") from error


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line


def _field(row: Any, name: str) -> Any:
    if not isinstance(row, dict):
        raise RecordError("the line is no JSON object")
    return next((row[spelling] for spelling in FIELDS[name] if row.get(spelling) not in (None, "")), None)


def _gather(
    row: Any, place: int, unit: str, root: Path, gathered: dict[tuple[str, str], Ref], sizes: dict[str, Size]
) -> None:
    image, sentence, mask = (_field(row, name) for name in FIELDS)
    if image is None or sentence is None:
        raise RecordError(f"the line lacks a {'image' if image is None else 'sentence'}")
    image, mask = validation.text(image), _unquoted(mask)
    sentences = [validation.text(one) for one in (sentence if isinstance(sentence, list) else [sentence])]
    if image not in sizes:
        sizes[image] = size_of(root / image)
    key = (image, json.dumps(mask) if mask is not None else f"line {place}")
    if key not in gathered:
        known, pieces = _target(mask, row, sizes[image])
        gathered[key] = Ref(
            image, image, sizes[image], coco_key(image) or f"{root.name}:{image}",
            str(row.get("id") or place), unit, pieces, [], known,
        )  # fmt: skip
    ref = gathered[key]
    first = len(ref.phrases)
    ref.phrases += [
        Phrase(f"{ref.target_id}.{first + n}", one, " ".join(one.lower().split())) for n, one in enumerate(sentences)
    ]


def _unquoted(mask: Any) -> Any:
    """In a CSV, outlines and runs are JSON inside a cell."""
    return json.loads(mask) if isinstance(mask, str) and mask.lstrip()[:1] in ("[", "{") else mask


def _target(mask: Any, row: dict[str, Any], size: Size) -> tuple[int, list[Piece]]:
    if mask in (NOTHING, []) or str(row.get("no_target", "")).lower() in ("true", "1"):
        return NO_TARGET, []
    if mask is None:
        return UNKNOWN, []
    if isinstance(mask, str):
        return MEANT, [Piece(stored=mask)]
    if isinstance(mask, list) and not isinstance(mask[0], (list, dict)):
        mask = [mask]  # one outline, not in a list of its own
    return MEANT, [pieces_of(mask, size)]
