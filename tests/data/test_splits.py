"""A split over an index: which sentences, in which spelling, of which images."""

from __future__ import annotations

import json

import pytest

from riszoo.errors import UserError
from tests.support import data_trees as trees
from tests.support.splits import opened


def test_text_and_expressions(tmp_path):
    root = trees.refcoco(tmp_path)
    assert next(iter(opened("refcoco", "train", root, text="sent").texts())) == "left box"
    first = opened("refcoco", "val", root, expressions="first")
    assert list(first.texts()) == ["the crowd"]
    drawn = {
        text for seed in range(30) for text in opened("refcoco", "val", root, expressions=f"random({seed})").texts()
    }
    assert drawn == {"the crowd", "many people", "all of them"}
    one, again = (opened("refcoco", "train", root, expressions="random(7)") for _ in range(2))
    assert one.fingerprint() == again.fingerprint()
    assert len(one.sentence_target) == len(one.target_image) == 3
    assert one.describe()["expressions"] == "random(7)"
    with pytest.raises(UserError, match=r"random\(SEED\)"):
        opened("refcoco", "val", root, expressions="random")


def test_an_image_outside_the_image_folder_is_refused(tmp_path):
    root = trees.refcoco(tmp_path / "root")
    tables = json.loads((root / "refcoco/instances.json").read_text())
    tables["images"][2]["file_name"] = "../../../secret.jpg"
    (root / "refcoco/instances.json").write_text(json.dumps(tables))
    trees.photo(tmp_path / "secret.jpg")
    with pytest.raises(UserError, match=r"'\.\./\.\./\.\./secret\.jpg' is outside the folder"):
        opened("refcoco", "val", root)[0]
