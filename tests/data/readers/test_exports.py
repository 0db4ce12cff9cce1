"""Exports of annotation tools: what is left out, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from riszoo.data.readers.exports import read_export
from riszoo.errors import UserError

BOX = [2, 2, 12, 2, 12, 10, 2, 10]
POINTS = [[2, 2], [12, 2], [12, 10], [2, 10]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        Image.new("RGB", (30, 20)).save(tmp_path / f"{name}.png")
    return tmp_path


def labelme(folder: Path, **changes: Any) -> None:
    shape = {"label": "cup", "description": "the red cup", "points": POINTS, "shape_type": "polygon"}
    content = {"imagePath": "a.png", "imageWidth": 30, "imageHeight": 20, "shapes": [shape], **changes}
    (folder / "a.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["a.png", "photos/a.png", "..\\photos\\a.png"])
def test_a_file_of_labelme(photos: Path, name: str) -> None:
    labelme(photos, imagePath=name)
    assert read_export(photos, None, labels=False).rows == [
        {"image": "a.png", "sentence": "the red cup", "mask": [[float(value) for value in BOX]]}
    ]


@pytest.mark.parametrize(
    ("size", "reason"),
    [((20, 30), "drawn on a rotated image"), ((60, 40), "drawn on an image of another size")],
)
def test_outlines_that_do_not_fit_the_file_are_left_out(photos: Path, size: tuple[int, int], reason: str) -> None:
    labelme(photos, imageWidth=size[0], imageHeight=size[1])
    with pytest.raises(UserError, match=f"1 {reason}"):
        read_export(photos, None, labels=False)


def test_objects_with_ids_that_are_no_ids_are_left_out(photos: Path) -> None:
    images = [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}]
    sound = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [BOX]}
    wrong = [{**sound, "id": 2, "image_id": [1], "caption": "x"}, {**sound, "id": 3, "category_id": 2}]
    content = {"images": images, "annotations": [sound, *wrong], "categories": [{"id": 1, "name": "cup"}, {"id": 2}]}
    (photos / "coco.json").write_text(json.dumps(content))
    export = read_export(photos / "coco.json", None, labels=True)
    assert [row["sentence"] for row in export.rows] == ["cup"]
    assert export.skipped == {"without an image": 1, "without a sentence": 1}


@pytest.mark.parametrize("name", ["images", "annotations"])
def test_several_rows_with_one_id_are_refused(photos: Path, name: str) -> None:
    images = [{"id": n, "file_name": f, "width": 30, "height": 20} for n, f in ((1, "a.png"), (2, "b.png"))]
    annotations = [{"id": n, "image_id": n, "caption": f"cup {n}", "segmentation": [BOX]} for n in (1, 2)]
    content = {"images": images, "annotations": annotations}
    (photos / "coco.json").write_text(json.dumps(content))
    assert [row["image"] for row in read_export(photos / "coco.json", None, labels=False).rows] == ["a.png", "b.png"]
    content[name][1]["id"] = 1
    (photos / "coco.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"coco.json has several {name} with one id, such as 1"):
        read_export(photos / "coco.json", None, labels=False)
