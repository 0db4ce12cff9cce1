"""Weights & Biases and TensorBoard: their loggers, and what a validation shows in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from riszoo.batch import Batch
from riszoo.errors import UserError
from riszoo.inference.predictions import draw_predictions
from riszoo.metrics.results import Evaluation, by_type
from riszoo.model import RISModule
from riszoo.recipes import Config
from riszoo.training.recorder import data_of, model_of
from riszoo.training.saving import BestCheckpoint

BEST = "best/mIoU"
"""The best val/mIoU so far, logged at each validation: its last value is the summary of a run, and a sweep's metric."""


def build_loggers(names: Sequence[str], folder: Path, log_checkpoint: bool) -> list[Logger]:
    """The loggers of a run besides the CSV file; `log_checkpoint` uploads the best checkpoint to wandb."""
    if log_checkpoint and "wandb" not in names:
        raise UserError("--run.log_checkpoint true uploads to wandb: add --logger wandb")
    loggers: list[Logger] = []
    if "wandb" in names:
        continued = _run_id(folder)
        loggers.append(
            WandbLogger(
                project="riszoo", name=folder.name, save_dir=str(folder), id=continued, log_model=log_checkpoint
            )
        )
    if "tensorboard" in names:
        loggers.append(TensorBoardLogger(str(folder), name="", version="tensorboard"))
    return loggers


def _run_id(folder: Path) -> str | None:
    """The id under which wandb has this run already, so that a continued training continues its curves."""
    earlier = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.stat().st_mtime_ns)
    return earlier[-1].name.rsplit("-", 1)[1] if earlier else None


def finish(trainer: Trainer) -> None:
    """End the run in wandb, so that a further training in this process begins another one."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


class Dashboard(Callback):
    """Logs each validation of `fit`: drawings of fixed sentences, mIoU by type of sentence, and the best mIoU so far.

    They go to every logger except the CSV file.

    Args:
        config: what is logged once, beside the model's hyperparameters
        images: how many of the first sentences of the validation split are drawn
    """

    def __init__(self, config: Config, images: int) -> None:
        self.config, self.images = config, images
        self.drawings: list[Image.Image] = []  # of this validation

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in _dashboards(trainer):
            logger.log_hyperparams(self.config)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.drawings = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        count = self.images - len(self.drawings)
        if _is_shown(trainer) and trainer.is_global_zero and dataloader_idx == 0 and count > 0:
            dataset, _ = data_of(trainer).suites[0]
            protocol = model_of(pl_module).protocols[0]
            self.drawings += draw_predictions(outputs, dataset.decoded(batch, count), protocol, count)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _is_shown(trainer):
            return
        values = self._values(trainer, model_of(pl_module))
        step = max(0, trainer.global_step - 1)  # of the last training step, as Lightning logs val/mIoU
        for logger in _dashboards(trainer):
            logger.log_metrics(values, step)
            _log_images(logger, "val/predictions", self.drawings, step)

    def _values(self, trainer: Trainer, model: RISModule) -> dict[str, float]:
        """The mIoU of each type of sentence of the first split, and the best mIoU; empty except on rank 0."""
        (dataset, _), suite, protocol = data_of(trainer).suites[0], model.suites[0], model.protocols[0]
        with suite.sync_context():
            table = suite.sentence_table()
        if not trainer.is_global_zero:
            return {}
        types = by_type(Evaluation(table, dataset.samples(table.index.tolist()), {}), protocol)
        scores = {f"val/mIoU/{name}": values["mIoU"] for name, values in types.items() if name}
        found = {name: score for name, score in scores.items() if score is not None}
        return {**found, BEST: _best(trainer)}


def _best(trainer: Trainer) -> float:
    """The best val/mIoU, this validation's included; a continued training counts those before it."""
    current = float(trainer.callback_metrics["val/mIoU"])
    scores = [each.best_model_score for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)]
    return max([current, *(float(score) for score in scores if score is not None)])


def _log_images(logger: Logger, name: str, images: Sequence[Image.Image], step: int) -> None:
    if isinstance(logger, WandbLogger) and images:
        logger.log_image(name, list(images), step)
    if isinstance(logger, TensorBoardLogger):
        writer: Any = logger.experiment  # its methods have no types
        for index, image in enumerate(images):
            writer.add_image(f"{name}/{index}", np.asarray(image), step, dataformats="HWC")


def _dashboards(trainer: Trainer) -> list[Logger]:
    return [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]


def _is_shown(trainer: Trainer) -> bool:
    """Whether this is a validation of `fit` with a logger that shows it."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking and bool(_dashboards(trainer))
