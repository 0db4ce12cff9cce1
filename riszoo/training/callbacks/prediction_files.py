"""The files of `predict`: a PNG for each sentence, and all masks of a split as run-length codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from riszoo.batch import Batch
from riszoo.errors import UserError
from riszoo.files import file_names, write_atomically
from riszoo.inference.predictions import predictions, write_prediction
from riszoo.model import RISModule
from riszoo.training import runs


class PredictionWriter(Callback):
    """Writes each mask as a PNG file named by its sentence's id, and all masks of a split as one JSON file of RLEs.

    The file names are safe forms of the ids (`riszoo.files.file_names`); the JSON file gives both.
    """

    def __init__(self, run_folder: Path, data: str) -> None:
        self.run_folder, self.stem = run_folder, f"predict-{data}"
        self.folder = run_folder
        self.labels: list[str] = []  # of each split: the name of its folder and its JSON file
        self.names: list[list[str]] = []  # of each split: the file name of every sentence
        self.entries: dict[str, dict[int, dict[str, Any]]] = {}  # by label and index in the split

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Report several protocols or controls, of which there is no one mask."""
        assert isinstance(pl_module, RISModule)
        several = {"protocol": pl_module.protocols, "control": trainer.datamodule.controls}  # type: ignore[attr-defined]
        for name, chosen in several.items():
            if len(chosen) > 1:
                raise UserError(f"--{name} names {len(chosen)}, and predict writes one mask a sentence: give one")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create one folder for all processes, and choose the names of all files."""
        created = str(runs.create(self.run_folder, self.stem)) if trainer.is_global_zero else ""
        self.folder = Path(trainer.strategy.broadcast(created))
        splits = [dataset.split for dataset, _ in trainer.datamodule.suites]  # type: ignore[attr-defined]
        alike = len({split.name for split in splits}) < len(splits)
        self.labels = file_names([f"{s.dataset}-{s.name}" if alike else s.name for s in splits])
        self.names = [file_names(split.sentence_ids()) for split in splits]
        self.entries = {label: {} for label in self.labels}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        assert isinstance(pl_module, RISModule)
        label, names = self.labels[dataloader_idx], self.names[dataloader_idx]
        found = predictions(outputs, batch, pl_module.protocols[0])
        for sample, prediction in zip(batch.samples, found, strict=True):
            path = self.folder / label / f"{names[sample.index]}.png"
            self.entries[label][sample.index] = write_prediction(path, prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for label, entries in self._gathered(trainer):
            write_atomically(self.folder / f"{label}.json", json.dumps(entries))
            print(f"{len(entries)} masks: {self.folder / label} and {self.folder / label}.json")

    def _gathered(self, trainer: Trainer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Each split with the entries of all processes in the split's order; nothing except on rank 0."""
        parts: list[Any] = [self.entries]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self.entries)
        for label in self.labels if trainer.is_global_zero else []:
            entries = {index: entry for part in parts for index, entry in part[label].items()}
            yield label, [entries[index] for index in sorted(entries)]
