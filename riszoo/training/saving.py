"""The callbacks that save `best.ckpt`, and `last.ckpt`, from which an interrupted training continues exactly."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from riszoo.data.samplers import StepPlan
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.recipes import Config
from riszoo.training.interruption import Interrupted, SignalHandler

NOT_COMPARED = ("ckpt_path", "weights_only", "run.root", "model.vision.weights", "model.text.weights")
"""Options that differ by themselves: a checkpoint contains the weights that a training starts from."""

SAVE = 1
"""The decision to save and go on; a decision to stop is the signal's number, which is larger."""


class BestCheckpoint(ModelCheckpoint):
    """Saves `best.ckpt` by val/mIoU; a best checkpoint that a crash of the machine has damaged no longer counts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val/mIoU",
            mode="max",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best so far is that of the run's folder, also where the folder was moved."""
        best = str(Path(str(self.dirpath)) / "best.ckpt")
        if Path(best).is_file():
            own = {"best_model_path": best, "kth_best_model_path": best, "last_model_path": ""}
            scores = {best: state_dict["best_model_score"]} if state_dict["best_k_models"] else {}
            state_dict = {**state_dict, **own, "dirpath": self.dirpath, "best_k_models": scores}
        super().load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.best_model_path and not zipfile.is_zipfile(self.best_model_path):
            self.best_k_models.clear()
            self.best_model_path, self.best_model_score, self.kth_best_model_path = "", None, ""


