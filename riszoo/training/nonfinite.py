"""A loss or gradient that is not finite: caught before its optimiser step, with a file that reproduces it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from riszoo.batch import Batch
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.model import RISModule

MOST_SKIPPED = 10
"""Steps that are skipped one after the other before the training stops: its weights are then the cause."""


class NonFinite(Callback):
    """Stops at, or skips, an optimiser step whose loss or gradient is not finite.

    The gradient is the same in all processes, so all of them decide alike. With float16 the gradient may overflow as
    part of the scaling, and only the loss is checked.

    Args:
        folder: of the run; receives `nonfinite-step<N>.json`
        action: `stop` reports the step as an error, `skip` leaves the weights as they are and goes on
    """

    def __init__(self, folder: Path, action: Literal["stop", "skip"] = "stop") -> None:
        self.folder, self.action = folder, action
        self.seed = torch.initial_seed()
        self.batches: list[tuple[list[str], dict[str, Tensor]]] = []  # of the current optimiser step
        self.skipped = 0

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note the terms of the batch, which `on_train_batch_start` has added."""
        assert isinstance(pl_module, RISModule)
        self.batches[-1][1].update(pl_module.loss_terms)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.batches.append(([sample.sentence_id for sample in batch.samples], {}))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        scaled = trainer.precision == "16-mixed"
        values = [value.sum() for _, terms in self.batches for value in terms.values()] if scaled else gradients
        if values and not torch.nn.utils.get_total_norm(values).isfinite():
            self._report(trainer)
            optimizer.zero_grad(set_to_none=True)  # a parameter without gradient is not updated
        else:
            self.skipped = 0
        self.batches.clear()

    def _report(self, trainer: Trainer) -> None:
        """Write the reproducer, then raise UserError or print that the step is skipped."""
        step = trainer.global_step
        path = self.folder / f"nonfinite-step{step}.json"
        bad = [(name, ids, values) for ids, terms in self.batches for name, values in terms.items()]
        bad = [found for found in bad if not found[2].isfinite().all()]
        if trainer.is_global_zero or bad:
            content = {
                "step": step,
                "seed": self.seed,
                "process": trainer.global_rank,
                "batches": [
                    {"sentences": ids, "terms": {name: values.tolist() for name, values in terms.items()}}
                    for ids, terms in self.batches
                ],
            }
            write_atomically(path, json.dumps(content, indent=2))
        what = _describe(bad)
        self.skipped += 1
        if self.action == "stop":
            raise UserError(
                f"step {step}: {what}; see {path}, lower --model.optim.lr, or go on with --run.nonfinite skip"
            )
        if self.skipped > MOST_SKIPPED:
            raise UserError(f"step {step}: {what}, as in the {MOST_SKIPPED} skipped steps before; see {path}")
        print(f"riszoo: skipped step {step}: {what}; see {path}")


def _describe(bad: list[tuple[str, list[str], Tensor]]) -> str:
    """The first term that is not finite, with some of its sentences."""
    if not bad:
        return "the gradient is not finite although this process's loss is"
    name, ids, values = bad[0]
    found = [sentence for sentence, value in zip(ids, values.tolist(), strict=True) if not abs(value) < float("inf")]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"the loss term '{name}' is not finite for sentence {', '.join(found[:3])}{more}"
