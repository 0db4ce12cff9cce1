"""Small trees in each official layout, with every trap; masks are simple enough to count by hand."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

H, W = 20, 30
BOX = [2, 3, 12, 3, 12, 13, 2, 13]  # x 2..12, y 3..13: 10 x 10 pixels
RIGHT = [8, 3, 18, 3, 18, 13, 8, 13]  # overlaps BOX in 4 x 10 pixels
SLIVER = [1, 1, 4, 1]  # two points, and as many numbers as a box


def photo(path: Path, size: tuple[int, int] = (H, W), mode: str = "RGB", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.add.outer(np.arange(size[0]) * 5, np.arange(size[1]) * 3).astype(np.uint8)
    Image.fromarray(np.stack([ramp, ramp // 2, 255 - ramp], axis=2)).convert(mode).save(path, **options)
    return path


def coco_name(number: int) -> str:
    return f"COCO_train2014_{number:012d}.jpg"


def rle(*columns: tuple[int, int, int, int], size: tuple[int, int] = (H, W)) -> dict[str, Any]:
    """A compressed RLE of boxes top, left, bottom, right."""
    mask = np.zeros(size, np.uint8, order="F")
    for top, left, bottom, right in columns:
        mask[top:bottom, left:right] = 1
    packed = coco.encode(mask)
    return {"size": list(size), "counts": packed["counts"].decode()}


def ref(ref_id: int, image: int, ann: Any, split: str, *sentences: str, **more: Any) -> dict[str, Any]:
    rows = [
        {"sent_id": ref_id * 10 + n, "raw": text, "sent": text.lower().strip(" ."), "tokens": text.lower().split()}
        for n, text in enumerate(sentences)
    ]
    return {
        "ref_id": ref_id, "ann_id": ann, "image_id": image, "category_id": 1, "split": split,
        "file_name": f"COCO_train2014_{image:012d}_{ref_id}.jpg", "sentences": rows,
        "sent_ids": [row["sent_id"] for row in rows], **more,
    }  # fmt: skip


def annotation(number: int, image: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1, "iscrowd": crowd, "segmentation": segmentation}


def images(*numbers: int, size: tuple[int, int] = (H, W)) -> list[dict[str, Any]]:
    return [{"id": n, "file_name": coco_name(n), "height": size[0], "width": size[1]} for n in numbers]


def write_refer(
    root: Path, name: str, by: str, refs: list[Any], tables: dict[str, Any], photos: tuple[int, ...] = ()
) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    (folder / "instances.json").write_text(json.dumps(tables))
    for number in photos:
        photo(root / "images/train2014" / coco_name(number))
    return root


def refcoco(root: Path, name: str = "refcoco", by: str = "unc", held_out: str = "testA") -> Path:
    """Images 1, 2 (train), 3 (val), 4 (held out); a bad ref; refs out of image order."""
    refs = [
        ref(11, 1, 101, "train", "Left box.", "the BOX on the left"),
        ref(21, 2, 201, "train", "overlapping things"),
        ref(12, 1, 102, "train", "right box"),
        ref(31, 3, 301, "val", "the crowd", "many people", "all of them"),
        ref(41, 4, 401, held_out, "a box with a sliver"),
        ref(99, 1, 999, "train", "an annotation that is not there"),
    ]
    tables = {
        "images": images(1, 2, 3, 4),
        "annotations": [
            annotation(101, 1, [BOX]),
            annotation(102, 1, [RIGHT]),
            annotation(201, 2, [BOX, RIGHT]),
            annotation(301, 3, {"size": [H, W], "counts": [5, 10, H * W - 15]}, crowd=1),
            annotation(401, 4, [SLIVER, BOX]),
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    return write_refer(root, name, by, refs, tables, (1, 2, 3, 4))


def grefcoco(root: Path) -> Path:
    refs = [
        ref(1, 1, [101, 102], "train", "both boxes", no_target=False),
        ref(2, 1, [-1], "train", "the zebra", no_target=True),
        ref(3, 1, [101, 103], "val", "the box and the crowd", no_target=False),
        ref(4, 1, 101, "train", "a bare number"),
    ]
    tables = {
        "images": images(1),
        "annotations": [
            annotation(101, 1, [BOX]),
            annotation(102, 1, [RIGHT]),
            annotation(103, 1, {"size": [H, W], "counts": [0, H * W]}, crowd=1),
        ],
    }
    folder = root / "grefcoco"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grefs(unc).json").write_text(json.dumps(refs))
    (folder / "instances.json").write_text(json.dumps(tables))
    photo(root / "images/mscoco/images/train2014" / coco_name(1))
    return root


def refclef(root: Path) -> Path:
    """Splits that overlap, a list of RLEs that overlap, and one of the three images nobody has."""
    splits = {1: "train", 2: "val", 3: "testA", 4: "testAB", 5: "testBC", 6: "testC", 7: "testA"}
    refs = [ref(n, n, n, split, f"thing {n}") for n, split in splits.items()]
    names = {n: f"{n}.jpg" for n in range(1, 7)} | {7: "19575.jpg"}
    tables = {
        "images": [{"id": n, "file_name": name, "height": H, "width": W} for n, name in names.items()],
        "annotations": [annotation(n, n, [rle((0, 0, 10, 10)), rle((5, 5, 15, 15))]) for n in splits],
    }
    write_refer(root, "refclef", "unc", refs, tables)
    for n in range(1, 7):
        photo(root / "images/saiapr_tc-12" / f"{n}.jpg")
    return root


def matlab(mask: np.ndarray, *, packed: bool = True, name: str = "segimg_t", order: str = "<") -> bytes:
    """A MATLAB 5 file of one uint8 matrix, written as MATLAB does."""

    def element(kind: int, content: bytes) -> bytes:
        if len(content) <= 4:
            return struct.pack(f"{order}I", kind | len(content) << 16) + content.ljust(4, b"\0")
        return struct.pack(f"{order}II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    content = (
        element(6, struct.pack(f"{order}II", 9, 0))
        + element(5, struct.pack(f"{order}ii", *mask.shape))
        + element(1, name.encode())
        + element(2, mask.astype(np.uint8).tobytes(order="F"))
    )
    whole = element(14, content)
    if packed:
        squeezed = zlib.compress(whole)
        whole = struct.pack(f"{order}II", 15, len(squeezed)) + squeezed
    mark = b"\x00\x01IM" if order == "<" else b"\x01\x00MI"
    return b"MATLAB 5.0 MAT-file".ljust(124) + mark + whole


def referit(root: Path) -> Path:
    folder = root / "referit"
    (folder / "mask").mkdir(parents=True)
    queries = {"train": {"10_1": ["Sky", "the sky on TOP"]}, "val": {"11_1": ["grass"], "11_x": ["bad name"]}}
    for split, rows in queries.items():
        (folder / f"referit_query_{split}.json").write_text(json.dumps(rows))
    (folder / "referit_query_test.json").write_text(json.dumps({"12_3": ["dog"]}))
    sizes = {f"{n}.jpg": [W, H] for n in (10, 11, 12)}  # width first
    (folder / "referit_imsize.json").write_text(json.dumps(sizes))
    outside = np.ones((H, W), np.uint8)
    outside[:5] = 0  # zero is inside
    for number, region in ((10, 1), (11, 1), (12, 3)):
        (folder / "mask" / f"{number}_{region}.mat").write_bytes(matlab(outside))
        photo(folder / "images" / f"{number}.jpg")
    return root


def phrasecut(root: Path) -> Path:
    folder = root / "VGPhraseCut_v0"
    square = [[2.9, 3.9], [12.2, 3.1], [12.8, 13.5], [2.1, 13.9]]  # whole numbers: 2..12, 3..13
    other = [[20, 3], [24, 3], [24, 7], [20, 7]]
    rows = {
        "train": [task(1, [[square]], "White sky")],
        "val": [task(2, [[square], [other]], "two things"), task(2, [[[[1, 1]]], [square]], "a point and a square")],
        "miniv": [task(3, [[square]], "mini")],
        "test": [task(4, [[square]], "testing")],
    }
    images = [
        {"image_id": n, "height": H, "width": W, "coco_id": 3 if n == 2 else None, "split": "x"} for n in range(1, 5)
    ]
    folder.mkdir(parents=True)
    (folder / "image_data_split3000.json").write_text(json.dumps(images))
    (folder / "name_att_rel_count.json").write_text(json.dumps({"cat": [["sky", 9], ["man", 5]], "att": [], "rel": []}))
    for split, tasks in rows.items():
        (folder / f"refer_{split}.json").write_text(json.dumps(tasks))
    for number in range(1, 5):
        photo(folder / "images" / f"{number}.jpg")
    return root


def task(image: int, polygons: Any, phrase: str) -> dict[str, Any]:
    return {
        "task_id": f"{image}__{len(phrase)}", "image_id": image, "ann_ids": [1],
        "phrase": phrase, "Polygons": polygons, "instance_boxes": [[0, 0, 1, 1]] * len(polygons),
        "phrase_structure": {
            "name": "sky", "attributes": ["white"], "relation_ids": [], "relation_descriptions": [],
            "type": "attribute",
        },
    }  # fmt: skip
