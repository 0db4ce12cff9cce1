"""What `riszoo data check` finds, and its exit code."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from riszoo.cli.data import main as data_main
from riszoo.data.readers.base import Counts
from riszoo.data.readers.catalogue import READERS
from tests.support import data_trees as trees


@pytest.fixture
def as_published(monkeypatch):
    """The small tree with its own numbers for published ones."""
    counts = {"train": Counts(3, 4, 2), "val": Counts(1, 3, 1), "testA": Counts(1, 1, 1)}
    monkeypatch.setattr(READERS["refcoco"], "published", counts)


def sound(root):
    """The RefCOCO tree without its bad ref."""
    trees.refcoco(root)
    tables = json.loads((root / "refcoco/instances.json").read_text())
    import pickle

    path = root / "refcoco/refs(unc).p"
    rows = [row for row in pickle.loads(path.read_bytes()) if row["ref_id"] != 99]
    return trees.write_refer(root, "refcoco", "unc", rows, tables)


def checked(capsys, *argv) -> tuple[int, dict]:
    code = data_main(["check", *map(str, argv), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("as_published")
def test_a_set_as_published_is_good(tmp_path, capsys):
    code, facts = checked(capsys, "refcoco", "--root", sound(tmp_path), "--images")
    (report,) = facts["sets"]
    assert (code, facts["good"], report["faults"]) == (0, True, [])
    assert report["splits"]["train"]["sentences"] == 4
    assert [len(one["sha256"]) for one in report["files"]] == [64, 64]
    assert data_main(["check", "refcoco", "--root", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "4 sentences (published 4)" in text
    assert text.endswith("  good\n")


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog", "refcocog-google", "refclef"])
def test_an_archive_copy_is_named_where_the_publishers_server_is_gone(tmp_path, capsys, name):
    assert data_main(["check", name, "--root", str(tmp_path)]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "archive copy" in line]
    assert f"unpack it into {tmp_path}" in line
    assert line.endswith(f"/{name.removesuffix('-google')}.zip")


def test_no_archive_copy_is_named_once_the_files_exist(tmp_path, capsys):
    data_main(["check", "refcoco", "--root", str(trees.refcoco(tmp_path))])
    assert "archive copy" not in capsys.readouterr().out


@pytest.mark.usefixtures("as_published")
def test_every_fault_is_told(tmp_path, capsys):
    root = trees.refcoco(tmp_path)
    folder = root / "images/train2014"
    (folder / trees.coco_name(1)).unlink()
    (folder / trees.coco_name(2)).write_bytes(b"no image")
    trees.photo(folder / trees.coco_name(3), (9, 9))
    code, facts = checked(capsys, "refcoco", "--root", root, "--images")
    (report,) = facts["sets"]
    assert code == 1
    assert report["images"]["missing"] == [trees.coco_name(1)]
    assert report["images"]["damaged"] == [trees.coco_name(2)]
    assert report["images"]["other_size"] == [trees.coco_name(3)]
    assert report["bad_records"] == [{"id": "99", "reason": "its annotation 999 is not in instances.json"}]
    assert len(report["faults"]) == 4
    assert data_main(["check", "refcoco", "--root", str(root)]) == 1
    assert "99: its annotation 999" in capsys.readouterr().out


def test_counts_that_differ_from_the_published_ones(tmp_path, capsys):
    code, facts = checked(capsys, "refcoco", "--root", sound(tmp_path))
    assert code == 1
    assert "train: 4 sentences, published: 120,624" in facts["sets"][0]["faults"]
    assert "testB: 0 targets, published: 1,810" in facts["sets"][0]["faults"]


def test_with_nothing_there_it_says_what_is_needed(tmp_path, capsys):
    for name, words in {
        "refcoco": ("refs(unc).p", "instances.json", "Licheng Yu"),
        "phrasecut": ("refer_train.json", "refer_miniv.json", "Chenyun Wu"),
        "referit": ("referit_query_train.json", "Ronghang Hu"),
        "grefcoco": ("grefs(unc).json", "Henghui Ding"),
        "folder": ("train.jsonl or train.csv",),
    }.items():
        assert data_main(["check", name, "--root", str(tmp_path)]) == 1
        text = capsys.readouterr().out
        assert all(word in text for word in words)
        assert str(tmp_path) in text
    code, facts = checked(capsys, "refcoco", "--root", tmp_path / "nowhere")
    assert code == 1
    assert "nowhere/refcoco: get the files from Licheng Yu" in facts["sets"][0]["faults"][0]


def a_folder(root, *lines):
    trees.photo(root / "a.png")
    Image.new("L", (trees.W, trees.H), 9).save(root / "mask.png")
    rows = [{"image": "a.png", "sentence": "the mask", **line} for line in lines]
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_a_sound_folder_is_good(tmp_path, capsys):
    root = a_folder(tmp_path, {"mask": "mask.png"}, {"mask": [trees.BOX]}, {"mask": "none"}, {})
    assert checked(capsys, "folder", "--root", root)[0] == 0


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("gone.png", "gone.png is missing"),
        ("text.png", "text.png cannot be read"),
        ("small.png", "small.png is 3 x 3 pixels, its image 30 x 20"),
        ("../mask.png", "'../mask.png' is outside the folder"),
        ("/etc/shadow", "'/etc/shadow' is outside the folder"),
        ("a/../../mask.png", "is outside the folder"),
    ],
)
def test_masks_of_a_folder_that_cannot_be_used_are_found(mask, reason, tmp_path, capsys):
    root = a_folder(tmp_path / "own", {"mask": "mask.png"}, {"mask": mask})
    (root / "text.png").write_text("no image")
    Image.new("L", (3, 3)).save(root / "small.png")
    Image.new("L", (trees.W, trees.H)).save(tmp_path / "mask.png")
    code, facts = checked(capsys, "folder", "--root", root)
    (report,) = facts["sets"]
    reasons = report["masks"] + [record["reason"] for record in report["bad_records"]]
    assert code == 1
    assert len(reasons) == len(report["faults"]) == 1
    assert reason in reasons[0]
    assert data_main(["check", "folder", "--root", str(root)]) == 1
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train.jsonl", "", "train.jsonl contains no sentence"),
        ("train.csv", "", "train.csv contains no sentence"),
        ("train.csv", "image,sentence,mask\n", "train.csv contains no sentence"),
        (
            "train.csv",
            "a.png,the mask,mask.png\na.png,another,mask.png\n",
            "train.csv has no column image and sentence",
        ),
    ],
)
def test_a_folder_file_without_rows_or_header_is_not_good(name, content, reason, tmp_path, capsys):
    a_folder(tmp_path, {"mask": "mask.png"})
    (tmp_path / "train.jsonl").rename(tmp_path / "val.jsonl")
    (tmp_path / name).write_text(content)
    code, facts = checked(capsys, "folder", "--root", tmp_path)
    assert code == 1
    assert [reason in fault for fault in facts["sets"][0]["faults"]] == [True]
    assert "val" in facts["sets"][0]["splits"], "the other split is still checked"


def test_two_masks_under_one_id_are_invalid(tmp_path, capsys):
    lines = ({"id": 2, "mask": "mask.png"}, {"mask": [trees.BOX]}, {"id": 2, "mask": [trees.RIGHT]}, {"id": 0})
    code, facts = checked(capsys, "folder", "--root", a_folder(tmp_path, *lines))
    assert code == 1
    assert [record["id"] for record in facts["sets"][0]["bad_records"]] == ["train.jsonl:2", "train.jsonl:3"]
    assert "another line has the id '2' and another mask" in facts["sets"][0]["bad_records"][0]["reason"]


def test_images_that_nobody_has_are_no_fault(tmp_path, capsys):
    _, facts = checked(capsys, "refclef-unc", "--root", trees.refclef(tmp_path))
    (report,) = facts["sets"]
    assert report["images"]["absent"] == ["19575.jpg"]
    assert report["faults"] == []


def test_leakage_between_the_chosen_sets(tmp_path, capsys):
    trees.refcoco(tmp_path)
    trees.phrasecut(tmp_path)  # its val uses COCO image 3, as RefCOCO's does
    refs = [trees.ref(1, 3, 1, "train", "x"), trees.ref(2, 3, 1, "val", "y")]
    tables = {"images": trees.images(3), "annotations": [trees.annotation(1, 3, [trees.BOX])]}
    trees.write_refer(tmp_path, "refcocog", "google", refs, tables)
    _, facts = checked(capsys, "refcoco", "refcocog-google", "phrasecut", "--root", tmp_path)
    assert [(leak["train"], leak["held_out"], leak["keys"]) for leak in facts["leaks"]] == [
        ("refcocog-google", "refcoco", ["coco:3"]),
        ("refcocog-google", "refcocog-google", ["coco:3"]),
        ("refcocog-google", "phrasecut", ["coco:3"]),
    ]
    data_main(["check", "refcoco", "refcocog-google", "--root", str(tmp_path)])
    assert "1 training images of refcocog-google are in evaluation splits of refcoco\n" in capsys.readouterr().out


@pytest.mark.parametrize(("record", "targets"), [("1", ["11", "12"]), ("21", ["21"]), ("111", ["11"]), ("99", ["99"])])
def test_a_record_is_looked_up_by_any_of_its_ids(tmp_path, capsys, record, targets):
    assert data_main(["check", "refcoco", "--root", str(trees.refcoco(tmp_path)), "--record", record]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in found] == targets
    assert ("left_out" in found[0]) == (record == "99")


def test_an_id_that_is_not_there(tmp_path, capsys):
    assert data_main(["check", "refcoco", "--root", str(trees.refcoco(tmp_path)), "--record", "nobody"]) == 1
    assert capsys.readouterr().out == "[]\n"


def test_long_lists_are_cut_for_people_only(tmp_path, capsys):
    root = trees.refcoco(tmp_path)
    refs = [trees.ref(n, 1, 1000 + n, "train", "x") for n in range(30)]
    tables = json.loads((root / "refcoco/instances.json").read_text())
    trees.write_refer(root, "refcoco", "unc", refs, tables)
    _, facts = checked(capsys, "refcoco", "--root", root)
    assert len(facts["sets"][0]["bad_records"]) == 30
    data_main(["check", "refcoco", "--root", str(root)])
    assert "left out: and 20 more (--json lists them)" in capsys.readouterr().out
    assert np.isfinite(facts["sets"][0]["splits"]["val"]["targets"])


def test_an_id_of_several_sentences_is_told_but_no_fault(tmp_path, capsys):
    root = trees.refcoco(tmp_path)
    refs = [trees.ref(1, 1, 101, "train", "left", "box"), trees.ref(2, 1, 102, "train", "other")]
    refs[1]["sentences"][0]["sent_id"] = refs[0]["sentences"][0]["sent_id"]
    trees.write_refer(root, "refcoco", "unc", refs, json.loads((root / "refcoco/instances.json").read_text()))
    _, facts = checked(capsys, "refcoco", "--root", root)
    (report,) = facts["sets"]
    assert report["repeated_sentence_ids"] == [str(refs[0]["sentences"][0]["sent_id"])]
    assert not [fault for fault in report["faults"] if "sentence id" in fault]
    data_main(["check", "refcoco", "--root", str(root)])
    assert f"  id of several sentences: {report['repeated_sentence_ids'][0]}\n" in capsys.readouterr().out


def test_control_codes_of_a_file_are_not_sent_to_the_terminal(tmp_path, capsys):
    a_folder(tmp_path, {"image": "a.png", "sentence": "it", "mask": "\x1b[2Jx.png"})
    assert data_main(["check", "folder", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "\\x1b[2Jx.png is missing" in said
    assert "\x1b" not in said
