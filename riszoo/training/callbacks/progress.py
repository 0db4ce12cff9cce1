"""Progress as a bar on a terminal, and as lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

BAR_SECONDS, LINE_SECONDS = 1.0, 30.0
"""Time between two updates of the bar, and between two lines."""


def progress() -> ProgressBar:
    """A bar on a terminal; lines where the output goes to a file or another program."""
    return Bar() if sys.stdout.isatty() and sys.stderr.isatty() else Lines()


class Bar(TQDMProgressBar):
    """Lightning's progress bar without the version number, updated by time: after the first step, then every second."""

    def __init__(self) -> None:
        super().__init__()
        self.updated = 0.0

    def _should_update(self, current: int, total: int) -> bool:
        due = current in (1, total) or time.monotonic() - self.updated >= BAR_SECONDS
        if due:
            self.updated = time.monotonic()
        return self.is_enabled and due

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class Lines(ProgressBar):
    """Lines on stderr: after the first step or batch, then every 30 seconds, and after each validation."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.printed = 0.0  # when the last line was
        self.started = 0.0  # the training, later its first step's end
        self.first_step = self.last_step = 0

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        """Print nothing; Lightning calls this in all processes except the first."""
        self.enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.monotonic()
        self.first_step = self.last_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step == self.last_step:  # gradients are still accumulated
            return
        self.last_step = step
        done, seconds = step - self.first_step, time.monotonic() - self.started
        if done == 1:
            self._print(f"{_position(trainer)}: {self._values(trainer, 'loss')}{seconds:.1f} s for the first step")
            self.started = self.printed
        elif self._is_due():
            pace = seconds / (done - 1)
            left = (trainer.estimated_stepping_batches - step) * pace / 60
            estimate = f", about {left:.0f} min left" if left < float("inf") else ""
            self._print(f"{_position(trainer)}: {self._values(trainer, 'loss')}{pace:.2g} s a step{estimate}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = self._values(trainer, "val/").rstrip(", ")
        if trainer.state.fn == "fit" and not trainer.sanity_checking and values:
            self._print(f"{_position(trainer)}: {values}")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._count(trainer, "validation", trainer.num_val_batches, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._count(trainer, "test", trainer.num_test_batches, batch_idx, dataloader_idx)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._count(trainer, "predict", trainer.num_predict_batches, batch_idx, dataloader_idx)

    def _count(self, trainer: Trainer, what: str, sizes: Sequence[float], batch_idx: int, dataloader_idx: int) -> None:
        """Print how many batches of all data loaders are done, if a line is due."""
        done = int(sum(sizes[:dataloader_idx])) + batch_idx + 1
        if (done == 1 and trainer.state.fn != "fit") or self._is_due():
            self._print(f"{what}: batch {done:,} of {sum(sizes):,}")

    def _values(self, trainer: Trainer, prefix: str) -> str:
        """The logged values whose names start with the prefix, each followed by a comma."""
        values = self.get_metrics(trainer, trainer.lightning_module)
        return "".join(f"{name} {value:.4g}, " for name, value in values.items() if name.startswith(prefix))

    def _is_due(self) -> bool:
        return time.monotonic() - self.printed >= LINE_SECONDS

    def _print(self, text: str) -> None:
        self.printed = time.monotonic()
        if self.enabled:
            print(text, file=sys.stderr, flush=True)


def _position(trainer: Trainer) -> str:
    """The number of optimiser steps so far, of how many."""
    total = trainer.estimated_stepping_batches
    return f"step {trainer.global_step:,}" + (f" of {total:,}" if total < float("inf") else "")
