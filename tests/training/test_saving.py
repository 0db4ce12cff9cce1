"""last.ckpt is the last state, and every training has a best checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from riszoo.training import runs
from tests.support.tiny_training import CONFIG, checkpoint, few_images, fit


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)


@pytest.fixture
def saved_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The names and steps of all checkpoints that are written during the test."""
    steps: list[tuple[str, int]] = []
    save = Trainer.save_checkpoint

    def noted(trainer: Trainer, path: Any, *args: Any, **kwargs: Any) -> None:
        steps.append((Path(path).name, trainer.global_step))
        save(trainer, path, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", noted)
    return steps


def test_the_last_step_is_saved_although_the_best_one_was_earlier(saved_steps: list[tuple[str, int]]) -> None:
    assert fit() == 0
    assert checkpoint()["global_step"] == 6
    assert [step for name, step in saved_steps if name == "last.ckpt"] == [4, 6]


def test_a_checkpoint_is_saved_every_some_steps(saved_steps: list[tuple[str, int]]) -> None:
    assert fit("--run.save_steps", "2", trainer={"limit_val_batches": 0}) == 0
    assert saved_steps == [("last.ckpt", 2), ("last.ckpt", 4), ("last.ckpt", 6)]


def test_a_checkpoint_is_saved_every_some_minutes(saved_steps: list[tuple[str, int]]) -> None:
    assert fit("--run.save_minutes", "1e-9", trainer={"limit_val_batches": 0, "max_steps": 3}) == 0
    assert saved_steps == [("last.ckpt", 1), ("last.ckpt", 2), ("last.ckpt", 3)]


def test_a_training_shorter_than_its_validation_interval_has_a_best_checkpoint() -> None:
    assert fit(trainer={"max_steps": 2, "val_check_interval": 100}) == 0
    assert checkpoint(which="best")["global_step"] == 2


def test_validations_count_steps_however_a_step_is_divided(saved_steps: list[tuple[str, int]]) -> None:
    assert fit(data={"init_args": {"batch_size": 2}}, trainer={"val_check_interval": 2}) == 0
    assert [step for name, step in saved_steps if name == "last.ckpt"] == [2, 4, 6]


def test_averaged_weights_are_saved_before_they_replace_the_trained_ones() -> None:
    assert fit(model={"init_args": {"optim": {"ema": 0.9}}}) == 0
    content = checkpoint()
    averaged, trained = content["state_dict"], content["current_model_state"]
    assert any(not averaged[name].equal(trained[name]) for name in averaged)


def test_a_test_uses_the_last_checkpoint_where_no_run_has_a_best_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(trainer={"max_steps": 1, "limit_val_batches": 0}) == 0
    capsys.readouterr()
    last = runs.newest(Path("runs"), CONFIG["model"]["class_path"], "scenes", "best")
    assert last.name == "last.ckpt"
    assert "has a best checkpoint; using runs/" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["save_steps", "save_minutes"])
def test_a_negative_interval_is_an_error(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(f"--run.{option}=-1") == 2
    assert f"--run.{option} -1" in capsys.readouterr().err