class LastCheckpoint(Checkpoint):
    """Saves the state of the training every some steps or minutes, before each validation, and after the last step.

    A validation that a checkpoint precedes is repeated when the training continues from it, and a training that ends
    between two validations ends with one. The random numbers of a step depend on the seed, the step and the process
    only, so that a continued training draws the same ones.

    Args:
        path: the checkpoint, which is replaced each time
        steps: optimiser steps between two checkpoints; 0: no limit
        minutes: time between two checkpoints; 0: no limit
        seed: of the run
    """

    def __init__(self, path: Path, steps: int, minutes: float, seed: int) -> None:
        if steps < 0 or not 0 <= minutes < float("inf"):
            option = f"save_steps {steps}" if steps < 0 else f"save_minutes {minutes}"
            raise UserError(f"--run.{option}: give 0 or more, where 0 is no limit")
        self.path, self.steps, self.minutes, self.seed = path, steps, minutes, seed
        self.saved_step, self.saved_time = 0, time.monotonic()
        self.seen_step = 0
        self.validated_step = -1
        self.validation_due = False
        self.plan: StepPlan | None = None
        self.saved_plan: dict[str, int] = {}  # how a step was divided in the training that is continued
        self.signals = SignalHandler()
        self.group: Any = None  # of all processes, on the CPU: waits for no device

    def state_dict(self) -> dict[str, Any]:
        plan = {} if self.plan is None else asdict(self.plan)
        return {"validated_step": self.validated_step, "validation_due": self.validation_due, "plan": plan}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated_step, self.validation_due = state_dict["validated_step"], state_dict["validation_due"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the batches so far as this number of devices would have divided them."""
        self.saved_plan = checkpoint.get("callbacks", {}).get(self.state_key, {}).get("plan", {})
        if self.saved_plan:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            rescale_progress(progress, self.saved_plan["accumulate"], trainer.accumulate_grad_batches)

    # -- training -----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals, and repeat the validation that the loaded checkpoint precedes."""
        self.signals.install()
        if trainer.world_size > 1:
            self.group = torch.distributed.new_group(backend="gloo")
        self.saved_step, self.saved_time = trainer.global_step, time.monotonic()
        self.seen_step = trainer.global_step
        self.plan = trainer.datamodule.step_plan  # type: ignore[attr-defined]
        if trainer.global_step and trainer.is_global_zero:
            change = plan_change(self.saved_plan, self.plan, trainer.world_size)
            print(f"continuing from step {trainer.global_step} of {trainer.estimated_stepping_batches}{change}")
        if self.validation_due:
            _validate(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        position = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        torch.manual_seed(int(np.random.SeedSequence([self.seed, position, trainer.global_rank]).generate_state(1)[0]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.seen_step or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # gradients are still accumulated, or nothing is saved at all
        self.seen_step = trainer.global_step
        self.validation_due = _is_validation_due(trainer)
        due = self.validation_due or _is_last_step(trainer) or self._is_due(trainer)
        signum = self._agreed(self.signals.received or (SAVE if due else 0))
        if signum:
            self.save(trainer)
        if signum > SAVE:
            raise Interrupted(signum)

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether enough steps or minutes have passed. The time differs between processes."""
        steps = self.steps > 0 and trainer.global_step % self.steps == 0
        return steps or (self.minutes > 0 and time.monotonic() - self.saved_time >= 60 * self.minutes)

    def _agreed(self, decision: int) -> int:
        """The largest decision of all processes, so that they save and stop at the same step."""
        if self.group is None:
            return decision
        largest = torch.tensor(decision)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, self.group)
        return int(largest)

    def save(self, trainer: Trainer) -> None:
        """Write the curves so far, then the checkpoint."""
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.path)
        self.saved_step, self.saved_time = trainer.global_step, time.monotonic()

    # -- validation ---------------------------------------------------------------------------------------------------

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop one process within a validation, whose step is saved; several stop after it."""
        if self.signals.received and self._in_training(trainer) and trainer.world_size == 1:
            raise Interrupted(self.signals.received)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._in_training(trainer):
            self.validated_step, self.validation_due = trainer.global_step, False
            signum = self._agreed(self.signals.received)
            if signum:
                raise Interrupted(signum)

    def _in_training(self, trainer: Trainer) -> bool:
        return trainer.state.fn == "fit" and not trainer.sanity_checking

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the final weights, so that every training has a best checkpoint."""
        if trainer.enable_validation and self.validated_step != trainer.global_step:
            _validate(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where no step was left, say so, and make up for a validation that was missing."""
        if self.plan is not None:
            return
        if trainer.is_global_zero:
            print(f"nothing is left to train: step {trainer.global_step} of {trainer.estimated_stepping_batches}")
        if trainer.enable_validation and self.validated_step != trainer.global_step:
            self.signals.install()
            trainer.strategy.model_to_device()  # Lightning has taken it off, as after a training
            _validate(trainer)


def _validate(trainer: Trainer) -> None:
    """Run a whole validation of the training, outside its schedule."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


def _is_validation_due(trainer: Trainer) -> bool:
    """Whether a validation follows the current step."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _is_last_step(trainer: Trainer) -> bool:
    """Whether the training ends with the current step."""
    if trainer.global_step == trainer.max_steps:
        return True
    last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return last_epoch and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


# -- continuing --------------------------------------------------------------------------------------------------------


def rescale_progress(progress: dict[str, Any], before: int, after: int) -> None:
    """Change the counts of Lightning's batches from `before` batches a step to `after`."""
    for counts in (progress["total"], progress["current"]):
        added = counts["ready"] // before * after - counts["ready"]
        counts.update({name: count + added for name, count in counts.items()})


def plan_change(saved: dict[str, int], plan: StepPlan, devices: int) -> str:
    """How a step is divided now, where that differs from the saved training."""
    if not saved or saved == asdict(plan):
        return ""
    if saved["total"] != plan.total:
        return f": a step had {saved['total']} sentences and has {plan.total} now (--data.total_batch_size)"
    division = f"{plan.accumulate} batch(es) of {plan.sentences} on each of {devices} device(s)"
    return f": a step has {plan.total} sentences as before, now {division}"


def changed_options(saved: Config, current: Config) -> str:
    """One line that names the options whose values differ from the saved configuration; empty where none does."""
    before, after = _flat(saved), _flat(current)
    changes = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in after.items()
        if name not in NOT_COMPARED and before.get(name) != value
    ]
    return f"changed from the saved configuration: {', '.join(changes)}" if changes else ""


def _flat(config: Config, prefix: str = "") -> dict[str, Any]:
    """Every option by its name on the command line."""
    options: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".lstrip(".")
        options |= _flat(value, name) if isinstance(value, dict) and value else {name: value}
    return options


def keep_curves(logger: CSVLogger, path: Path, step: int) -> None:
    """Keep the rows of the first `step` steps, which Lightning's logger would delete.

    The validation after the last of these steps is repeated, so its row is left out.
    """
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []
    kept = [row for row in rows if _is_kept(row, step)]
    experiment = logger.experiment  # deletes the file
    if kept:
        experiment.metrics_keys = list(rows[0])
        text = io.StringIO()
        writer = csv.DictWriter(text, experiment.metrics_keys)
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(path, text.getvalue())


def _is_kept(row: dict[str, str], step: int) -> bool:
    """Whether a row belongs to the first `step` steps; a row that a crash has cut off does not."""
    index = row.get("step")
    if not index or int(index) >= step:
        return False
    return int(index) < step - 1 or not row.get("val/mIoU")
