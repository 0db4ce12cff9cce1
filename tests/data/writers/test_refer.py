"""Exported splits: what is written in REFER's layout is read again with equal images, masks and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from riszoo.cli.main import main
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, open_split
from riszoo.data.readers.validation import load_pickle
from riszoo.data.scenes import ScenesSplit

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
