"""Large images in overlapping windows: the windows, the blending, and the memory of a very large image."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import riszoo
from riszoo.batch import Batch, Geometry, Output
from riszoo.cli.main import main
from riszoo.errors import UserError
from riszoo.inference.predictor import Predictor
from riszoo.inference.tiling import OVERLAP, Canvas, spans
from riszoo.training import runs
from tests.support.small_run import small_run

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEBIBYTES = 900
"""The most that segmenting 24 million pixels may add to the process; without tiles it is as much."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("length", [5, 8, 9, 20, 33, 100])
def test_spans_cover_the_length_and_overlap(length: int) -> None:
    found = spans(length, 8)
    assert (found[0].start, found[-1].stop) == (0, length)
    assert all(span.stop - span.start == min(8, length) for span in found)
    assert all(one.stop - other.start >= OVERLAP * 8 for one, other in pairwise(found))


def test_windows_of_a_ramp_blend_into_the_ramp() -> None:
    """Each window's logits are the columns of the image below them, and so are those of the whole image."""
    canvas = Canvas((100, 400), tile=80, grid=(16, 16))
    assert canvas.size == (20, 80)
    frame = (64, 64)

    def logits(left: int, width: int) -> torch.Tensor:
        return (left + (torch.arange(16) + 0.5) * width / 16).expand(1, 16, 16)

    for window in canvas.windows:
        rows, cols = canvas.pixels(window)
        size = rows.stop - rows.start, cols.stop - cols.start
        canvas.add(window, logits(cols.start, size[1]), Geometry.fit("squeeze", size, frame))
    whole = torch.arange(0.5, 400).expand(1, 100, 400)
    blended = canvas.blended(whole, Geometry.fit("squeeze", (100, 400), (100, 400)))
    expected = (torch.arange(80) + 0.5) * 5
    assert blended.shape == (1, 1, 20, 80)
    torch.testing.assert_close(blended[0, 0], expected.expand(20, 80), atol=3.0, rtol=0)  # a cell is 5 pixels wide


def bright(batch: Batch) -> Output:
    """High logits where the frame is bright, for every sentence."""
    grey = F.avg_pool2d(batch.images.float().mean(1, keepdim=True), 4)
    return Output(((grey - 100) / 10)[batch.image_index])


def test_a_small_object_is_found_in_windows_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = riszoo.load("lts", runs.checkpoint(run))
    monkeypatch.setattr(predictor.model, "forward", bright)
    image = np.zeros((1500, 2000, 3), np.uint8)
    image[700:730, 1200:1240] = 255
    whole, tiled = (predictor.segment(image, ["it", "that"], tile=tile) for tile in (None, 160))
    assert not whole[0].mask.any()
    x, y, width, height = tiled[1].box
    assert np.abs(np.array([x, y, x + width, y + height]) - [1200, 700, 1240, 730]).max() <= 12
    assert tiled[0].mask.shape == (1500, 2000)


def test_an_image_within_one_window_is_segmented_as_a_whole(run: Path) -> None:
    predictor = riszoo.load("lts", runs.checkpoint(run))
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    one, other = predictor.segment(image, "it"), predictor.segment(image, "it", tile=120)
    assert np.array_equal(one[0].mask, other[0].mask)


def test_windows_smaller_than_the_frame_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor: Predictor = riszoo.load("lts", runs.checkpoint(run))
    with pytest.raises(UserError, match="tile 40 is smaller than the model's frame: give at least 64 pixels"):
        predictor.segment(np.zeros((90, 90, 3), np.uint8), "it", tile=40)
    assert (
        main(["segment", "--model", "lts", "--ckpt_path", str(runs.checkpoint(run)), "--example", "--tile", "9"]) == 2
    )
    assert "give at least 64 pixels" in capsys.readouterr().err


def peak() -> int:
    """The largest resident memory since the last reset, in MiB."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


@pytest.mark.skipif(not REFERENCES.exists(), reason="the peak of memory is read and reset as Linux offers it")
def test_a_very_large_image_takes_bounded_memory(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (6000, 4000), (90, 120, 60)).save("huge.png", compress_level=1)
    small = ["segment", "--model", "lts", "--ckpt_path", str(runs.checkpoint(run)), "--text", "the star"]
    REFERENCES.write_text("5")  # resets the peak
    before = peak()
    assert main([*small, "--image", "huge.png", "--tile", "1000"]) == 0
    added = peak() - before
    with Image.open("segmented/huge-1.png") as mask:
        assert mask.size == (6000, 4000)
    assert "resized" not in capsys.readouterr().err
    assert added < MEBIBYTES, f"{added} MiB"
