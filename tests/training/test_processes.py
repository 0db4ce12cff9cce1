"""Two processes (gloo) train and test through the command line, with the same metrics as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from riszoo import recipes

TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
ONE = ["--trainer.devices", "1"]
SMALL = [
    "--model", "lts", "--trainer.accelerator", "cpu", "--data.workers", "0", "--trainer.enable_progress_bar", "false",
    "--data.eval_images", "3", "--data.image_size", "64", "--model.size", "64",
]  # fmt: skip


def riszoo(*argv: str, launcher: tuple[str, ...] = ()) -> str:
    """The output of a command, which must succeed; `launcher` is a module, with options, that starts its processes."""
    root = str(Path(recipes.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "riszoo", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by two processes: three steps of eight sentences, four a process."""
    root = tmp_path_factory.mktemp("two") / "runs"
    output = riszoo(
        "fit", *SMALL, *TWO, "--run.root", str(root), "--trainer.max_steps", "3", "--trainer.val_check_interval", "3",
        "--data.val_images", "5", "--data.batch_size", "8", "--data.total_batch_size", "8",
        "--data.sentences_per_image", "2", "--trainer.limit_val_batches", "3",
    )  # fmt: skip
    assert output.count("riszoo fit:") == 1, "one process prints"
    folders = list(root.iterdir())
    assert len(folders) == 1, "both processes use one run folder"
    return folders[0]


def test_two_processes_train_one_run(run: Path) -> None:
    card = json.loads((run / "run.json").read_text())
    assert card["devices"] == 2
    assert card["training"] == {**card["training"], "steps": 3, "sentences": 24, "total_batch_size": 8}
    assert (run / "checkpoints" / "best.ckpt").is_file()


def test_torchrun_starts_one_run_and_evaluates_it(tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    output = riszoo(
        "fit", *SMALL, *TWO, "--run.root", str(tmp_path), "--trainer.max_steps", "1", "--trainer.val_check_interval",
        "1", "--data.val_images", "2", "--data.batch_size", "8", "--data.total_batch_size", "8",
        "--trainer.limit_val_batches", "1", launcher=torchrun,
    )  # fmt: skip
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.glob("validate-scenes-*/metrics.json"))) == 1
    assert f"test it with: riszoo test --model lts --data scenes --ckpt_path {folder}" in output


def test_two_processes_measure_what_one_does(run: Path) -> None:
    """The files of one checkpoint's results are byte-equal for one process, two, and without grouping by image."""
    found = []
    for argv in (
        [*ONE, "--data.eval_images", "2"],
        [*TWO, "--data.eval_images", "1"],
        [*ONE, "--data.grouped", "false", "--data.eval_images", "7"],
    ):
        first = ["--data.test_images", "7", "--split", "general", "--protocol", "original,lavt480"]
        riszoo("test", *SMALL, *argv, *first, "--ckpt_path", str(run / "checkpoints" / "best.ckpt"))
        folder = max(run.glob("test-scenes-*"), key=lambda f: f.stat().st_mtime_ns)
        files = ("metrics.json", "sentences-general.csv")
        found.append([(folder / name).read_bytes() for name in files])
    assert json.loads(found[0][0])["splits"]["general"]["sentences"] == 21
    assert found[0] == found[1], "two processes"
    assert found[0] == found[2], "one sentence at a time"
