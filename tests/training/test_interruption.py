"""A training that receives a signal saves its state, says how to continue, and ends as if it had not stopped."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riszoo.batch import Batch
from riszoo.cli.main import main
from riszoo.model import RISModule
from riszoo.training import runs
from tests.support.tiny_training import checkpoint, few_images, fit, same_weights


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)


def send(monkeypatch: pytest.MonkeyPatch, signum: int, step: int, hook: str = "training_step") -> None:
    """Send this process a signal within a step, once."""
    original = getattr(RISModule, hook)
    sent = []

    def interrupted(model: RISModule, batch: Batch, *indices: Any) -> Tensor:
        if model.global_step == step and not sent and model.trainer.state.fn == "fit":
            sent.append(step)
            os.kill(os.getpid(), signum)
        result: Tensor = original(model, batch, *indices)
        return result

    monkeypatch.setattr(RISModule, hook, interrupted)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 128 + signal.SIGUSR1)]
)
def test_a_signal_saves_the_step_and_prints_the_command_that_continues(
    signum: int, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    send(monkeypatch, signum, step=1)
    before = signal.getsignal(signum)
    assert fit() == code
    assert checkpoint()["global_step"] == 2
    name = signal.Signals(signum).name
    (folder,) = Path("runs").iterdir()
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"riszoo: stopped by {name}; continue with: riszoo fit --ckpt_path {folder}/checkpoints/last.ckpt"
    )
    assert signal.getsignal(signum) == before


def test_a_signal_within_a_validation_repeats_that_validation_later(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    send(monkeypatch, signal.SIGTERM, step=4, hook="validation_step")
    assert fit() == 143
    (folder,) = Path("runs").iterdir()
    assert checkpoint()["global_step"] == 4
    assert not (folder / "checkpoints" / "best.ckpt").exists()
    validated: list[int] = []
    start = RISModule.on_validation_epoch_start

    def noted(model: RISModule) -> None:
        validated.append(model.global_step)
        start(model)

    monkeypatch.setattr(RISModule, "on_validation_epoch_start", noted)
    assert fit("--ckpt_path", f"{folder}/checkpoints/last.ckpt") == 0
    assert validated[:2] == [4, 6]


def curves(root: str) -> list[tuple[str, ...]]:
    """Step, loss and metric of each row of the only run's curves."""
    (path,) = Path(root).glob("*/metrics.csv")
    rows = csv.DictReader(path.read_text().splitlines())
    return [(row["step"], row["loss"], row["val/mIoU"]) for row in rows]


ENDLESS, EPOCHS = (
    {"max_epochs": -1},
    {"max_steps": -1, "max_epochs": 2, "val_check_interval": 1.0, "check_val_every_n_epoch": 1},
)
"""A training of so many steps, and of whole epochs, whose batches have to be counted first."""


@pytest.mark.parametrize(("step", "length"), [(1, ENDLESS), (3, ENDLESS), (1, EPOCHS), (5, EPOCHS)])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    step: int, length: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model": {"init_args": {"vision": {"options": {"drop_path_rate": 0.5}}}}, "trainer": length}
    assert fit("--run.root", "whole", **changes) == 0
    send(monkeypatch, signal.SIGINT, step)
    assert fit("--run.root", "parts", **changes) == 130
    assert main(["fit", "--run.root", "parts", "--ckpt_path", "last"]) == 0
    assert same_weights(checkpoint("whole"), checkpoint("parts"))
    missing = [row for row in curves("whole") if row not in curves("parts")]
    assert len(curves("whole")) == len(curves("parts")) + 1
    assert [row[0] for row in missing] == [str(step)], "only the loss of the interrupted step was not written"


HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as handle:
    fcntl.lockf(handle, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_training_is_not_continued_by_two_processes_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(trainer={"max_steps": 1}) == 0
    (folder,) = Path("runs").iterdir()
    partial = folder / "checkpoints" / "last.ckpt.partial"
    partial.touch()
    again = ["fit", "--ckpt_path", "last", "--trainer.max_steps", "2"]
    capsys.readouterr()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder / runs.LOCK)], stdin=-1, stdout=-1) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        assert main(again) == 2
        other.stdin.close()
    assert f"another process trains in {folder}" in capsys.readouterr().err
    assert partial.exists()
    assert main(again) == 0
    assert not partial.exists()
    assert checkpoint()["global_step"] == 2


