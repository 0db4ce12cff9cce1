"""Lightning callbacks for the progress bar and for the files of `predict`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from riszoo.batch import Batch
from riszoo.files import write_atomically
from riszoo.inference.predictions import predictions, write_predictions
from riszoo.model import RISModule
from riszoo.training import runs


class Progress(TQDMProgressBar):
    """Lightning's progress bar without the version number, refreshed less often outside a terminal."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10 if sys.stderr.isatty() else 100)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class PredictionWriter(Callback):
    """Writes each mask as a PNG file named by its sentence, and all masks of a split as one JSON file of RLEs."""

    def __init__(self, run_folder: Path, data: str) -> None:
        self.run_folder, self.stem = run_folder, f"predict-{data}"
        self.folder = run_folder
        self.entries: dict[str, list[dict[str, Any]]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create one folder for all processes."""
        created = str(runs.create(self.run_folder, self.stem)) if trainer.is_global_zero else ""
        self.folder = Path(trainer.strategy.broadcast(created))
        self.entries = {}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        assert isinstance(pl_module, RISModule)
        split = batch.samples[0].split
        masks = predictions(outputs, batch, pl_module.protocols[0])
        self.entries.setdefault(split, []).extend(write_predictions(self.folder / split, masks))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for split, entries in self._gathered(trainer):
            write_atomically(self.folder / f"{split}.json", json.dumps(sorted(entries, key=lambda e: str(e["id"]))))
            print(f"{len(entries)} masks: {self.folder / split} and {self.folder / split}.json")

    def _gathered(self, trainer: Trainer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Each split with the entries of all processes; nothing except on rank 0."""
        parts: list[Any] = [self.entries]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self.entries)
        for split in sorted({name for part in parts for name in part}) if trainer.is_global_zero else []:
            yield split, [entry for part in parts for entry in part.get(split, [])]
