"""FSDP2 on two processes: the gradients of one process, and checkpoints that one process continues and the reverse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint, read_checkpoint
from tests.support.one_step import TOTAL, command, gradients
from tests.support.two_processes import Run, two_processes

SHARDED = {"trainer.devices": 2, "trainer.strategy": "fsdp2"}


@pytest.fixture(scope="module")
def both() -> Iterator[Run]:
    with two_processes(["tests.support.one_step"]) as run:
        yield run


@pytest.mark.parametrize("name", ["risam", pytest.param("evfsam", marks=pytest.mark.slow)])
def test_sharded_weights_have_the_gradients_of_whole_ones(name: str, both: Run) -> None:
    whole = gradients(name, {}, devices=1, batch=TOTAL)
    for found in both(gradients, name, {}, 2, TOTAL // 2, True):
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_two_processes_continue_the_training_of_one_and_one_that_of_two(both: Run, tmp_path: Path) -> None:
    """A second moment of AdamW keeps 0.999 of its value in a step, so every parameter is continued with its own."""
    assert command("fit", str(tmp_path), {"trainer.max_steps": 1, "trainer.devices": 1}) == 0
    (folder,) = tmp_path.iterdir()
    last = runs.checkpoint(folder, "last")
    first = second_moments(last)
    changes: dict[str, Any] = {"trainer.max_steps": 2, "ckpt_path": str(last), **SHARDED}
    assert both(command, "fit", str(tmp_path), changes) == [0, 0]
    sharded = second_moments(last)
    assert type(from_checkpoint(last, "risam")).__name__ == "RISAM"
    changes |= {"trainer.max_steps": 3, "trainer.devices": 1, "trainer.strategy": "auto"}
    assert command("fit", str(tmp_path), changes) == 0
    for before, after in ((first, sharded), (sharded, second_moments(last))):
        assert all((new >= 0.998 * old).all() for old, new in zip(before, after, strict=True))
    assert read_checkpoint(last)["global_step"] == 3


def second_moments(path: Path) -> list[Tensor]:
    """Those of a checkpoint's optimiser, in the order of the parameter groups."""
    (optimizer,) = read_checkpoint(path)["optimizer_states"]
    numbers = [number for group in optimizer["param_groups"] for number in group["params"]]
    return [optimizer["state"][number]["exp_avg_sq"].clone() for number in numbers]
