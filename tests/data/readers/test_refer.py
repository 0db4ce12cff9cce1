"""The `refer` layout: RefCOCO, RefCLEF and gRefCOCO, traps included; areas are counted by hand."""

from __future__ import annotations

import json
import pickle

import pytest

from riszoo.errors import UserError
from tests.support import data_trees as trees
from tests.support.splits import ANY, ONCE, areas, opened, opened_with_warnings


def test_refcoco_groups_targets_by_image_and_keeps_every_sentence(tmp_path):
    split = opened("refcoco", "train", trees.refcoco(tmp_path))
    assert split.image_ids() == ["1", "2"]
    assert [[t.target_id for t in split[n].targets] for n in range(2)] == [["11", "12"], ["21"]]
    assert list(split.texts()) == ["Left box.", "the BOX on the left", "right box", "overlapping things"]
    assert split.target_image.tolist() == [0, 0, 1]
    assert split.sentence_target.tolist() == [0, 0, 1, 2]
    assert [s.sentence_id for _, s in split[0].sentences()] == ["110", "111", "120"]
    assert split[0].load().shape == (trees.H, trees.W, 3)


def test_overlap_is_inside_or_outside_by_the_rule_asked_for(tmp_path):
    split = opened("refcoco", "train", trees.refcoco(tmp_path))
    assert areas(split) == {"11": 100, "12": 100, "21": 160}
    assert areas(split, ONCE)["21"] == 120  # 4 x 10 pixels lie under both


def test_a_crowd_and_a_part_of_two_points(tmp_path):
    root = trees.refcoco(tmp_path)
    crowd = opened("refcoco", "val", root)[0].targets[0].segmentation.draw(ANY)
    assert crowd[5:15, 0].all()
    assert crowd.sum() == 10
    # the first part has four numbers, which the API's own wrapper takes for a box of 4 x 1 pixels
    sliver = opened("refcoco", "testA", root)[0].targets[0].segmentation.draw(ANY)
    assert sliver[3:13, 2:12].all()
    assert sliver.sum() == 100


def test_google_has_no_test_split(tmp_path):
    trees.refcoco(tmp_path, "refcocog", "google", held_out="val")
    assert len(opened("refcocog-google", "val", tmp_path)) == 2
    with pytest.raises(UserError, match="never released"):
        opened("refcocog-google", "test", tmp_path)


def test_python_2_pickles_with_byte_strings(tmp_path):
    root = trees.refcoco(tmp_path)
    # protocol 0, written by Python 2: 'caf\xe9' is a byte string in Latin-1
    text = b"(lp0\n(dp1\nS'ref_id'\nI5\nsS'ann_id'\nI101\nsS'image_id'\nI1\nsS'split'\nS'train'\nsS'sentences'\n"
    text += b"(lp2\n(dp3\nS'sent_id'\nI50\nsS'raw'\nS'caf\\xe9'\nsS'sent'\nS'caf\\xe9'\nsasa."
    (root / "refcoco/refs(unc).p").write_bytes(text)
    assert list(opened("refcoco", "train", root).texts()) == ["café"]


def test_refs_as_json_serve_where_there_is_no_pickle(tmp_path):
    root = trees.refcoco(tmp_path)
    filed = root / "refcoco/refs(unc).p"
    pickled = opened("refcoco", "train", root).fingerprint()
    (root / "refcoco/refs(unc).json").write_text(json.dumps(pickle.loads(filed.read_bytes())))
    filed.unlink()
    assert opened("refcoco", "train", root).fingerprint() == pickled


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        ("annotations", trees.annotation(101, 1, [trees.RIGHT]), "11: instances.json has several annotations"),
        ("images", {**trees.images(3)[0], "height": 21}, "31: instances.json has several images with the id 3"),
    ],
)
def test_rows_that_differ_under_one_id_make_their_record_invalid(tmp_path, table, row, reason):
    root = trees.refcoco(tmp_path)
    path = root / "refcoco/instances.json"
    tables = json.loads(path.read_text())
    tables[table].append(tables[table][0])  # the same row twice is no contradiction
    path.write_text(json.dumps(tables))
    whole = opened("refcoco", "train", root)
    assert areas(whole) == {"11": 100, "12": 100, "21": 160}
    tables[table].append(row)
    path.write_text(json.dumps(tables))
    split, (warning,) = opened_with_warnings("refcoco", "train", root)
    assert reason in warning
    assert split.describe()["bad_records"] == 2


@pytest.mark.parametrize("tables", [[], {"images": []}, {"images": [{"id": []}], "annotations": []}, {"images": 3}])
def test_instances_in_another_form_are_refused(tmp_path, tables):
    root = trees.refcoco(tmp_path)
    (root / "refcoco/instances.json").write_text(json.dumps(tables))
    with pytest.raises(UserError, match=r"instances\.json has no (table|list)"):
        opened("refcoco", "train", root)


def test_refclef_splits_overlap_and_rles_unite(tmp_path):
    root = trees.refclef(tmp_path)
    a, (warning,) = opened_with_warnings("refclef-unc", "testA", root)
    assert "19575.jpg" in warning
    assert a.image_ids() == ["3", "4"]
    assert opened("refclef-unc", "testB", root).image_ids() == ["4", "5"]
    assert opened("refclef-unc", "testC", root).image_ids() == ["5", "6"]
    assert opened("refclef-unc", "test", root).image_ids() == ["3", "4", "5", "6"]
    assert areas(a)["3"] == 175
    assert areas(a, ONCE)["3"] == 150


def test_grefcoco_none_one_and_several(tmp_path):
    root = trees.grefcoco(tmp_path)
    train = opened("grefcoco", "train", root)
    assert areas(train) == {"1": 160, "2": 0, "4": 100}
    assert areas(train, ONCE)["1"] == 160  # the rule is about the parts of one annotation
    assert [t.no_target for t in train[0].targets] == [False, True, False]
    assert [s.tags for _, s in train[0].sentences()] == [("multi",), ("none",), ("single",)]
    assert areas(opened("grefcoco", "val", root)) == {"3": 100}  # the crowd is left out


def test_a_file_name_outside_the_image_folder_is_left_out_when_it_is_read(tmp_path):
    root = trees.refcoco(tmp_path)
    tables = json.loads((root / "refcoco/instances.json").read_text())
    tables["images"][0]["file_name"] = str(root / "images/train2014" / trees.coco_name(1))
    (root / "refcoco/instances.json").write_text(json.dumps(tables))
    split, (warning,) = opened_with_warnings("refcoco", "train", root)
    assert "3 invalid record(s)" in warning
    assert "outside the folder" in warning
    assert split.image_ids() == ["2"]
