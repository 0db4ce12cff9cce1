"""A loss or gradient that is not finite: caught before it reaches a checkpoint, with a file that reproduces it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from riszoo.batch import Batch
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.model import RISModule

MOST_SKIPPED = 10
"""Steps that are skipped one after the other before the training stops: its weights are then the cause."""

Terms = tuple[list[str], dict[str, Tensor]]
"""The sentence ids of a batch and the loss terms of each sentence."""


class Flag:
    """A truth value computed on a device, copied to the CPU without waiting for it."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.to("cpu", non_blocking=True)
        self.copied: torch.cuda.Event | None = None
        if value.is_cuda:
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record(torch.cuda.current_stream(value.device))

    def __bool__(self) -> bool:
        """The value; waits for the work that was queued before it, and for none that was queued since."""
        if self.copied is not None:
            self.copied.synchronize()
        return bool(self.value)


class Step(NamedTuple):
    """An optimiser step: its number, its batches, and whether its loss and gradient are finite."""

    number: int
    batches: list[Terms]
    finite: Flag


class NonFinite(Callback):
    """Stops after, or skips, an optimiser step whose loss or gradient is not finite.

    To `stop` never waits for the device: the value is read in the next step, and before any checkpoint and the end of
    the training, so that no such step reaches a file. To `skip` reads it before the step and waits for it. The gradient
    is the same in all processes, so all of them decide alike. With float16 the gradient may overflow as part of the
    scaling, and the processes agree on their losses instead.

    Args:
        folder: of the run; receives `nonfinite-step<N>.json`, with several processes one of each whose loss it is
        action: `stop` reports the step as an error, `skip` leaves the weights as they are and goes on
        seed: of the run, for the file
    """

    def __init__(self, folder: Path, action: Literal["stop", "skip"], seed: int) -> None:
        self.folder, self.action, self.seed = folder, action, seed
        self.batches: list[Terms] = []  # of the current optimiser step
        self.unread: Step | None = None
        self.skipped = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where processes do not inherit the name of the run's folder, only the first knows it."""
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.batches.append(([sample.sentence_id for sample in batch.samples], {}))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note the terms of the batch, and read the earlier step's value while the device has work."""
        assert isinstance(pl_module, RISModule)
        self.batches[-1][1].update(pl_module.loss_terms)
        self._read(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        scaled = trainer.precision == "16-mixed"
        values = [value.sum() for _, terms in self.batches for value in terms.values()] if scaled else gradients
        if values:
            finite = torch.nn.utils.get_total_norm(values).isfinite()
            if scaled and trainer.world_size > 1:
                finite = _all_agree(finite)
            self.unread = Step(trainer.global_step, self.batches, Flag(finite))
        self.batches = []
        if self.action == "skip" and not self._read(trainer):
            optimizer.zero_grad(set_to_none=True)  # a parameter without gradient is not updated

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._read(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read(trainer)

    def _read(self, trainer: Trainer) -> bool:
        """Whether the unread step is finite; reports one that is not."""
        step, self.unread = self.unread, None
        if step is None:
            return True
        if step.finite:
            self.skipped = 0
            return True
        self._report(trainer, step)
        return False

    def _report(self, trainer: Trainer, step: Step) -> None:
        """Write the reproducer, then raise UserError or print that the step is skipped."""
        process = f"-process{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"nonfinite-step{step.number}{process}.json"
        bad = [(name, ids, values) for ids, terms in step.batches for name, values in terms.items()]
        bad = [found for found in bad if not found[2].isfinite().all()]
        if trainer.is_global_zero or bad:
            content = {
                "step": step.number,
                "seed": self.seed,
                "process": trainer.global_rank,
                "batches": [
                    {"sentences": ids, "terms": {name: numbers(values) for name, values in terms.items()}}
                    for ids, terms in step.batches
                ],
            }
            write_atomically(path, json.dumps(content, indent=2))
        what = _describe(bad)
        self.skipped += 1
        if self.action == "stop":
            raise UserError(
                f"step {step.number}: {what}; see {path}, lower --model.optim.lr, or go on with --run.nonfinite skip"
            )
        if self.skipped > MOST_SKIPPED:
            raise UserError(f"step {step.number}: {what}, as in the {MOST_SKIPPED} skipped steps before; see {path}")
        print(f"riszoo: skipped step {step.number}: {what}; see {path}")


def numbers(values: Tensor) -> list[float | str]:
    """The values as JSON has them: those that are not finite as text."""
    return [value if math.isfinite(value) else str(value) for value in values.tolist()]


def _all_agree(finite: Tensor) -> Tensor:
    """Whether the value is true in all processes."""
    least = finite.to(torch.int32)
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    return least.bool()


def _describe(bad: list[tuple[str, list[str], Tensor]]) -> str:
    """The first term that is not finite, with some of its sentences."""
    if not bad:
        return "the gradient is not finite although this process's loss is"
    name, ids, values = bad[0]
    found = [sentence for sentence, value in zip(ids, values.tolist(), strict=True) if not abs(value) < float("inf")]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"the loss term '{name}' is not finite for sentence {', '.join(found[:3])}{more}"
