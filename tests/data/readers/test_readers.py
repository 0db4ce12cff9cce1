"""Every layout is read back, traps included; areas are counted by hand."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from riszoo.data.masks import GroundTruth
from riszoo.data.readers.base import coco_key, matches
from riszoo.data.readers.catalogue import READERS, get_reader
from riszoo.data.readers.opening import Options, open_split
from riszoo.errors import UserError
from tests.support import data_trees as trees

ANY, ONCE, OUTLINED = GroundTruth(), GroundTruth(overlap="once"), GroundTruth(engine="pillow")


def opened(name: str, split: str, root: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_split(get_reader(name), split, Options(root=root and str(root), **options))


def areas(split, ground_truth: GroundTruth = ANY) -> dict[str, int]:
    return {
        t.target_id: int(t.segmentation.draw(ground_truth).sum()) for n in range(len(split)) for t in split[n].targets
    }


# -- the refer layout -------------------------------------------------------------------------------------------------


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


def test_a_bad_record_is_left_out_and_told_once_or_is_an_error(tmp_path):
    root = trees.refcoco(tmp_path)
    with pytest.warns(UserWarning, match="1 invalid record.*99: its annotation 999 is not in instances.json") as told:
        split = open_split(get_reader("refcoco"), "train", Options(root=str(root)))
    assert len(told) == 1
    assert split.describe()["bad_records"] == 1
    with pytest.raises(UserError, match=r"99.*--data\.strict"):
        opened("refcoco", "train", root, strict=True)


def test_missing_images_are_left_out_and_counted(tmp_path):
    root = trees.refcoco(tmp_path)
    whole = opened("refcoco", "train", root)
    (root / "images/train2014" / trees.coco_name(1)).unlink()
    with warnings.catch_warnings(record=True) as told:
        split = open_split(get_reader("refcoco"), "train", Options(root=str(root)))
    missing = [str(one.message) for one in told if "image(s)" in str(one.message)]
    assert len(missing) == 1
    assert "1 image(s) of train" in missing[0]
    assert "COCO_train2014_000000000001.jpg" in missing[0]
    assert split.image_ids() == ["2"]
    assert split.sentence_target.tolist() == [0]
    assert split.describe()["missing_images"] == 1
    assert split.fingerprint() != whole.fingerprint()


def test_an_unknown_split_lists_those_filed(tmp_path):
    with pytest.raises(UserError, match="no split 'test2': its file contains testA, train, val"):
        opened("refcoco", "test2", trees.refcoco(tmp_path))


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


def test_a_name_nearly_right_is_answered_with_the_right_one():
    with pytest.raises(UserError, match="did you mean 'phrasecut'"):
        get_reader("phrasecuts")
    with pytest.raises(UserError, match="umd, google"):
        get_reader("refcocog", "unc")
    assert get_reader("refcocog", "google") is READERS["refcocog-google"]


def test_refclef_splits_overlap_and_rles_unite(tmp_path):
    root = trees.refclef(tmp_path)
    with pytest.warns(UserWarning, match=r"19575\.jpg"):
        a = open_split(get_reader("refclef", "unc"), "testA", Options(root=str(root)))
    assert a.image_ids() == ["3", "4"]
    assert opened("refclef-unc", "testB", root).image_ids() == ["4", "5"]
    assert opened("refclef-unc", "testC", root).image_ids() == ["5", "6"]
    assert opened("refclef-unc", "test", root).image_ids() == ["3", "4", "5", "6"]
    assert areas(a)["3"] == 175
    assert areas(a, ONCE)["3"] == 150


def test_the_official_matching():
    assert matches("testAB", "testAB")
    assert not matches("testA", "testAB")
    assert not matches("val", "testA")
    assert matches("val", "trainval")
    assert not matches("miniv", "val")


def test_grefcoco_none_one_and_several(tmp_path):
    root = trees.grefcoco(tmp_path)
    train = opened("grefcoco", "train", root)
    assert areas(train) == {"1": 160, "2": 0, "4": 100}
    assert areas(train, ONCE)["1"] == 160  # the rule is about the parts of one annotation
    assert [t.no_target for t in train[0].targets] == [False, True, False]
    assert [s.tags for _, s in train[0].sentences()] == [("multi",), ("none",), ("single",)]
    assert areas(opened("grefcoco", "val", root)) == {"3": 100}  # the crowd is left out


# -- the others -------------------------------------------------------------------------------------------------------


def test_referit_in_the_text_objseg_form(tmp_path):
    root = trees.referit(tmp_path)
    train = opened("referit", "train", root)
    assert list(train.texts()) == ["Sky", "the sky on TOP"]
    mask = train[0].targets[0].segmentation.draw(ANY)
    assert mask[:5].all()
    assert mask.sum() == 5 * trees.W
    both = opened("referit", "trainval", root)
    assert both.image_ids() == ["10", "11"]
    assert both.sentence_target.tolist() == [0, 0, 1]
    assert both[1].targets[0].sentences[0].text == "grass"
    assert both.describe()["parts"]["referit/trainval"]["bad_records"] == 1
    with pytest.raises(UserError, match="refclef"):
        opened("referit", "testA", root)


def test_phrasecut_outlines_subsets_and_the_whole_validation_set(tmp_path):
    root = trees.phrasecut(tmp_path)
    val = opened("phrasecut", "val", root)
    two, point = val[0].targets
    assert two.segmentation.draw(OUTLINED).sum() == 11 * 11 + 5 * 5  # both edges belong to it
    assert two.segmentation.draw(ANY).sum() < 11 * 11 + 5 * 5
    assert point.segmentation.draw(OUTLINED).sum() == 11 * 11  # a single point draws nothing
    assert {"i_multi", "p_att", "p_att+", "c20", "d_cocotv", "s_large"} <= set(two.sentences[0].tags)
    assert opened("phrasecut", "miniv", root)[0].targets[0].sentences[0].text == "mini"
    whole = opened("phrasecut", "val_miniv", root)
    assert whole.image_ids() == ["2", "3"]
    assert whole.target_image.tolist() == [0, 0, 1]
    train = opened("phrasecut", "train", root)
    assert list(train.texts()) == ["White sky"]
    assert "d_notcocotv" in train[0].targets[0].sentences[0].tags


def test_phrasecut_without_ground_truth_can_be_predicted(tmp_path):
    root = trees.phrasecut(tmp_path)
    folder = root / "VGPhraseCut_v0"
    (folder / "image_data_split3000.json").rename(folder / "image_data_split.json")
    rows = json.loads((folder / "refer_test.json").read_text())
    (folder / "refer_test.json").unlink()
    bare = [{k: row[k] for k in ("task_id", "image_id", "phrase", "phrase_structure")} for row in rows]
    (folder / "refer_input_test.json").write_text(json.dumps(bare))
    record = opened("phrasecut", "test", root)[0]
    assert record.targets[0].sentences[0].text == "testing"
    with pytest.raises(UserError, match="predicted"):
        record.targets[0].segmentation.draw(ANY)


def test_an_image_outside_the_image_folder_is_refused(tmp_path):
    root = trees.refcoco(tmp_path / "root")
    tables = json.loads((root / "refcoco/instances.json").read_text())
    tables["images"][2]["file_name"] = "../../../secret.jpg"
    (root / "refcoco/instances.json").write_text(json.dumps(tables))
    trees.photo(tmp_path / "secret.jpg")
    with pytest.raises(UserError, match=r"'\.\./\.\./\.\./secret\.jpg' is outside the folder"):
        opened("refcoco", "val", root)[0]


@pytest.fixture
def own(tmp_path) -> Path:
    trees.photo(tmp_path / "pics/a.png")
    trees.photo(tmp_path / "pics/b.jpg", (10, 12))
    from PIL import Image

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


def test_published_columns_add_up():
    def total(name: str, place: int) -> int:
        return sum(counts[place] for counts in READERS[name].published.values())

    assert (total("refcoco", 0), total("refcoco", 1), total("refcoco", 2)) == (50_000, 142_210, 19_994)
    assert (total("refcoco+", 0), total("refcoco+", 1), total("refcoco+", 2)) == (49_856, 141_564, 19_992)
    assert (total("refcocog", 0), total("refcocog", 1), total("refcocog", 2)) == (49_822, 95_010, 25_799)
    assert total("refcocog-google", 2) == 25_799 + 3_549
    assert (total("phrasecut", 1), total("phrasecut", 2)) == (345_486, 77_262)


def test_one_image_has_one_key_in_every_set(tmp_path):
    assert coco_key("x/COCO_train2014_000000000003.jpg") == coco_key("000000000003.jpg") == "coco:3"
    assert coco_key("3_holiday.png") is None
    trees.refcoco(tmp_path)
    trees.phrasecut(tmp_path)
    assert opened("phrasecut", "val", tmp_path).image_keys() == opened("refcoco", "val", tmp_path).image_keys()


def test_referit_annotations_may_lie_in_a_folder_of_their_own(tmp_path):
    root = trees.referit(tmp_path)
    (root / "referit/annotations").mkdir()
    for path in (root / "referit").glob("*.json"):
        path.rename(root / "referit/annotations" / path.name)
    assert areas(opened("referit", "train", root)) == {"10_1": 5 * trees.W}


def test_text_that_is_not_utf_8_names_its_file(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"image,sentence\na.png,caf\xe9\n")
    with pytest.raises(UserError, match=r"train\.csv cannot be read line by line"):
        opened("folder", "train", tmp_path)
