"""What all readers share: the official matching of splits, and the keys of images."""

from __future__ import annotations

from riszoo.data.readers.base import coco_key, matches
from tests.support import data_trees as trees
from tests.support.splits import opened


def test_the_official_matching():
    assert matches("testAB", "testAB")
    assert not matches("testA", "testAB")
    assert not matches("val", "testA")
    assert matches("val", "trainval")
    assert not matches("miniv", "val")


def test_one_image_has_one_key_in_every_set(tmp_path):
    assert coco_key("x/COCO_train2014_000000000003.jpg") == coco_key("000000000003.jpg") == "coco:3"
    assert coco_key("3_holiday.png") is None
    trees.refcoco(tmp_path)
    trees.phrasecut(tmp_path)
    assert opened("phrasecut", "val", tmp_path).image_keys() == opened("refcoco", "val", tmp_path).image_keys()
