"""Training steps of a tiny recipe, on one device or on two: their gradients, and commands in this process."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from riszoo.build import from_recipe
from riszoo.cli.main import main
from riszoo.data.scenes import split as scenes
from riszoo.model import RISModule
from riszoo.recipes import Config, merge
from riszoo.training.sharding import ShardedStrategy

TOTAL = 8
"""Sentences of the step, two of each image, some of them without a target."""
OVER: Config = {
    "model": {"init_args": {"size": 64, "optim": {"ema": 0.0}}},
    "data": {
        "init_args": {
            **{"image_size": 64, "workers": 0, "train_split": "general-train"},
            **{"total_batch_size": TOTAL, "sentences_per_image": 2},
        }
    },
}


def few_images() -> AbstractContextManager[Any]:
    """A context in which the training split has eight images."""
    return patch.dict(scenes.PLANS, {"general-train": replace(scenes.PLANS["general-train"], images=8)})


class Gradients(Callback):
    """Records the gradients of the trained parameters before the optimiser's step; None where there is none."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor | None] = {}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        trained = {name: p.grad for name, p in pl_module.named_parameters() if p.requires_grad}
        self.found = {name: None if grad is None else whole(grad) for name, grad in trained.items()}


def whole(tensor: Tensor) -> Tensor:
    """A copy of a tensor, gathered from all devices where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def tiny_model(name: str, over: Config) -> tuple[RISModule, Any]:
    """The model of a tiny recipe and its data, `over` merged over both."""
    torch.manual_seed(0)
    model, data, _ = from_recipe(name, "scenes", "tiny", merge(OVER, over))
    return model, data


def gradients(name: str, over: Config, devices: int, batch: int, sharded: bool = False) -> dict[str, Tensor | None]:
    """Of one step of `TOTAL` sentences, `batch` of them at a time on each device, in float64.

    The model is in evaluation mode: noise and dropout would differ, and torch shares the statistics of BatchNorm
    between GPUs only.
    """
    record = Gradients()
    strategy = ShardedStrategy() if sharded else "ddp" if devices > 1 else "auto"
    with few_images():
        model, data = tiny_model(name, merge(over, {"data": {"init_args": {"batch_size": batch}}}))
        trainer = Trainer(
            accelerator="cpu", devices=devices, strategy=strategy, max_steps=1,
            limit_val_batches=0, num_sanity_val_steps=0, use_distributed_sampler=False, callbacks=[record],
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model.double().eval(), data)
    return record.found


def command(verb: str, root: str, options: dict[str, Any]) -> int:
    """The exit code of `riszoo VERB` with a small model, RISAM unless another is named, whose runs are in `root`."""
    if "ckpt_path" not in options:
        options = {"model": "risam", **options}
    words = {
        **{"config": json.dumps({"data": OVER["data"]}), "model.size": 64, "model.optim.ema": 0.0},
        **{"data.batch_size": TOTAL, "data.val_images": 2, "data.test_images": 2},
        **{"trainer.val_check_interval": 1, "trainer.accelerator": "cpu", "trainer.enable_progress_bar": "false"},
        **{"run.root": root, "run.images": 0, **options},
    }
    with few_images():
        return main([verb, *(word for name, value in words.items() for word in (f"--{name}", str(value)))])
