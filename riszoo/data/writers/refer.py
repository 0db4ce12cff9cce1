"""A data set in REFER's layout: refs(unc).p beside instances.json, and images, as RefCOCO is filed.

Ids are stable: those of a split start at a multiple of `BLOCK` that follows from its position in the recipe, and count
images, targets and sentences in its own order. Rows also keep riszoo's ids, as `target_id` and `sentence_id`. Masks are
run lengths in a list, which REFER's own reader decodes.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.readers.base import lower_tokens
from riszoo.data.record import Sentence, Split, Target
from riszoo.errors import UserError
from riszoo.files import new_folder

DATASET, PARTITION = "refcoco", "unc"
IMAGES = "images/mscoco/images/train2014"
BLOCK = 10_000_000
CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}

Row = dict[str, Any]


@dataclass
class _Tables:
    """The rows of both files, as they grow."""

    refs: list[Row] = field(default_factory=list)
    images: list[Row] = field(default_factory=list)
    annotations: list[Row] = field(default_factory=list)


def write_refer(splits: Mapping[int, Split], out: Path, limit: int | None = None) -> dict[str, int]:
    """Write splits, given by their positions in the recipe, to a new folder; returns the sentences of each.

    `limit` is the number of images of each split. The folder appears when it is complete.
    """
    tables, written = _Tables(), {}
    try:
        with new_folder(out) as folder:
            (folder / IMAGES).mkdir(parents=True)
            for position, split in splits.items():
                before = len(tables.refs)
                _add_split(tables, split, position * BLOCK, folder / IMAGES, limit)
                written[split.name] = sum(len(row["sentences"]) for row in tables.refs[before:])
            _write_tables(tables, folder / DATASET)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}): choose another folder") from error
    return written


def _write_tables(tables: _Tables, folder: Path) -> None:
    folder.mkdir()
    with (folder / f"refs({PARTITION}).p").open("wb") as file:
        pickle.dump(tables.refs, file, protocol=2)
    info = {"description": "written by riszoo data export"}
    instances = {"info": info, "licenses": [], "images": tables.images, "annotations": tables.annotations}
    (folder / "instances.json").write_text(json.dumps({**instances, "categories": [CATEGORY]}))


def _add_split(tables: _Tables, split: Split, base: int, folder: Path, limit: int | None) -> None:
    targets, sentences = _counter(base), _counter(base)
    for index in range(min(len(split), limit or len(split))):
        record, number = split[index], base + index
        name = f"COCO_train2014_{number:012d}.png"
        Image.fromarray(record.load()).save(folder / name)
        height, width = record.size
        tables.images.append(
            {"id": number, "file_name": name, "height": height, "width": width, "image_name": record.image_id}
        )
        for target in record.targets:
            ref = next(targets)
            tables.annotations.append(_annotation(target, ref, number))
            tables.refs.append(_ref(target, ref, number, name, split.name, sentences))


def _counter(base: int) -> Iterator[int]:
    yield from range(base, base + BLOCK)


def _annotation(target: Target, number: int, image: int) -> Row:
    """The mask of a target as a list of one run-length encoding; empty for a sentence without a target."""
    from pycocotools import mask as coco

    drawn = coco.encode(np.asfortranarray(target.segmentation.draw(GroundTruth()), dtype=np.uint8))
    runs = {"size": [int(side) for side in drawn["size"]], "counts": drawn["counts"].decode("ascii")}
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORY["id"],
        "segmentation": [runs],
        "area": int(coco.area(drawn)),
        "bbox": [float(side) for side in coco.toBbox(drawn)],
        "iscrowd": 0,
    }


def _ref(target: Target, number: int, image: int, file: str, split: str, ids: Iterator[int]) -> Row:
    sentences = [_sentence(sentence, next(ids)) for sentence in target.sentences]
    ref: Row = {
        "ref_id": number,
        "ann_id": number,
        "image_id": image,
        "category_id": CATEGORY["id"],
        "file_name": file,
        "split": split,
        "sentences": sentences,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "target_id": target.target_id,
    }
    return ref | ({"no_target": True} if target.no_target else {})


def _sentence(sentence: Sentence, number: int) -> Row:
    sent = sentence.sent or lower_tokens(sentence.text)
    return {
        "sent_id": number,
        "sent": sent,
        "raw": sentence.text,
        "tokens": sent.split(),
        "sentence_id": sentence.sentence_id,
    }
