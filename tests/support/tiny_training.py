"""A training of a few steps of a toy model on a few scenes, through the command line in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riszoo import recipes
from riszoo.cli.main import main
from riszoo.data.scenes import split as scenes
from tests.support.zoo import TOY

CONFIG: dict[str, Any] = {
    "model": {"class_path": "tests.support.toys.Early", "init_args": {**TOY, "size": 32}},
    "data": {
        "init_args": {
            **{"image_size": 64, "batch_size": 4, "total_batch_size": 4, "sentences_per_image": 2},
            **{"val_images": 2, "test_images": 2, "eval_images": 2, "workers": 0},
        }
    },
    "trainer": {
        **{"accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
        **{"max_steps": 6, "val_check_interval": 4},
    },
    "run": {"images": 0},
}


def few_images(monkeypatch: pytest.MonkeyPatch, images: int = 8) -> None:
    """Generate a few training images instead of 60,000."""
    monkeypatch.setitem(scenes.PLANS, "train", scenes.ScenePlan(images, 2))


def fit(*options: str, **changes: dict[str, Any]) -> int:
    """The exit code of `riszoo fit` with the tiny configuration; changes are merged over its sections."""
    return main(["fit", "--config", json.dumps(recipes.merge(CONFIG, changes)), *options])


def checkpoint(root: str | Path = "runs", which: str = "last") -> dict[str, Any]:
    """The content of the only run's checkpoint."""
    (folder,) = Path(root).iterdir()
    content: dict[str, Any] = torch.load(folder / "checkpoints" / f"{which}.ckpt", weights_only=True)
    return content


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two checkpoints contain the same weights, bit for bit."""
    first: dict[str, Tensor] = one["state_dict"]
    second: dict[str, Tensor] = other["state_dict"]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
