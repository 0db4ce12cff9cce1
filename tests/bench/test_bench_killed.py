"""`riszoo bench`, killed during a training and called again; its processes are forks of this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm  # noqa: F401 - imported once, and not in every fork
import torch
import yaml
from torch import Tensor

from riszoo import recipes
from riszoo.batch import Batch
from riszoo.bench import plan, rows
from riszoo.bench.runner import Bench
from riszoo.cli import main as cli
from riszoo.cli.bench import main, parser
from riszoo.data.scenes import split as scenes
from riszoo.model import RISModule
from tests.support.zoo import TOY

STEPS, KILLED_AT, BETWEEN = 6, 5, 2
RECIPE = {
    "class_path": "tests.support.toys.Early",
    "tiny": {
        "model": TOY,
        "data": {"batch_size": 8, "total_batch_size": 8, "val_images": 2, "eval_images": 2, "workers": 0},
        "trainer": {
            **{"accelerator": "cpu", "enable_progress_bar": False, "val_check_interval": BETWEEN},
            **{"limit_val_batches": 1, "limit_test_batches": 1},
        },
    },
}
SAME = ["--models", "toy", "--splits", "val", "--controls", "none", "--repeats", "1", "--report", ""]
ARGV = [*SAME, "--budget", str(8 * STEPS)]


class Forks:
    """Replaces subprocess.Popen; files record the arguments of each process and the steps that it trained."""

    kill = False

    def __init__(self, command: list[str], stdout: Any, stderr: Any, env: dict[str, str]) -> None:
        words = command[command.index("riszoo") + 1 :]
        note("processes", " ".join(word for word in words if word in ("speed", "fit", "test", "--ckpt_path")))
        self.process = multiprocessing.get_context("fork").Process(target=self.child, args=(words, stdout.fileno()))
        self.process.start()

    def child(self, words: list[str], log: int) -> None:
        os.dup2(log, 1)
        os.dup2(log, 2)
        step = RISModule.training_step

        def noted(model: RISModule, batch: Batch, batch_idx: int) -> Tensor:
            if self.kill and model.global_step == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            note("steps", str(model.global_step))
            return step(model, batch, batch_idx)

        RISModule.training_step = noted  # type: ignore[assignment, method-assign]
        sys.exit(cli.main(words))

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join()
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode


def note(file: str, text: str) -> None:
    with Path(file).open("a") as lines:
        lines.write(f"{text}\n")


def noted(file: str) -> list[str]:
    """The lines noted since the last call."""
    text = Path(file).read_text() if Path(file).exists() else ""
    Path(file).unlink(missing_ok=True)
    return text.splitlines()


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.setitem(scenes.PLANS, "train", scenes.ScenePlan(2 * STEPS + 2, 4))
    folders = recipes.folders()
    monkeypatch.setattr(recipes, "folders", lambda: (*folders, tmp_path))
    stand_in = SimpleNamespace(**vars(subprocess) | {"Popen": Forks})
    monkeypatch.setattr("riszoo.bench.runner.subprocess", stand_in)
    monkeypatch.setattr(Forks, "kill", False)


def weights(root: str) -> dict[str, Tensor]:
    """Of the newest training's last checkpoint."""
    newest = max(Path(root).glob("*/*/checkpoints/last.ckpt"), key=lambda path: path.parts[-3])
    content = torch.load(newest, weights_only=True)
    assert content["global_step"] == STEPS
    state: dict[str, Tensor] = content["state_dict"]
    return state


def test_the_same_command_continues_where_it_was_killed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Forks, "kill", True)
    assert main([*ARGV, "--root", "a", "--out", "out"]) == 1
    assert "was killed" in capsys.readouterr().err
    assert noted("processes") == ["speed", "fit"]
    assert noted("steps") == ["0", "1", "2", "3", "4"]

    monkeypatch.setattr(Forks, "kill", False)
    assert main([*ARGV, "--root", "a", "--out", "out"]) == 0
    assert noted("processes") == ["fit --ckpt_path", "test --ckpt_path"]
    assert noted("steps") == ["4", "5"], f"the last checkpoint is of step {KILLED_AT // BETWEEN * BETWEEN}"
    (row,) = rows.ACCURACY.read(Path("out"))
    assert int(row["training_sentences"]) == 8 * STEPS

    assert main([*ARGV, "--root", "a", "--out", "out"]) == 0
    assert noted("processes") == [], "finished steps are not repeated"

    (job,) = plan.make_jobs(parser().parse_args(ARGV))
    Bench([job], Path("b"), Path("out"), []).train(job)
    assert noted("steps") == [str(step) for step in range(STEPS)]
    whole, continued = weights("b"), weights("a")
    assert all(torch.equal(whole[name], continued[name]) for name in whole), "equal to an uninterrupted training"
