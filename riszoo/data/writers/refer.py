"""A data set in REFER's layout: refs(unc).p beside instances.json, and images, as RefCOCO is filed.

Ids are stable: those of a split start at a multiple of `BLOCK` that follows from its position in the recipe (or in
`USUAL`), or from its name where it is not listed, and count images, targets and sentences in its own order. Rows also
keep riszoo's ids, as `target_id` and `sentence_id`. Masks are run lengths in a list, which REFER's own reader decodes.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
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
BLOCK, BLOCKS = 2_000_000, 1_000
"""Ids of a split, and the number of such blocks: all ids fit into 32 bits."""
USUAL = ("train", "val", "test", "testA", "testB")
"""Splits whose blocks are the first where the recipe lists none."""
CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}

Row = dict[str, Any]


@dataclass
class _Tables:
    """The rows of both files, as they grow."""

    refs: list[Row] = field(default_factory=list)
    images: list[Row] = field(default_factory=list)
    annotations: list[Row] = field(default_factory=list)


def write_refer(splits: Sequence[Split], known: Sequence[str], out: Path, limit: int | None = None) -> dict[str, int]:
    """Write splits to a new folder, which appears when it is complete; returns the sentences of each.

    `known` are the splits that the recipe lists; `limit` is the number of images of each split.
    """
    blocks = _blocks([split.name for split in splits], known)
    tables, written = _Tables(), {}
    try:
        with new_folder(out) as folder:
            (folder / IMAGES).mkdir(parents=True)
            for split in splits:
                before = len(tables.refs)
                _add_split(tables, split, blocks[split.name] * BLOCK, folder / IMAGES, limit)
                written[split.name] = sum(len(row["sentences"]) for row in tables.refs[before:])
            _write_tables(tables, folder / DATASET)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}): choose another folder") from error
    return written


def _blocks(names: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """The block of ids of each split; equal for a name whatever else is exported."""
    usual = known or USUAL
    blocks: dict[str, int] = {}
    for name in names:
        hashed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        block = usual.index(name) + 1 if name in usual else len(usual) + 1 + hashed % (BLOCKS - len(usual))
        if block in blocks.values():
            other = next(first for first, taken in blocks.items() if taken == block)
            raise UserError(f"--splits {name} and {other} have the same ids: export them into two folders")
        blocks[name] = block
    return blocks


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
