"""Exported splits: what is written in REFER's layout is read again with equal images, masks and sentences."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from riszoo.cli.main import main
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, open_split
from riszoo.data.readers.validation import load_pickle
from riszoo.data.scenes import ScenesSplit
from riszoo.data.writers.refer import BLOCK

COUNT = 3


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "scenes-as-refer"
    options = ["--splits", "val,testA,general", "--images", str(COUNT), "--out", str(out)]
    assert main(["data", "export", "scenes", "--format", "refer", *options]) == 0
    return out


@pytest.mark.parametrize("name", ["val", "testA", "general"])
def test_an_exported_split_is_read_again_with_equal_images_masks_and_sentences(name: str, tree: Path) -> None:
    written = ScenesSplit(name)
    again = open_split(get_reader("refcoco"), name, Options(root=str(tree), strict=True))
    assert len(again) == COUNT
    for image in range(COUNT):
        first, second = written[image], again[image]
        np.testing.assert_array_equal(first.load(), second.load())
        assert [s.text for _, s in first.sentences()] == [s.text for _, s in second.sentences()]
        for one, other in zip(first.targets, second.targets, strict=True):
            assert one.no_target == other.no_target
            np.testing.assert_array_equal(one.segmentation.draw(GroundTruth()), other.segmentation.draw(GroundTruth()))


def test_the_files_are_what_refers_own_reader_expects(tree: Path) -> None:
    """It looks annotations up by `ann_id`, tells polygons from run lengths by the first part, and decodes the list."""
    refs = load_pickle(tree / "refcoco/refs(unc).p")
    instances = json.loads((tree / "refcoco/instances.json").read_text())
    annotations = {row["id"]: row for row in instances["annotations"]}
    images = {row["id"]: row for row in instances["images"]}
    assert len(refs) == len(annotations) == 3 * COUNT * 3
    for ref in refs:
        annotation, image = annotations[ref["ann_id"]], images[ref["image_id"]]
        mask = coco.decode(annotation["segmentation"]).sum(2)
        assert mask.shape == (image["height"], image["width"])
        assert mask.sum() == annotation["area"]
        assert (tree / "images/mscoco/images/train2014" / image["file_name"]).is_file()
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]


def test_ids_do_not_depend_on_what_else_is_exported(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "one"
    assert main(["data", "export", "scenes", "--splits", "testA", "--images", "1", "--out", str(out)]) == 0
    alone = {ref["target_id"]: ref["ref_id"] for ref in load_pickle(out / "refcoco/refs(unc).p")}
    together = {ref["target_id"]: ref["ref_id"] for ref in load_pickle(tree / "refcoco/refs(unc).p")}
    assert alone.items() <= together.items()


def test_ids_of_ones_own_splits_follow_from_their_names(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    Image.new("RGB", (8, 6)).save(root / "a.png")
    mask = {"size": [6, 8], "counts": [5, 9, 34]}
    for name in ("val", "night"):
        line = {"image": "a.png", "mask": mask, "sentences": ["the left one"]}
        (root / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    ids = {}
    for names in ("val,night", "night", "night,val"):
        out = tmp_path / names
        assert main(["data", "export", "folder", "--root", str(root), "--splits", names, "--out", str(out)]) == 0
        for ref in load_pickle(out / "refcoco/refs(unc).p"):
            assert ids.setdefault(ref["split"], ref["ref_id"]) == ref["ref_id"]
    assert ids["val"] == 2 * BLOCK
    assert 0 < ids["night"] < 2**31 - BLOCK


def test_masks_for_an_exported_split_are_scored(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = open_split(get_reader("refcoco"), "general", Options(root=str(tree)))
    entries = [
        {"id": sentence.sentence_id, "segmentation": run_lengths(target.segmentation.draw(GroundTruth()))}
        for image in range(len(split))
        for target in split[image].targets
        for sentence in target.sentences
    ]
    (tmp_path / "masks.json").write_text(json.dumps(entries))
    scored = ["score", str(tmp_path / "masks.json"), "--data", "refcoco", "--root", str(tree)]
    assert main([*scored, "--split", "general"]) == 0
    (result,) = json.loads((tmp_path / "masks-score" / "metrics.json").read_text())["splits"].values()
    assert result["protocols"]["original"]["values"]["mIoU"] == 100
    capsys.readouterr()
    assert main([*scored, "--split", "unseen", "--out", str(tmp_path / "other")]) == 2
    assert "refcoco has no split 'unseen': its file contains general, testA, val" in capsys.readouterr().err


def run_lengths(mask: Any) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(map(int, encoded["size"])), "counts": encoded["counts"].decode("ascii")}


@pytest.mark.parametrize("splits", ["general,general", "unseen", "train-spatial,val"])
def test_the_command_that_an_export_prints_can_be_run(
    splits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = ["--splits", splits, "--images", "1", "--out", "~/of scenes"]
    assert main(["data", "export", "scenes", *options]) == 0
    said = capsys.readouterr().out.splitlines()[-1].removeprefix("look at it:  riszoo ")
    assert main([*shlex.split(said), "--count", "1", "--out", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").is_file()


def test_an_export_leaves_the_folders_beside_it_alone(tmp_path: Path) -> None:
    beside = tmp_path / "out.part" / "mine.txt"
    beside.parent.mkdir()
    beside.write_text("mine")
    assert main(["data", "export", "scenes", "--splits", "val", "--images", "1", "--out", str(tmp_path / "out")]) == 0
    assert beside.read_text() == "mine"


def test_an_existing_folder_and_an_unknown_split_are_errors(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "export", "scenes", "--splits", "val", "--out", str(tree)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["data", "export", "scenes", "--splits", "vall", "--out", str(tree) + "2"]) == 2
    assert "did you mean 'val'" in capsys.readouterr().err
