"""PhraseCut (VGPhraseCut v0): phrases about Visual Genome images, outlines nested three deep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riszoo.data.masks import GroundTruth, Polygons, Segmentation, Size, Union, Unlabelled
from riszoo.data.readers import validation
from riszoo.data.readers.base import Counts, Reader, Report, lower_tokens
from riszoo.data.readers.validation import RecordError
from riszoo.data.record import Record, Sentence, Target
from riszoo.errors import UserError

FOLDERS = ("VGPhraseCut_v0", "phrasecut", "PhraseCut", "")
SMALL, LARGE, MANY = 0.02, 0.2, 5  # shares of the image, and instances, at which a subset begins
RARE = 500  # the rank from which a category is of no frequent subset
Names = dict[str, int]


class PhraseCut(Reader):
    """One annotation file a split. `miniv` is a part of validation that is kept out of `val`."""

    name = dataset = "phrasecut"
    by = "v0"
    publisher = "Chenyun Wu's PhraseCutDataset project (VGPhraseCut_v0)"
    images_from = "Visual Genome v1.2 (parts 1 and 2)"
    folders = ("VGPhraseCut_v0/images", "phrasecut/images", "PhraseCut/images", "images", "images/VG_100K", "VG_100K")
    published = {  # noqa: RUF012 - read only
        "train": Counts(310_816, 310_816, 71_746),
        "val": Counts(19_495, 19_495, 2_871),  # the file: 20,316 phrases on 2,971 images with miniv
        "miniv": Counts(821, 821, 100),
        "test": Counts(14_354, 14_354, 2_545),
    }

    def units(self, split: str) -> tuple[str, ...]:
        return ("val", "miniv") if split == "val_miniv" else (split,)

    def check_split(self, split: str) -> None:
        if split not in (*self.published, "val_miniv"):
            raise UserError(f"phrasecut has no split '{split}': choose among {', '.join(self.published)}, val_miniv")

    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        folder = next((root / name for name in FOLDERS if (root / name / f"refer_{unit}.json").is_file()), None)
        folder = folder or next((root / name for name in FOLDERS if (root / name).is_dir()), root / FOLDERS[0])
        images = [folder / name for name in ("image_data_split3000.json", "image_data_split.json")]
        return [[folder / f"refer_{unit}.json", folder / f"refer_input_{unit}.json"], images]

    def records(self, files: list[Path], unit: str, report: Report) -> Iterator[Record]:
        tasks, rows = validation.load_json(files[0]), validation.load_json(files[1])
        if not isinstance(tasks, list) or not isinstance(rows, list):
            raise UserError(f"{files[0]} or {files[1]} is not a JSON list: get the files again")
        images = {row.get("image_id"): row for row in rows if isinstance(row, dict)}
        names = _frequent(files[0].with_name("name_att_rel_count.json"))
        for index, task in enumerate(tasks):
            try:
                yield _record(task, images, unit, names)
            except (RecordError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                name = task.get("task_id", f"#{index}") if isinstance(task, dict) else f"#{index}"
                report(str(name), validation.reason(error))


def _record(task: dict[str, Any], images: dict[Any, Any], unit: str, names: Names) -> Record:
    name = validation.text(task["task_id"])
    number = validation.number(task.get("image_id", int(name.partition("__")[0])))
    if number not in images:
        raise RecordError(f"its image {number} is not in the file of images")
    row = images[number]
    size, coco = validation.size(row["height"], row["width"]), row.get("coco_id")
    instances = tuple(_instance(instance, size) for instance in task["Polygons"]) if "Polygons" in task else ()
    if "Polygons" in task and not instances:
        raise RecordError("it has no outline")
    phrase = validation.text(task["phrase"])
    tags = _tags(task.get("phrase_structure") or {}, instances, size, coco, unit, names)
    sentence = Sentence(name, phrase, tags, lower_tokens(phrase))
    return Record(
        str(number),
        size,
        (Target(name, _segmentation(instances, name, size), (sentence,)),),
        file=f"{number}.jpg",
        key=f"vg:{number}" if coco is None else f"coco:{validation.number(coco)}",
        split=unit,
    )


def _segmentation(instances: tuple[Polygons, ...], name: str, size: Size) -> Segmentation:
    if not instances:
        return Unlabelled(size, name)
    return instances[0] if len(instances) == 1 else Union(size, instances)


def _instance(polygons: Any, size: Size) -> Polygons:
    flat = [[coordinate for point in polygon for coordinate in _point(point)] for polygon in polygons]
    return Polygons(size, tuple(validation.outline(points, size) for points in flat if points))


def _point(point: Any) -> Any:
    if not isinstance(point, (list, tuple)) or len(point) != 2:
        raise RecordError(f"{point!r:.40} is not a point")
    return point


# -- the subsets that the official evaluation reports ------------------------------------------------------------------


def _tags(
    structure: dict[str, Any], instances: tuple[Polygons, ...], size: Size, coco: Any, unit: str, names: Names
) -> tuple[str, ...]:
    """How many instances, what the phrase is made of, how frequent its name is, and how large its target."""
    kind = {"name": "p_name", "attribute": "p_att+", "relation": "p_rel+", "verbose": "p_verbose"}
    found = {
        "i_single": len(instances) == 1,
        "i_multi": len(instances) > 1,
        "i_many": len(instances) >= MANY,
        "p_att": bool(structure.get("attributes")),
        "p_rel": bool(structure.get("relation_descriptions") or structure.get("relation_ids")),
        kind.get(structure.get("type", ""), ""): True,
        "d_cocotv": coco is not None,
        "d_notcocotv": coco is None,
    }
    tags = [tag for tag, applies in found.items() if tag and applies]
    if instances and unit != "train":  # the size needs a drawn mask: only for the splits that report it
        tags.append(_extent(instances, size))
    return tuple(tags) + _frequency(structure.get("name"), names)


def _extent(instances: tuple[Polygons, ...], size: Size) -> str:
    share = Union(size, instances).draw(GroundTruth(engine="pillow")).mean()
    return "s_small" if share < SMALL else "s_large" if share > LARGE else "s_mid"


def _frequent(path: Path) -> Names:
    """The rank of each category, from the counts published with the set; empty where the file is missing."""
    if not path.is_file():
        return {}
    filed = validation.load_json(path)
    rows = filed.get("cat", []) if isinstance(filed, dict) else []
    return {row[0]: rank for rank, row in enumerate(rows) if isinstance(row, list) and row}


def _frequency(name: Any, names: Names) -> tuple[str, ...]:
    if not names:
        return ()
    rank = names.get(name, RARE) if isinstance(name, str) else RARE
    steps = (("c20", 0, 20), ("c100", 0, 100), ("c500", 0, 500), ("c21-100", 20, 100), ("c101-500", 100, 500))
    inside = tuple(tag for tag, low, high in steps if low <= rank < high)
    return inside or ("c500+",)
