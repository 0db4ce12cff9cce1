"""No image of an evaluation split is trained on, whatever set either comes from."""

from __future__ import annotations

import pytest

from riszoo import shipped
from riszoo.cli.main import main
from riszoo.data.mixed import ConcatSplit, leaks
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, held_out
from riszoo.metrics.results import read_evaluation, read_metrics
from tests.support import data_trees as trees
from tests.support.splits import opened


@pytest.fixture
def root(tmp_path):
    """RefCOCO trains on images 1 and 2; RefCOCO+ evaluates on 2; RefCOCOg trains on 3, 4 and 5."""
    trees.refcoco(tmp_path)
    tables = {
        "images": trees.images(1, 2, 3, 4, 5),
        "annotations": [trees.annotation(n, n, [trees.BOX]) for n in range(1, 6)],
    }
    plus = [trees.ref(1, 5, 5, "train", "five"), trees.ref(2, 2, 2, "testB", "two")]
    trees.write_refer(tmp_path, "refcoco+", "unc", plus, tables, (5,))
    google = [trees.ref(n, n, n, "train", f"thing {n}") for n in (3, 4, 5)]
    trees.write_refer(tmp_path, "refcocog", "umd", google, tables)
    return tmp_path


def test_every_evaluation_image_of_every_set_in_play_is_barred(root):
    used = held_out([get_reader("refcoco"), get_reader("refcoco+"), get_reader("refcocog")], Options(root=str(root)))
    assert used == {"coco:3": ["refcoco/val"], "coco:4": ["refcoco/testA"], "coco:2": ["refcoco+/testB"]}
    parts = [opened(name, "train", root) for name in ("refcoco", "refcoco+", "refcocog")]
    found = leaks(parts, used)
    assert {(leak.dataset, leak.image, leak.used_by) for leak in found} == {
        ("refcoco", "coco:2", "refcoco+/testB"),
        ("refcocog", "coco:3", "refcoco/val"),
        ("refcocog", "coco:4", "refcoco/testA"),
    }
    kept = [part.without(leak.image for leak in found) for part in parts]
    assert [part.image_ids() for part in kept] == [["1"], ["5"], ["5"]]
    assert [list(part.texts()) for part in kept][1:] == [["five"], ["thing 5"]]


def test_equal_splits_of_two_sets_have_results_of_their_own(root, tmp_path, capsys):
    for number in range(1, 6):
        trees.photo(root / "images" / "mscoco" / "images" / "train2014" / trees.coco_name(number))
    splits = ["refcoco/val", "refcoco/testA", "refcoco+/testB"]
    argv = ["--ckpt_path", str(shipped.folder() / "lts.safetensors"), "--run.root", str(tmp_path / "runs")]
    argv += ["--data", "mixed", "--scale", "tiny", "--data.root", str(root)]
    argv += ["--split", ",".join(splits), "--data.workers", "0", "--trainer.accelerator", "cpu", "--run.images", "0"]
    assert main(["test", *argv, "--control", "none,blank"]) == 0, capsys.readouterr().err
    (folder,) = tmp_path.glob("runs/*/test-mixed-*")
    measured = read_metrics(folder)["splits"]
    assert list(measured) == sorted(name + control for name in splits for control in ("", "-blank"))
    for name in splits:
        (sample, *_) = read_evaluation(folder, name).row_samples()
        assert f"{sample.dataset}/{sample.split.rpartition('/')[2]}" == measured[name]["split"] == sample.split == name


def test_a_part_of_a_random_choice_stays_the_same_choice(root):
    whole = opened("refcocog", "train", root, expressions="random(3)")
    part = whole.without(["coco:3"])
    assert list(part.texts()) == list(whole.texts())[1:]
    assert part.fingerprint() != whole.fingerprint()


def test_splits_in_a_row_keep_order_and_unlike_ids(root):
    both = ConcatSplit(
        "a+b", "train", [opened("refcoco+", "train", root), opened("refcocog", "train", root)], named=True
    )
    assert both.image_ids() == [both[n].image_id for n in range(4)]
    assert both.image_ids() == ["refcoco+/5", "refcocog/3", "refcocog/4", "refcocog/5"]
    assert both.target_image.tolist() == both.sentence_target.tolist() == [0, 1, 2, 3]
    assert both[-1].targets[0].target_id == "refcocog/5"
    assert both[-1].targets[0].sentences[0].sentence_id == "refcocog/50"
    assert list(both.texts()) == [s.text for n in range(4) for _, s in both[n].sentences()]
    assert both.without(["coco:5"]).image_ids() == ["refcocog/3", "refcocog/4"]
    assert [path.name for path in both.paths()] == [trees.coco_name(n) for n in (5, 3, 4, 5)]
    with pytest.raises(IndexError):
        both[4]


def test_nothing_left_is_an_empty_split(root):
    none = opened("refcoco+", "train", root).without(["coco:5"])
    assert len(none) == len(ConcatSplit("x", "train", [none])) == 0
    assert list(none.texts()) == []
