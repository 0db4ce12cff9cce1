"""Your own images: JSONL and CSV files in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from riszoo.errors import UserError
from tests.support import data_trees as trees
from tests.support.splits import ANY, areas, opened, opened_with_warnings


@pytest.fixture
def own(tmp_path) -> Path:
    trees.photo(tmp_path / "pics/a.png")
    trees.photo(tmp_path / "pics/b.jpg", (10, 12))
    mask = np.zeros((trees.H, trees.W), np.uint8)
    mask[:4, :5] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def test_a_folder_of_json_lines(own):
    lines = [
        {"image": "pics/a.png", "sentence": "the corner", "mask": "mask.png", "id": "c"},
        {"image": "pics/a.png", "sentence": "upper left", "mask": "mask.png"},
        {"image": "pics/b.jpg", "text": "a triangle", "polygon": [0, 0, 8, 0, 0, 8]},
        {"image": "pics/a.png", "sentence": ["boxes", "two of them"], "mask": [trees.BOX, trees.RIGHT]},
        {"image": "pics/a.png", "sentence": "runs", "mask": trees.rle((0, 0, 2, 2))},
        {"image": "pics/b.jpg", "sentence": "no such thing", "mask": "none"},
        {"image": "pics/b.jpg", "sentence": "not known"},
        {"image": "pics/gone.jpg", "sentence": "gone"},
        {"sentence": "no image"},
    ]
    broken = "\n".join(json.dumps(line) for line in lines) + "\n{broken\n\n"
    (own / "train.jsonl").write_text(broken, encoding="utf-8-sig")
    split = opened("folder", "train", own)
    assert split.describe()["bad_records"] == 3
    assert split.image_ids() == ["pics/a.png", "pics/b.jpg"]
    a, b = split[0], split[1]
    assert [s.text for s in a.targets[0].sentences] == ["the corner", "upper left"]
    assert [int(t.segmentation.draw(ANY).sum()) for t in a.targets] == [20, 160, 4]
    assert a.targets[0].target_id == "c"
    assert b.size == (10, 12)
    assert [t.no_target for t in b.targets] == [False, True, False]
    with pytest.raises(UserError, match="predicted"):
        b.targets[2].segmentation.draw(ANY)
    assert split.find("7").image_id == "pics/b.jpg"
    with pytest.raises(UserError, match="'nobody'"):
        split.find("nobody")


def test_a_folder_of_comma_separated_values(own):
    cells = json.dumps([trees.BOX] * 5000)  # longer than a cell may be by default
    (own / "val.csv").write_text(f'image,sentence,mask\npics/a.png,"one, two",mask.png\npics/a.png,box,"{cells}"\n')
    split = opened("folder", "val", own)
    assert list(split.texts()) == ["one, two", "box"]
    assert areas(split) == {"1": 20, "2": 100}


def test_a_mask_of_another_size_names_the_file(own):
    (own / "test.jsonl").write_text(json.dumps({"image": "pics/b.jpg", "sentence": "x", "mask": "mask.png"}))
    with pytest.raises(UserError, match=r"mask\.png.*30 x 20 pixels, its image 12 x 10"):
        opened("folder", "test", own)[0].targets[0].segmentation.draw(ANY)


def test_text_that_is_not_utf_8_names_its_file(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"image,sentence\na.png,caf\xe9\n")
    with pytest.raises(UserError, match=r"train\.csv cannot be read line by line"):
        opened("folder", "train", tmp_path)


@pytest.mark.parametrize(
    "mask",
    [
        [[2, 2], [12, 2], [12, 10], [2, 10]],
        [[[2, 2], [12, 2], [12, 10], [2, 10]]],
        [2, 2, 12, 2, 12, 10, 2, 10],
        [[2, 2, 12, 2, 12, 10, 2, 10]],
    ],
)
def test_a_polygon_may_be_filed_as_points(own, mask):
    (own / "train.jsonl").write_text(json.dumps({"image": "pics/a.png", "sentence": "the box", "mask": mask}))
    assert areas(opened("folder", "train", own)) == {"1": 80}


REFUSED = [
    ({"mask": [30, 20, 90, 60]}, "a mask of 4 numbers is not a polygon"),
    ({"mask": [[1, 1], [2, 2]]}, "a mask of 4 numbers is not a polygon"),
    ({"mask": []}, "a mask of 0 numbers is not a polygon"),
    ({"mask": "[" * 100_000}, "recursion"),
    ({"sentences": [], "mask": "mask.png", "sentence": None}, "it has no sentence"),
]


@pytest.mark.parametrize(("line", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_a_line_that_would_be_misread_is_refused_with_its_reason(own, line, reason):
    (own / "train.jsonl").write_text(json.dumps({"image": "pics/a.png", "sentence": "the box", **line}))
    with pytest.raises(UserError, match=f"all 1 record.s. are invalid, such as train.jsonl:1: .*{reason}"):
        opened("folder", "train", own)


def test_a_sentence_that_a_comma_cuts_is_refused(own):
    (own / "train.csv").write_text("image,mask,sentence\npics/a.png,mask.png,the cup, not the one on the left\n")
    with pytest.raises(UserError, match="quote a sentence that contains a comma"):
        opened("folder", "train", own)


def test_a_folders_splits_may_have_any_name(own):
    (own / "trainval.jsonl").write_text('{"image": "pics/a.png", "sentence": "the corner", "mask": "mask.png"}')
    assert len(opened("folder", "trainval", own)) == 1


def test_invalid_lines_are_named_by_their_number_in_the_file(own):
    good = '{"image": "pics/a.png", "sentence": "x", "mask": "none"}'
    (own / "train.jsonl").write_text(f"\n\n{good}\n\nbroken\n")
    assert "such as train.jsonl:5: " in opened_with_warnings("folder", "train", own)[1][0]
    (own / "val.csv").write_text('image,sentence,mask\npics/a.png,"two\nlines",none\npics/gone.png,y,none\n')
    assert "such as val.csv:4: " in opened_with_warnings("folder", "val", own)[1][0]
