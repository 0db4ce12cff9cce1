"""The `refer` layout: refs(<by>).p beside instances.json. RefCOCO, RefCOCO+, RefCOCOg, RefCLEF and gRefCOCO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riszoo.data.masks import NoTarget, Polygons, Rles, Segmentation, Size, Union
from riszoo.data.readers import validation
from riszoo.data.readers.base import COCO_FOLDERS, Counts, Reader, Report
from riszoo.data.readers.validation import RecordError, Table
from riszoo.data.record import Record, Sentence, Target
from riszoo.errors import UserError

_ARCHIVED = "https://web.archive.org/web/{}/https://bvisionweb1.cs.unc.edu/licheng/referit/data/{}.zip"
ARCHIVES = {
    "refclef": _ARCHIVED.format(20220413011817, "refclef"),
    "refcoco": _ARCHIVED.format(20220413011718, "refcoco"),
    "refcoco+": _ARCHIVED.format(20220413011656, "refcoco+"),
    "refcocog": _ARCHIVED.format(20220413012904, "refcocog"),
}
"""Copies of UNC's files by folder, listed by an issue of the `refer` repository: UNC's server is down since 2022."""


class Refer(Reader):
    """A file of refs and the annotations they name."""

    images_from = "the COCO project (train2014, for every split)"

    def __init__(
        self,
        name: str,
        dataset: str,
        by: str,
        published: dict[str, Counts],
        publisher: str,
        refs: str = "refs",
    ) -> None:
        self.name, self.dataset, self.by = name, dataset, by
        self.published, self.publisher = published, publisher
        self.archive = ARCHIVES.get(dataset, "")
        self.folders = COCO_FOLDERS
        self._refs = refs

    def units(self, split: str) -> tuple[str, ...]:
        return (self.by,)

    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        folder = root / self.dataset
        suffixes = (".json", ".p") if self._refs == "grefs" else (".p", ".json")
        return [[folder / f"{self._refs}({unit}){suffix}" for suffix in suffixes], [folder / "instances.json"]]

    def check_split(self, split: str) -> None:
        if self.name == "refcocog-google" and split.startswith("test"):
            raise UserError(
                "refcocog-google has no test split: its authors never released one. Use 'val' (papers write val* or "
                "val(G)), or --data refcocog, whose umd partition has a test split"
            )

    def records(self, files: list[Path], unit: str, report: Report) -> Iterator[Record]:
        rows, instances = validation.read(files[0]), validation.load_json(files[1])
        if not isinstance(rows, list):
            raise UserError(f"{files[0]} contains no list of refs: get the file again")
        images, annotations = (_table(instances, name, files[1]) for name in ("images", "annotations"))
        for index, row in enumerate(rows):
            try:
                yield self._record(row, images, annotations)
            except (RecordError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                name = row.get("ref_id", f"#{index}") if isinstance(row, dict) else f"#{index}"
                report(str(name), validation.reason(error))

    def _record(self, row: dict[str, Any], images: Table, annotations: Table) -> Record:
        number = validation.number(row["image_id"])
        image = images.row("image", number)
        size = validation.size(image["height"], image["width"])
        named = _named_annotations(row)
        tags = _tags(named) if self._refs == "grefs" else ()
        file = validation.relative_path(image["file_name"])
        target = Target(
            str(validation.number(row["ref_id"])),
            _segmentation(named, number, annotations, size),
            _sentences(row, tags),
            no_target=not named,
        )
        return Record(
            str(number), size, (target,), file=file, key=self._key(number), split=validation.text(row["split"])
        )

    def _key(self, number: int) -> str:
        return f"coco:{number}"


class RefClef(Refer):
    """ReferIt in the `refer` layout: images of SAIAPR TC-12, masks as lists of RLEs."""

    images_from = "ImageCLEF (SAIAPR TC-12; the `refer` repository names the subset in use)"
    absent = ("17975.jpg", "19575.jpg", "19579.jpg")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folders = ("images/saiapr_tc-12", "saiapr_tc-12", "refclef/images", "images/saiaprtc12", "images/refclef")

    def _key(self, number: int) -> str:
        return f"saiapr:{number}"


def coco_segmentation(filed: Any, size: Size) -> Segmentation:
    """One annotation as COCO files it: flat outlines, an RLE, or a list of RLEs."""
    if isinstance(filed, dict):
        return Rles(size, (validation.read_rle(filed, size),))
    if not isinstance(filed, list) or not filed:
        raise RecordError("its annotation has no segmentation")
    if isinstance(filed[0], dict):
        return Rles(size, tuple(validation.read_rle(rle, size) for rle in filed))
    return Polygons(size, tuple(validation.outline(part, size) for part in filed))


def _table(instances: Any, name: str, path: Path) -> Table:
    if not isinstance(instances, dict) or name not in instances:
        raise UserError(f"{path} has no table '{name}': get the file again")
    return validation.table(instances[name], "id", path)


def _named_annotations(row: dict[str, Any]) -> list[int]:
    """The ids of the target's annotations; empty where `-1` or `no_target` is filed."""
    filed = row["ann_id"]
    named = [validation.number(one) for one in (filed if isinstance(filed, (list, tuple)) else [filed])]
    return [] if row.get("no_target") or -1 in named else named


def _segmentation(named: list[int], image: int, annotations: Table, size: Size) -> Segmentation:
    """Of several annotations, crowds are left out, as in gRefCOCO's own reader."""
    members = []
    for number in named:
        row = annotations.row("annotation", number)
        if row.get("image_id", image) != image:
            raise RecordError(f"its annotation {number} belongs to image {row['image_id']}, not {image}")
        if len(named) == 1 or not row.get("iscrowd"):
            members.append(coco_segmentation(row["segmentation"], size))
    if named and not members:
        raise RecordError("all its annotations are crowds")
    return NoTarget(size) if not named else members[0] if len(members) == 1 else Union(size, tuple(members))


def _sentences(row: dict[str, Any], tags: tuple[str, ...]) -> tuple[Sentence, ...]:
    sentences = tuple(
        Sentence(
            str(validation.number(one["sent_id"])),
            validation.text(one.get("raw", one["sent"])),
            tags,
            validation.text(one["sent"]),
        )
        for one in row["sentences"]
    )
    if not sentences:
        raise RecordError("it has no sentence")
    return sentences


def _tags(named: list[int]) -> tuple[str, ...]:
    return ("none",) if not named else ("single",) if len(named) == 1 else ("multi",)
