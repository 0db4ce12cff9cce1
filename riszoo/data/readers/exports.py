"""Exports of annotation tools as the lines of a folder: COCO's JSON, and labelme's file for each image.

A sentence is the text that the annotator wrote beside an object: in COCO one of FIELDS, also inside `attributes`; in
labelme the description. Several sentences are separated by line breaks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from riszoo.data.images import ImageError, size_of
from riszoo.data.readers import validation
from riszoo.data.readers.validation import RecordError
from riszoo.errors import UserError
from riszoo.files import write_atomically

FIELDS = ("sentences", "sentence", "captions", "caption", "expression", "description", "text")
LARGEST = 64 << 20
"""Bytes of one labelme file, at most."""
Row = dict[str, Any]


@dataclass
class Export:
    """The lines of an export, and how many objects were left out for each reason."""

    root: Path
    rows: list[Row] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # width and height of each image file

    def add(self, image: Any, texts: list[str], mask: Any, size: tuple[Any, Any]) -> None:
        """Add a line for each sentence of an object, drawn on an image of this width and height."""
        if not image:
            self.skipped["without an image"] += 1
            return
        try:
            file = validation.relative_path(image)
        except RecordError as error:
            self.skipped[str(error)] += 1
            return
        if not texts:
            self.skipped["without a sentence"] += 1
        elif not (self.root / file).is_file():
            self.skipped["without an image file"] += 1
        elif not mask:
            self.skipped["without a mask"] += 1
        elif reason := self._differs(file, size):
            self.skipped[reason] += 1
        else:
            self.rows += [{"image": file, "sentence": text, "mask": mask} for text in texts]

    def _differs(self, file: str, size: tuple[Any, Any]) -> str:
        """Why outlines that were drawn on an image of this size do not fit the file; empty where they do."""
        if file not in self.sizes:
            try:
                self.sizes[file] = size_of(self.root / file)[::-1]
            except ImageError:
                return "with an image that cannot be read"
        if None in size or size == self.sizes[file]:
            return ""
        if size == self.sizes[file][::-1]:
            return "drawn on a rotated image (save the photographs upright, without an EXIF orientation)"
        return "drawn on an image of another size"


def read_export(path: Path, images: Path | None, labels: bool) -> Export:
    """The lines of a COCO file or of a folder of labelme files.

    `images` is the folder of the images, by default that of the export. With `labels`, the name of its category or
    label is the sentence of an object that has none.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: give a COCO file, or a folder of labelme files")
    export = Export(images or (path if path.is_dir() else path.parent))
    if path.is_dir():
        _read_labelme(path, export, labels)
    else:
        _read_coco(path, export, labels)
    if not export.rows:
        raise UserError(f"{path} contains no object with a sentence, mask and image{_reasons(export.skipped)}")
    return export


def _reasons(skipped: Counter[str]) -> str:
    counts = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common(3))
    return f" ({counts}): check --images, or use the labels as sentences with --labels" if counts else ""


def _texts(values: dict[str, Any]) -> list[str]:
    """The sentences of an object."""
    filed: Any = next((values[name] for name in FIELDS if values.get(name)), [])
    lines = filed.splitlines() if isinstance(filed, str) else filed if isinstance(filed, list) else []
    return [line.strip() for line in lines if isinstance(line, str) and line.strip()]


def _read_coco(path: Path, export: Export, labels: bool) -> None:
    content = validation.load_json(path)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise UserError(f"{path} is not a COCO file: it lacks 'images' or 'annotations'")
    images, categories, annotations = (_rows(content, name, path) for name in ("images", "categories", "annotations"))
    for row in annotations.values():
        image, attributes = _filed(images, row.get("image_id")), row.get("attributes")
        texts = _texts(row) or _texts(attributes if isinstance(attributes, dict) else {})
        if labels and not texts:
            texts = [str(name) for name in [_filed(categories, row.get("category_id")).get("name")] if name]
        export.add(image.get("file_name"), texts, row.get("segmentation"), (image.get("width"), image.get("height")))


def _rows(content: Row, name: str, path: Path) -> dict[Any, Row]:
    """The rows of a table by their id. Of several with one id none can be chosen."""
    table = validation.table(content.get(name, []), "id", path)
    if table.repeated:
        example = min(map(str, table.repeated))
        raise UserError(f"{path} has several {name} with one id, such as {example:.40}: number them anew")
    return table.rows


def _filed(rows: dict[Any, Row], key: Any) -> Row:
    """The row under an id; an empty one where there is none, or the id is no id."""
    return rows.get(key, {}) if isinstance(key, int | str) else {}


def _read_labelme(folder: Path, export: Export, labels: bool) -> None:
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError(f"{folder} contains no .json file of labelme: give its folder, or a COCO file")
    for file in files:
        content = validation.load_json(file, LARGEST)
        shapes = content.get("shapes") if isinstance(content, dict) else None
        if not isinstance(shapes, list):
            export.skipped["files that are not labelme's"] += 1
            continue
        image = PureWindowsPath(str(content.get("imagePath", ""))).name  # also splits at /
        size = (content.get("imageWidth"), content.get("imageHeight"))
        for group in _groups(shapes):
            texts = [text for shape in group for text in _texts(shape)] or [str(group[0].get("label"))] * labels
            outlines = [outline for shape in group for outline in _outlines(shape)]
            export.add(image, list(dict.fromkeys(texts)), outlines, size)


def _groups(shapes: list[Any]) -> Iterator[list[dict[str, Any]]]:
    """The shapes of each object: those that share a group and a label."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for number, shape in enumerate(shapes):
        if isinstance(shape, dict):
            group = shape.get("group_id")
            key = number if group is None else (str(group), str(shape.get("label")))
            groups.setdefault(key, []).append(shape)
    yield from groups.values()


def _outlines(shape: dict[str, Any]) -> list[list[float]]:
    """The polygon of a shape as x, y, x, y, ...; a rectangle has two corners, other shapes have none."""
    try:
        points = [(float(x), float(y)) for x, y in shape.get("points", [])]
    except (TypeError, ValueError):
        return []
    if shape.get("shape_type") == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    elif shape.get("shape_type", "polygon") != "polygon" or len(points) < 3:
        return []
    return [[value for point in points for value in point]]


def write_splits(export: Export, share: float) -> dict[str, int]:
    """Write train.jsonl and val.jsonl beside the images; returns the lines of each.

    `share` of the images, at least one, is for validation; the choice depends on their names alone.
    """
    names = sorted({row["image"] for row in export.rows}, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(names) < 2:
        raise UserError(f"{export.root} has one image with sentences: give at least two, for training and validation")
    held_out = set(names[: min(len(names) - 1, max(1, round(share * len(names))))])
    splits = {
        "train": [row for row in export.rows if row["image"] not in held_out],
        "val": [row for row in export.rows if row["image"] in held_out],
    }
    for split in splits:
        if (export.root / f"{split}.jsonl").exists():
            raise UserError(f"{export.root / split}.jsonl exists already: move it away")
    for split, rows in splits.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(export.root / f"{split}.jsonl", lines)
    return {split: len(rows) for split, rows in splits.items()}
