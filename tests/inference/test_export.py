"""`riszoo export`: graphs, tokenizer and runner give the model's own results without riszoo."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin

from riszoo.batch import Geometry, View
from riszoo.cli.main import main
from riszoo.data.images import KNOWN, place_image, view_of
from riszoo.data.record import Pixels
from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError
from riszoo.inference.export import folder, quantized, runner
from riszoo.inference.export.formats import FORMATS, Format
from riszoo.inference.export.graphs import ImageGraph, image_inputs, programs, sentence_inputs
from riszoo.inference.export.parity import TOLERANCE, check_parity, parity_cases, tracing_case
from riszoo.inference.predictor import Predictor
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint
from tests.support import risam_small, vipa_small
from tests.support.scripts import load_script
from tests.support.small_run import scene, small_run
from tests.support.zoo import Entry, entries

RECIPES = [entry for entry in entries() if not entry.name.startswith("toy")]
TEXTS = ["the red circle", "a square on the left", "unknownword"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with the weights of a small LTS, and its export to ONNX with 8-bit weights."""
    root = tmp_path_factory.mktemp("export")
    run = small_run(root / "runs", text={"length": 6})
    words = ["export", "--model", "lts", "--run.root", str(root / "runs"), "--out", str(root / "lts"), "--int8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantized, "IMAGES", 8)
        assert main(words) == 0
    return run, root / "lts"


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def model_of(run: Path) -> RISModule:
    return from_checkpoint(runs.checkpoint(run))


def test_the_runner_segments_as_the_model_does(exported: tuple[Path, Path]) -> None:
    """Masks at the image's own size; a pixel on a boundary may round differently."""
    run, out = exported
    model = load_script(out / "run.py").Model(out)
    pixels = ScenesSplit("val", (80, 120))[0].load()
    masks, rejected = model.segment(pixels, TEXTS)
    own = Predictor(model_of(run)).segment(pixels, TEXTS)
    assert rejected is None
    assert masks.shape == (3, 80, 120)
    different = np.mean([mask != prediction.mask for mask, prediction in zip(masks, own, strict=True)])
    assert 0.05 < masks.mean() < 0.95
    assert different < 1e-3


def test_an_export_is_described_with_its_difference_and_the_loss_of_8_bits(exported: tuple[Path, Path]) -> None:
    _, out = exported
    described = json.loads((out / "model.json").read_text())
    assert {file.name for file in out.iterdir()} == {
        "image.onnx", "sentence.onnx", "image-int8.onnx", "sentence-int8.onnx", "model.json", "run.py",
    }  # fmt: skip
    assert 0 <= described["parity"]["largest_difference"] <= TOLERANCE
    loss = described["int8"]
    assert loss["sentences"] > 0
    assert loss["bytes"]["int8"] < loss["bytes"]["float32"]
    assert abs(loss["mIoU"]["int8"] - loss["mIoU"]["float32"]) < 5


def test_the_runner_imports_nothing_of_riszoo(exported: tuple[Path, Path]) -> None:
    assert "riszoo" not in (exported[1] / "run.py").read_text()


def huge() -> bytes:
    """The head of a PNG that would be decoded into gigabytes."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + check + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize("content", [None, b"not an image", huge()], ids=["none", "text", "huge"])
def test_the_runner_reports_an_image_that_cannot_be_read(
    exported: tuple[Path, Path], content: bytes | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    image = tmp_path / "cat.jpg"
    if content is not None:
        image.write_bytes(content)
    monkeypatch.setattr("sys.argv", ["run.py", str(image), "the cat"])
    with pytest.raises(SystemExit, match="2"):
        load_script(exported[1] / "run.py").main()
    assert f"{image} cannot be read as an image" in capsys.readouterr().err


def test_the_runner_starts_no_program_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene().save(tmp_path / "cat.eps")
    started = Mock(side_effect=OSError)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr("sys.argv", ["run.py", str(tmp_path / "cat.eps"), "the cat"])
    with pytest.raises(SystemExit, match="2"):
        runner.main()
    assert "cannot identify image file" in capsys.readouterr().err
    started.assert_not_called()
    assert runner.FORMATS == KNOWN


def test_the_runner_reports_a_folder_that_it_cannot_make(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "cat.png"
    scene().save(image)
    monkeypatch.setattr("sys.argv", ["run.py", str(image), "the cat", "--out", str(image)])
    with pytest.raises(SystemExit, match="2"):
        load_script(exported[1] / "run.py").main()
    assert f"--out {image} cannot be a folder" in capsys.readouterr().err


def test_graphs_that_differ_from_the_model_are_reported(exported: tuple[Path, Path]) -> None:
    model = model_of(exported[0])
    with torch.no_grad():
        model.segment.classify.bias += 0.01
    with pytest.raises(UserError, match="of LTS differ from the model"):
        check_parity(model, exported[1])


@pytest.mark.parametrize("geometry", ["squeeze", "letterbox", "pad"])
def test_the_runner_places_images_as_the_model_does(geometry: Any) -> None:
    """At most one level apart: the model's resize rounds its weights."""
    model = runner.Model.__new__(runner.Model)
    model.config, model.frame = {"geometry": geometry}, (64, 96)
    for size in [(80, 80), (33, 150), (200, 90), (64, 96)]:
        pixels = noise(*size)
        fitted = Geometry.fit(geometry, size, (64, 96))
        image, placement = model.place(pixels)
        assert (*placement.offset, *np.add(placement.offset, placement.inside)) == fitted.valid
        assert np.abs(image.astype(int) - place_image(pixels, fitted).numpy()).max() <= 1


@pytest.mark.parametrize(("kernel", "antialias"), [("bicubic", False), ("bicubic", True), ("bilinear", True)])
def test_the_runner_makes_views_as_the_model_does(kernel: Any, antialias: bool) -> None:
    pixels = noise(50, 130)
    view = {"size": [64, 64], "kernel": kernel, "antialias": antialias}
    own = view_of(pixels, View((64, 64), kernel, antialias)).numpy()
    np.testing.assert_allclose(runner.Model.view(runner.Model.__new__(runner.Model), pixels, view), own, atol=1e-2)


def test_a_failed_export_leaves_nothing(exported: tuple[Path, Path], tmp_path: Path) -> None:
    def fail(graph: Any, outputs: list[str], path: Path) -> None:
        path.write_bytes(b"partial")
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="disk is full"):
        folder.export(model_of(exported[0]), tmp_path / "out", Format(".onnx", fail), about={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("build", [vipa_small.small, risam_small.toy], ids=["vipa", "risam"])
@torch.no_grad()
def test_a_graph_decodes_another_number_of_sentences_than_it_was_traced_on(build: Callable[[], RISModule]) -> None:
    """LTS is above, from image to mask; every recipe in both formats is below."""
    model = build().eval().requires_grad_(False)
    _, sentence = programs(model, tracing_case(model).batch)
    batch = next(parity_cases(model)).batch
    inputs = sentence_inputs(ImageGraph(model)(**image_inputs(batch)), batch)
    assert len(batch) != len(sentence.inputs["ids"])
    torch.testing.assert_close(sentence.program.module()(*inputs.values())[0], model(batch).logits, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("entry", RECIPES, ids=[entry.name for entry in RECIPES])
def test_every_recipe_is_exported(entry: Entry, format: str, tmp_path: Path) -> None:
    model = entry.build().eval()
    described = folder.export(model, tmp_path / "out", FORMATS[format], about={})
    assert described["parity"]["largest_difference"] <= TOLERANCE


def test_two_empty_masks_are_equal() -> None:
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert (quantized._iou(empty, empty), quantized._iou(empty, full), quantized._iou(full, full)) == (1, 0, 1)


def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where the package is missing
    assert main(["export", "--model", "lts", "--out", str(tmp_path / "out")]) == 2
    assert "--format onnx needs onnxruntime: pip install 'riszoo[export]'" in capsys.readouterr().err


def test_wrong_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in {
        "--model lst --out x": "did you mean 'lts'",
        "--model lts --out x --format torch_export --int8": "--int8 needs --format onnx",
        f"--model lts --out {tmp_path}": "exists already",
    }.items():
        assert main(["export", *words.split()]) == 2
        assert message in capsys.readouterr().err
