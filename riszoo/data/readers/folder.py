"""Your own images: a folder with one JSONL or CSV file a split."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from riszoo.data.images import ImageError, size_of
from riszoo.data.masks import NoTarget, Segmentation, Size, Unlabelled
from riszoo.data.readers import validation
from riszoo.data.readers.base import Counts, Reader, Report, coco_key, lower_tokens
from riszoo.data.readers.mask_files import MaskFile
from riszoo.data.readers.refer import coco_segmentation
from riszoo.data.readers.validation import RecordError
from riszoo.data.record import Record, Sentence, Target
from riszoo.errors import UserError

FIELDS = {
    "image": ("image", "image", "file_name", "img"),
    "sentence": ("sentence", "sentences", "text", "expression"),
    "mask": ("mask", "segmentation", "polygon", "polygons", "rle"),
}
NO_TARGET = "none"
POLYGON = 6
"""Numbers of the smallest polygon."""
LONGEST = 1 << 24  # characters in a CSV cell: outlines are long
COCO_NAME = re.compile(r"COCO_(train|val)2014_")
"""The beginning of an image's name that tells which image of COCO it is; a number alone may be anyone's."""
SUFFIXES = (".jsonl", ".csv", ".ndjson")
Key = tuple[str, str]  # image and mask of a target


class Folder(Reader):
    """Lines of image, sentence and mask; lines that share image and mask are one target with several sentences."""

    name = dataset = "folder"
    by = "lines"
    publisher = "you"
    images_from = "you"
    folders = ("",)
    own_masks = True
    published: dict[str, Counts] = {}  # noqa: RUF012 - nothing is published about it

    @property
    def advice(self) -> str:
        return "write a line for each sentence there (image, sentence, mask)"

    def has(self, filed: str, split: str) -> bool:
        return filed == split

    def units(self, split: str) -> tuple[str, ...]:
        return (split,)

    def all_units(self, root: Path) -> tuple[str, ...]:
        found = root.iterdir() if root.is_dir() else ()
        return tuple(sorted({path.stem for path in found if path.suffix in SUFFIXES})) or ("train",)

    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        return [[root / f"{unit}{suffix}" for suffix in SUFFIXES]]

    def records(self, files: list[Path], unit: str, report: Report) -> Iterator[Record]:
        records: dict[Key, Record] = {}
        sizes: dict[str, Size] = {}
        ids: dict[str, Key] = {}
        number = 0
        for number, (line, row) in enumerate(_lines(files[0]), 1):
            try:
                _add(row, number, unit, files[0].parent, records, sizes, ids)
            except (
                RecordError, ImageError, LookupError, TypeError, ValueError, OverflowError, RecursionError
            ) as error:  # fmt: skip
                report(f"{files[0].name}:{line}", validation.reason(error))
        if number == 0:
            raise UserError(f"{files[0]} contains no sentence: {self.advice}")
        yield from records.values()


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of each line and its row; a broken line is returned as text, which is then reported."""
    validation.check_bytes(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                yield from _rows(path, file)
                return
            yield from ((number, _parsed(line)) for number, line in enumerate(file, 1) if line.strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read line by line: {error}; save it as UTF-8 text") from error


def _rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """The rows of a CSV file, each with the number of its last line; the first line must name the columns."""
    csv.field_size_limit(LONGEST)
    reader = csv.DictReader(file)
    columns = reader.fieldnames or ()
    missing = [name for name in ("image", "sentence") if not set(FIELDS[name]) & set(columns)]
    if columns and missing:
        raise UserError(f"{path} has no column {' and '.join(missing)}: begin it with the line image,sentence,mask")
    yield from ((reader.line_num, row) for row in reader)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line


def _field(row: Any, name: str) -> Any:
    if not isinstance(row, dict):
        raise RecordError("the line is not a JSON object")
    return next((row[spelling] for spelling in FIELDS[name] if row.get(spelling) not in (None, "")), None)


def _add(
    row: Any,
    number: int,
    unit: str,
    root: Path,
    records: dict[Key, Record],
    sizes: dict[str, Size],
    ids: dict[str, Key],
) -> None:
    """Adds a line to the record of its image and mask, which the first such line creates."""
    image, sentence, mask = (_field(row, name) for name in FIELDS)
    if None in row:
        raise RecordError("it has more cells than the first line: quote a sentence that contains a comma")
    if image is None or sentence is None:
        raise RecordError(f"the line lacks a {'image' if image is None else 'sentence'}")
    image, mask = validation.relative_path(image), _parsed_mask(mask)
    texts = [validation.text(one) for one in (sentence if isinstance(sentence, list) else [sentence])]
    if not texts:
        raise RecordError("it has no sentence")
    if image not in sizes:
        sizes[image] = size_of(root / image)
    key = (image, json.dumps(mask) if mask is not None else f"line {number}")
    name = str(number if row.get("id") in (None, "") else row["id"])
    if ids.get(name, key) != key:
        raise RecordError(f"another line has the id '{name:.80}' and another mask: give each mask its own id")
    if key not in records:
        target = _target(mask, row, name, sizes[image])
        image_key = (coco_key(image) if COCO_NAME.match(Path(image).name) else None) or f"{root.name}:{image}"
        records[key] = Record(image, sizes[image], (target,), file=image, key=image_key, split=unit)
    ids[name] = key
    (target,) = records[key].targets
    first = len(target.sentences)
    added = tuple(
        Sentence(f"{target.target_id}.{first + n}", text, sent=lower_tokens(text)) for n, text in enumerate(texts)
    )
    records[key] = replace(records[key], targets=(replace(target, sentences=target.sentences + added),))


def _parsed_mask(mask: Any) -> Any:
    """In a CSV, outlines and runs are JSON inside a cell."""
    return json.loads(mask) if isinstance(mask, str) and mask.lstrip()[:1] in ("[", "{") else mask


def _target(mask: Any, row: dict[str, Any], name: str, size: Size) -> Target:
    no_target = mask == NO_TARGET or str(row.get("no_target", "")).lower() in ("true", "1")
    segmentation = NoTarget(size) if no_target else _segmentation(mask, name, size)
    return Target(name, segmentation, (), no_target)


def _segmentation(mask: Any, name: str, size: Size) -> Segmentation:
    if mask is None:
        return Unlabelled(size, name)
    if isinstance(mask, str):
        return MaskFile(size, Path(validation.relative_path(mask)))
    return coco_segmentation(_outlines(mask) if isinstance(mask, list) else mask, size)


def _outlines(mask: list[Any]) -> list[Any]:
    """Outlines as x, y, x, y, ..., of one or several, whose points may be pairs."""
    if mask and (not isinstance(mask[0], list) or _are_points(mask)):
        mask = [mask]  # one outline, not in a list
    flat = [[value for point in outline for value in point] if _are_points(outline) else outline for outline in mask]
    short = next((len(outline) for outline in flat if isinstance(outline, list) and len(outline) < POLYGON), None)
    if short is not None or not flat:
        raise RecordError(
            f"a mask of {short or 0} numbers is not a polygon: give x and y of three points or more (a box is no "
            f"mask), or '{NO_TARGET}' for a sentence without a target"
        )
    return flat


def _are_points(outline: Any) -> bool:
    """Whether it is a list of pairs of numbers."""
    return isinstance(outline, list) and all(
        isinstance(point, list) and len(point) == 2 and not isinstance(point[0], list) for point in outline
    )
