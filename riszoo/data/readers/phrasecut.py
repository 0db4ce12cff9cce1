"""PhraseCut (VGPhraseCut v0): phrases about Visual Genome images, outlines nested three deep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.masks import Polygons, Segmentation, Size, Union, Unlabelled
from riszoo.data.readers import validation
from riszoo.data.readers.base import Counts, Reader, Report, lower_tokens
from riszoo.data.readers.phrasecut_subsets import Ranks, read_ranks, subsets
from riszoo.data.readers.validation import RecordError, Table
from riszoo.data.record import Record, Sentence, Target
from riszoo.errors import UserError

RANKS = "name_att_rel_count.json"
FOLDERS = ("VGPhraseCut_v0", "phrasecut", "PhraseCut", "")


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

    def optional_files(self, files: list[Path]) -> list[Path]:
        return [path for path in [files[0].with_name(RANKS)] if path.is_file()]

    def records(self, files: list[Path], unit: str, report: Report) -> Iterator[Record]:
        tasks = validation.load_json(files[0])
        if not isinstance(tasks, list):
            raise UserError(f"{files[0]} is not a JSON list: get the file again")
        images = validation.table(validation.load_json(files[1]), "image_id", files[1])
        ranks = read_ranks(files[0].with_name(RANKS))
        for index, task in enumerate(tasks):
            try:
                yield _record(task, images, unit, ranks)
            except (RecordError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                name = task.get("task_id", f"#{index}") if isinstance(task, dict) else f"#{index}"
                report(str(name), validation.reason(error))


def _record(task: dict[str, Any], images: Table, unit: str, ranks: Ranks | None) -> Record:
    name = validation.text(task["task_id"])
    number = validation.number(task.get("image_id", int(name.partition("__")[0])))
    row = images.row("image", number)
    size, coco = validation.size(row["height"], row["width"]), row.get("coco_id")
    instances = tuple(_instance(instance, size) for instance in task["Polygons"]) if "Polygons" in task else ()
    if "Polygons" in task and not instances:
        raise RecordError("it has no outline")
    phrase = validation.text(task["phrase"])
    # the share needs a drawn mask: only for the splits that report it
    share = _share(instances, size) if instances and unit != "train" else None
    boxes = len(task.get("instance_boxes", instances))
    tags = subsets(task.get("phrase_structure") or {}, boxes, coco is not None, share, ranks)
    sentence = Sentence(name, phrase, tuple(tags), lower_tokens(phrase))
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


def _share(instances: tuple[Polygons, ...], size: Size) -> float:
    return float(Union(size, instances).draw(GroundTruth(engine="pillow")).mean())