def test_a_training_stops_at_the_end_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two batches of the third step, the first one receives the signal."""
    halves = {"data": {"init_args": {"batch_size": 2}}, "trainer": {"max_steps": 4, "limit_val_batches": 0}}
    assert fit("--run.root", "whole", **halves) == 0
    send(monkeypatch, signal.SIGTERM, 2)
    assert fit("--run.root", "parts", **halves) == 143
    progress = checkpoint("parts")["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert (checkpoint("parts")["global_step"], progress["ready"] % 2) == (3, 0)
    assert main(["fit", "--run.root", "parts", "--ckpt_path", "last"]) == 0
    assert same_weights(checkpoint("whole"), checkpoint("parts"))


def test_a_signal_within_the_last_validation_leaves_it_to_be_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    send(monkeypatch, signal.SIGTERM, 6, "validation_step")
    assert fit() == 143
    (folder,) = Path("runs").iterdir()
    assert "training" not in json.loads((folder / runs.CARD).read_text()), "a bench would take the run for finished"
    before = checkpoint(which="best")["global_step"]
    assert main(["fit", "--ckpt_path", "last"]) == 0
    assert "training" in json.loads((folder / runs.CARD).read_text())
    assert before == 4


def test_options_of_the_optimizer_hold_for_a_training_that_continues(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(trainer={"max_steps": 2}) == 0
    changes = ["--model.optim.lr", "1e-5", "--model.optim.weight_decay", "0.5", "--model.optim.amsgrad", "true"]
    assert main(["fit", "--ckpt_path", "last", "--trainer.max_steps", "4", *changes]) == 0
    assert "model.optim.lr" in capsys.readouterr().out
    for group in checkpoint()["optimizer_states"][0]["param_groups"]:
        assert (group["initial_lr"], group["amsgrad"]) == (1e-5, True)
        assert group["weight_decay"] == (0.0 if group["name"].endswith("-plain") else 0.5)


def test_a_moved_run_keeps_its_better_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr(RISModule, "on_validation_epoch_end", lambda model: model.log("val/mIoU", next(scores)))
    assert fit(trainer={"max_steps": 2, "val_check_interval": 2}) == 0
    (folder,) = Path("runs").iterdir()
    Path("elsewhere").mkdir()
    moved = folder.rename(Path("elsewhere") / folder.name)
    last = str(runs.checkpoint(moved, "last"))
    monkeypatch.setattr("riszoo.training.lightning_cli.RISCLI.after_fit", lambda cli: None)
    assert main(["fit", "--ckpt_path", last, "--trainer.max_steps", "4"]) == 0
    assert checkpoint("elsewhere")["global_step"] == 4
    assert checkpoint("elsewhere", "best")["global_step"] == 2


def test_a_training_that_has_ended_says_so_and_keeps_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(trainer={"max_steps": 2}) == 0
    assert "nothing is left to train" not in capsys.readouterr().out
    content = checkpoint()
    content["riszoo"]["seconds"] += 1000.0
    (folder,) = Path("runs").iterdir()
    torch.save(content, runs.checkpoint(folder, "last"))
    assert main(["fit", "--ckpt_path", "last"]) == 0
    assert "nothing is left to train: step 2 of 2" in capsys.readouterr().out
    assert json.loads((folder / runs.CARD).read_text())["training"]["seconds"] > 1000
    assert main(["info", str(runs.checkpoint(folder))]) == 0
    assert "  trained with 'riszoo fit --ckpt_path last': data scenes, scale tiny, seed 0" in capsys.readouterr().out


def test_a_damaged_last_checkpoint_is_replaced_by_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(trainer={"max_steps": 4}) == 0
    before = checkpoint()
    (folder,) = Path("runs").iterdir()
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    assert main(["fit", "--ckpt_path", str(last)]) == 0
    assert "last.ckpt is damaged; continuing from" in capsys.readouterr().err
    assert same_weights(before, checkpoint(which="best"))


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a stand-in for SLURM's scontrol notes its arguments."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return calls


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "71"}, "71"),
        ({"SLURM_JOB_ID": "75", "SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "4"}, "71_4"),
    ],
)
def test_a_preempted_slurm_job_is_requeued(
    environment: dict[str, str], job: str, scontrol: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    send(monkeypatch, signal.SIGUSR1, step=2)
    assert fit() == 128 + signal.SIGUSR1
    assert checkpoint()["global_step"] == 3
    assert scontrol.read_text() == f"requeue {job}\n"
    assert f"riszoo: requeued job {job}" in capfd.readouterr().err


def test_a_refused_requeue_is_reported(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (scontrol.parent / "bin" / "scontrol").write_text("#!/bin/sh\necho Access denied >&2\nexit 1\n")
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    send(monkeypatch, signal.SIGUSR1, step=2)
    assert fit() == 128 + signal.SIGUSR1
    assert "riszoo: job 71 could not be requeued: Access denied" in capfd.readouterr().err
