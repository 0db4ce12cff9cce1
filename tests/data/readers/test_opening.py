"""Opening a split: its root, its files, its images, and records that are left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from riszoo.data.readers.opening import Options, is_training
from riszoo.errors import UserError
from tests.support import data_trees as trees
from tests.support.splits import opened, opened_with_warnings


def test_an_invalid_record_is_left_out_with_one_warning_or_is_an_error(tmp_path):
    root = trees.refcoco(tmp_path)
    split, (warning,) = opened_with_warnings("refcoco", "train", root)
    assert "1 invalid record(s) left out, such as 99: its annotation 999 is not in instances.json" in warning
    assert split.describe()["bad_records"] == 1
    with pytest.raises(UserError, match=r"99.*--data\.strict"):
        opened("refcoco", "train", root, strict=True)


def test_missing_images_are_left_out_and_counted(tmp_path):
    root = trees.refcoco(tmp_path)
    whole = opened("refcoco", "train", root)
    (root / "images/train2014" / trees.coco_name(1)).unlink()
    split, warned = opened_with_warnings("refcoco", "train", root)
    (missing,) = (text for text in warned if "image(s)" in text)
    assert "1 image(s) of train" in missing
    assert "COCO_train2014_000000000001.jpg" in missing
    assert split.image_ids() == ["2"]
    assert split.sentence_target.tolist() == [0]
    assert split.describe()["missing_images"] == 1
    assert split.fingerprint() != whole.fingerprint()


def test_several_records_with_one_id_are_invalid_but_the_first(tmp_path):
    refs = [trees.ref(5, 1, 101, "train", "left"), trees.ref(5, 1, 102, "train", "right")]
    tables = {"images": trees.images(1), "annotations": [trees.annotation(101, 1, [trees.BOX])]}
    tables["annotations"].append(trees.annotation(102, 1, [trees.RIGHT]))
    root = trees.write_refer(tmp_path, "refcoco", "unc", refs, tables, (1,))
    split, (warning,) = opened_with_warnings("refcoco", "train", root)
    assert "1 invalid record(s) left out, such as 5: an earlier record has the same id" in warning
    assert list(split.texts()) == ["left"]


def test_an_unknown_split_lists_those_filed(tmp_path):
    with pytest.raises(UserError, match="no split 'test2': its file contains testA, train, val"):
        opened("refcoco", "test2", trees.refcoco(tmp_path))


@pytest.mark.parametrize("folder", ["images/mscoco/images/train2014", "train2014", "coco/train2014"])
def test_several_spellings_of_the_image_folder(tmp_path, folder):
    root = trees.refcoco(tmp_path)
    (root / folder).parent.mkdir(parents=True, exist_ok=True)
    (root / "images/train2014").rename(root / folder)
    assert opened("refcoco", "train", root)[0].load().shape[2] == 3


def test_an_empty_spelling_does_not_hide_the_full_one(tmp_path):
    root = trees.refcoco(tmp_path)
    (root / "images/mscoco/images/train2014").mkdir(parents=True)
    assert len(opened("refcoco", "train", root)) == 2


def test_no_image_folder_lists_what_was_tried(tmp_path):
    root = trees.refcoco(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    (root / "images/train2014").rename(elsewhere)
    with pytest.raises(UserError, match=r"images/mscoco/images/train2014, .*--data\.images"):
        opened("refcoco", "train", root)
    assert len(opened("refcoco", "train", root, images=str(elsewhere))) == 2


def test_the_root_by_option_by_variable_and_by_default(tmp_path, monkeypatch):
    root = trees.refcoco(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RISZOO_DATA", raising=False)
    assert Options().folder() == Path("data")
    monkeypatch.setenv("RISZOO_DATA", str(tmp_path / "nowhere"))
    assert Options(root=str(root)).folder() == root
    with pytest.raises(UserError, match=r"nowhere/refcoco: .*RISZOO_DATA"):
        opened("refcoco", "train", None)


def test_missing_files_are_named_with_folder_and_publisher(tmp_path):
    with pytest.raises(UserError, match=r"refs\(unc\)\.p.* and instances\.json not found in .*refcoco\+.*Licheng Yu"):
        opened("refcoco+", "train", tmp_path)


def test_a_split_without_any_image_is_an_error(tmp_path):
    root = trees.refcoco(tmp_path)
    for number in (1, 2):
        (root / "images/train2014" / trees.coco_name(number)).unlink()
    with pytest.raises(UserError, match=r"none of the 2 image\(s\) of train is in .*--data\.images"):
        opened("refcoco", "train", root)
    assert len(opened("refcoco", "val", root)) == 1


@pytest.mark.parametrize("name", ["\ud800", "\udfff1"])
def test_ids_that_utf_8_cannot_store_are_reported(tmp_path, name):
    root = trees.grefcoco(tmp_path)
    path = root / "grefcoco/grefs(unc).json"
    rows = json.loads(path.read_text())
    rows[0]["ref_id"] = name
    path.write_text(json.dumps(rows))
    split, (warning,) = opened_with_warnings("grefcoco", "train", root)
    assert "1 invalid record(s) left out, such as ?" in warning
    assert len(split.targets) == 2


def test_splits_for_training_are_known_by_their_names():
    splits = ("train", "trainval", "train-spatial", "general-train", "val", "testA", "unseen", "general")
    assert [split for split in splits if is_training(split)] == list(splits[:4])
