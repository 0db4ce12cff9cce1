"""The command with checkpoints that leave the frozen weights to their file: written, put back, refused over another."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from riszoo.cli.main import main
from riszoo.encoders.adapters import added_names
from riszoo.encoders.base import VisionConfig
from riszoo.encoders.sam import build_sam
from riszoo.files import file_hash
from tests.support.risam_small import BERT, WORDS
from tests.support.sam_reference import TOY, save_sam

VISION: dict[str, Any] = {"name": "sam_vit_tiny", "options": {**TOY, "peft": "adapter", "rank": 4}}
MODEL = {
    "size": 128,
    "vision": VISION,
    "text": {"name": "bert", "weights": "none", "vocabulary": WORDS, "options": BERT},
    "ma": {"depth": 1, "hidden": 32},
    "decoder": {"depth": 1, "weights": "none"},
    "optim": {"lr": 0.001, "warmup": 0, "ema": 0.5},
}
FEW = [
    "--scale", "paper", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true",
    "--trainer.enable_progress_bar", "false", "--data.workers", "0", "--data.eval_images", "2",
    "--data.test_images", "4", "--run.images", "0",
]  # fmt: skip
FIT = [
    "--model", "risam", "--config", "small.yaml", "--trainer.max_steps", "2", "--trainer.max_epochs", "1",
    "--trainer.val_check_interval", "2", "--data.val_images", "4", "--data.batch_size", "4",
    "--data.total_batch_size", "4", "--data.sentences_per_image", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of the adapters' recipe over a small file in the official form."""
    home = tmp_path_factory.mktemp("delta")
    save_sam(home / "sam.pth")
    vision = {**VISION, "weights": "sam.pth"}
    (home / "small.yaml").write_text(json.dumps({"model": {"init_args": {**MODEL, "vision": vision}}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", *FIT, *FEW]) == 0
    return home


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The same for each test to change, as its own working folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def measure(run: Path, *more: str) -> int:
    argv = ["test", "--model", "risam", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--split", "val"]
    return main([*argv, *FEW, *more])


def counts(run: Path, verb: str) -> list[dict[str, str]]:
    """What was counted of every sentence's mask; some masks hold something."""
    (folder,) = run.glob(f"{verb}-scenes-*")
    rows = list(csv.DictReader((folder / "sentences-val.csv").read_text().splitlines()))
    assert any(int(row["original.P"]) for row in rows)
    return rows


def test_a_checkpoint_of_the_trained_part_is_put_back_over_its_file(run: Path) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    added = {f"vision.{name}" for name in added_names(build_sam(VisionConfig(**VISION), (128, 128)))}
    for states in ("state_dict", "current_model_state"):
        assert {name for name in content[states] if name.startswith("vision.")} == added
    recorded = content["riszoo"]["weight_files"]
    assert recorded["vision"] == {"file": "sam.pth", "sha256": file_hash(run.parents[1] / "sam.pth")}
    assert json.loads((run / "run.json").read_text())["pretrained"] == recorded
    assert measure(run) == 0
    assert counts(run, "test") == counts(run, "validate")
    (folder,) = run.glob("test-scenes-*")
    measured = json.loads((folder / "metrics.json").read_text())["splits"]["val"]["protocols"]["original"]["values"]
    curve = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    in_training, *_ = [float(row["val/mIoU"]) for row in curve if row.get("val/mIoU")]
    assert measured["mIoU"] == pytest.approx(in_training, abs=1e-4), "of the weights before they were saved"


def test_the_file_may_lie_elsewhere_and_training_goes_on(run: Path) -> None:
    Path("other").mkdir()
    Path("sam.pth").rename("other/sam.pth")
    moved = ["--model.vision.weights", "other/sam.pth"]
    assert measure(run, *moved) == 0
    assert counts(run, "test") == counts(run, "validate")
    last = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_steps", "3"]
    assert main(["fit", *FIT, *FEW, *moved, *last]) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.parametrize("verb", ["test", "fit"])
def test_another_file_is_refused_in_one_sentence(run: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_sam(Path("sam.pth"), seed=5)
    capsys.readouterr()
    last = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    assert (measure(run) if verb == "test" else main(["fit", *FIT, *FEW, *last])) == 2
    said = capsys.readouterr().err
    assert "sam.pth is not the file this checkpoint was trained with: sam.pth has sha256" in said
    assert len(said.strip().splitlines()) == 1


def test_a_file_that_is_gone_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sam.pth").unlink()
    capsys.readouterr()
    assert measure(run) == 2
    assert "no SAM weights at sam.pth" in capsys.readouterr().err
