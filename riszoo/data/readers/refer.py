"""The `refer` layout: refs(<by>).p beside instances.json. RefCOCO, RefCOCO+, RefCOCOg, RefCLEF and gRefCOCO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riszoo.data.index import MEANT, NO_TARGET, Phrase, Piece, Ref
from riszoo.data.masks import Size
from riszoo.data.readers import validation
from riszoo.data.readers.base import COCO_FOLDERS, Counts, Reader, Report
from riszoo.data.readers.validation import RecordError
from riszoo.errors import UserError

Rows = dict[int, dict[str, Any]]


class Refer(Reader):
    """One refs file and the annotations it points into."""

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
        self.folders = COCO_FOLDERS
        self._refs = refs

    def units(self, split: str) -> tuple[str, ...]:
        return (self.by,)

    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        folder = root / self.dataset
        suffixes = (".json", ".p") if self._refs == "grefs" else (".p", ".json")
        return [[folder / f"{self._refs}({unit}){suffix}" for suffix in suffixes], [folder / "instances.json"]]

    def refuse(self, split: str) -> None:
        if self.name == "refcocog-google" and split.startswith("test"):
            raise UserError(
                "refcocog-google has no test split: its authors never released one. Use 'val' (papers write val* or "
                "val(G)), or --data refcocog, whose umd partition has a test split"
            )

    def refs(self, files: list[Path], unit: str, report: Report) -> Iterator[Ref]:
        rows, instances = validation.read(files[0]), validation.load_json(files[1])
        if not isinstance(rows, list):
            raise UserError(f"{files[0]} holds no list of refs: get the file again")
        images, annotations = _by_id(instances, "images", files[1]), _by_id(instances, "annotations", files[1])
        for place, row in enumerate(rows):
            try:
                yield self._ref(row, images, annotations)
            except (RecordError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                report(_name(row, place), _why(error))

    def _ref(self, row: dict[str, Any], images: Rows, annotations: Rows) -> Ref:
        number = validation.number(row["image_id"])
        if number not in images:
            raise RecordError(f"its image {number} is not in instances.json")
        image = images[number]
        size = validation.size(image["height"], image["width"])
        targets = _targets(row)
        return Ref(
            image=str(number),
            file=validation.text(image["file_name"]),
            size=size,
            key=self._key(number),
            target_id=str(validation.number(row["ref_id"])),
            split=validation.text(row["split"]),
            pieces=_pieces(targets, number, annotations, size),
            phrases=_phrases(row, _tags(targets) if self._refs == "grefs" else ()),
            known=MEANT if targets else NO_TARGET,
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


def pieces_of(segmentation: Any, size: Size) -> Piece:
    """COCO's ways to file one annotation: flat outlines, an RLE, or a list of RLEs."""
    if isinstance(segmentation, dict):
        return Piece(runs=[validation.read_rle(segmentation, size)])
    if not isinstance(segmentation, list) or not segmentation:
        raise RecordError("its annotation has no segmentation")
    if isinstance(segmentation[0], dict):
        return Piece(runs=[validation.read_rle(rle, size) for rle in segmentation])
    return Piece(outlines=[validation.outline(part, size) for part in segmentation])


def _by_id(instances: Any, table: str, path: Path) -> Rows:
    try:
        return {row["id"]: row for row in instances[table]}
    except (LookupError, TypeError) as error:
        raise UserError(f"{path} has no table '{table}' of rows with ids: get the file again") from error


def _targets(row: dict[str, Any]) -> list[int]:
    """Ids of the annotations meant; none where `-1` or `no_target` is filed."""
    filed = row["ann_id"]
    targets = [validation.number(one) for one in (filed if isinstance(filed, (list, tuple)) else [filed])]
    return [] if row.get("no_target") or -1 in targets else targets


def _pieces(targets: list[int], image: int, annotations: Rows, size: Size) -> list[Piece]:
    """One piece an annotation. Of several, crowds are left out, as gRefCOCO's own reader does."""
    pieces = []
    for target in targets:
        if target not in annotations:
            raise RecordError(f"its annotation {target} is not in instances.json")
        row = annotations[target]
        if row.get("image_id", image) != image:
            raise RecordError(f"its annotation {target} belongs to image {row['image_id']}, not {image}")
        if len(targets) == 1 or not row.get("iscrowd"):
            pieces.append(pieces_of(row["segmentation"], size))
    if targets and not pieces:
        raise RecordError("every annotation it names is a crowd")
    return pieces


def _phrases(row: dict[str, Any], tags: tuple[str, ...]) -> list[Phrase]:
    phrases = [
        Phrase(
            str(validation.number(one["sent_id"])),
            validation.text(one.get("raw", one["sent"])),
            validation.text(one["sent"]),
            tags,
        )
        for one in row["sentences"]
    ]
    if not phrases:
        raise RecordError("it has no sentence")
    return phrases


def _tags(targets: list[int]) -> tuple[str, ...]:
    return ("none",) if not targets else ("single",) if len(targets) == 1 else ("multi",)


def _name(row: Any, place: int) -> str:
    return str(row.get("ref_id", f"#{place}")) if isinstance(row, dict) else f"#{place}"


def _why(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)
