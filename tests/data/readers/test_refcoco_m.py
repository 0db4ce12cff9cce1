"""RefCOCO-M: its parquet files are read as untrusted, its images come from them or from COCO."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from riszoo.cli.main import main
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, open_split
from riszoo.errors import UserError
from tests.support.data_trees import H, W, rle

pyarrow = pytest.importorskip("pyarrow")


def sample(number: int, mask: dict, *sentences: str) -> dict:
    return {"id": number, "category": "cat", "sentences": list(sentences), "mask": mask}


def row(image: int, *samples: dict) -> dict:
    blob = io.BytesIO()
    Image.new("RGB", (W, H), (image, 20, 30)).save(blob, "PNG")
    return {"image": {"bytes": blob.getvalue(), "path": None}, "image_id": image, "samples": list(samples)}


def write(folder: Path, *rows: dict, name: str = "validation-00000-of-00001.parquet") -> Path:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    folder.mkdir(parents=True, exist_ok=True)
    write_table(Table.from_pylist(list(rows)), folder / name)
    return folder / name


def test_images_masks_and_sentences_are_read(tmp_path: Path) -> None:
    left, right = rle((0, 0, 5, 4)), rle((2, 6, 7, 9))
    write(tmp_path / "refcoco-m", row(7, sample(1, left, "left cat", "cat"), sample(2, right, "right cat")))
    write(tmp_path / "refcoco-m", row(9, sample(3, right, "dog")), name="validation-00001-of-00002.parquet")
    assert main(["data", "prepare", "refcoco-m", "--root", str(tmp_path)]) == 0
    split = open_split(get_reader("refcoco-m"), "val", Options(root=str(tmp_path), strict=True))
    assert [record.image_id for record in map(split.__getitem__, range(len(split)))] == ["7", "9"]
    assert list(split.texts()) == ["left cat", "cat", "right cat", "dog"]
    assert split.image_keys() == ["coco:7", "coco:9"]
    assert (split[0].load() == (7, 20, 30)).all()
    drawn = split[0].targets[1].segmentation.draw(GroundTruth())
    assert np.argwhere(drawn).min(0).tolist() == [2, 6]
    assert drawn.sum() == 15


def test_invalid_samples_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    short = {"size": [H, W], "counts": "0"}
    write(
        tmp_path / "refcoco-m",
        row(7, sample(1, short, "broken"), sample(2, rle((0, 0, 5, 4)), "cat"), sample(3, rle((0, 0, 1, 1)))),
    )
    get_reader("refcoco-m").extract(tmp_path)
    with pytest.warns(UserWarning, match="2 invalid record"):
        split = open_split(get_reader("refcoco-m"), "val", Options(root=str(tmp_path)))
    assert list(split.texts()) == ["cat"]


def test_files_that_are_not_refcoco_m_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "refcoco-m", {"image_id": 3})
    options = Options(root=str(tmp_path))
    with pytest.raises(UserError, match="no column 'samples'"):
        open_split(get_reader("refcoco-m"), "val", options)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        open_split(get_reader("refcoco-m"), "val", options)
    path.unlink()
    with pytest.raises(UserError, match="moondream on the Hugging Face hub"):
        open_split(get_reader("refcoco-m"), "val", options)


@pytest.mark.parametrize("size", [(W, H), (10, 10)])
def test_masks_of_one_image_have_one_size(tmp_path: Path, size: tuple[int, int]) -> None:
    other = rle((0, 0, 5, 4), size=size)
    write(tmp_path / "refcoco-m", row(7, sample(1, rle((0, 0, 5, 4)), "cat"), sample(2, other, "dog")))
    get_reader("refcoco-m").extract(tmp_path)
    with pytest.warns(UserWarning, match="7#1: its mask is of another size"):
        split = open_split(get_reader("refcoco-m"), "val", Options(root=str(tmp_path)))
    assert list(split.texts()) == ["cat"]
