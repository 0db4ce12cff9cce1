"""What a run leaves behind: its card, the results of every evaluation, images, predictions."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from riszoo.batch import Batch, Output
from riszoo.cli.request import Request
from riszoo.data.datamodule import RISData
from riszoo.files import file_hash, write_atomically
from riszoo.inference.drawing import save
from riszoo.inference.panels import panels
from riszoo.inference.predictions import predictions, write_predictions
from riszoo.metrics.console import render
from riszoo.metrics.results import Evaluation, write_results
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.provenance import circumstances, image_hashes


class Progress(TQDMProgressBar):
    """Lightning's bar without the version number; rarely refreshed where nobody watches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10 if sys.stderr.isatty() else 100)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in shown.items() if name != "v_num"}


class Recorder(Callback):
    """Writes the run's card, and for each evaluation its metrics, circumstances, sentences and a few images.

    During training nothing is written but the card: only whole evaluations leave results.
    """

    def __init__(self, folder: Path, request: Request, run: dict[str, Any]) -> None:
        self.folder, self.request, self.run = folder, request, run
        self.started = time.time()
        self.trained_on = np.zeros(0, dtype=np.int64)
        self.training: dict[str, Any] = {}  # what the checkpoint in play was trained with
        self.drawn: list[Any] = []

    # -- training -----------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = _data(trainer)
        split = data.split(data.train_split)
        self.trained_on = np.union1d(self.trained_on, image_hashes(split.image_keys()))
        self.training = {"train_sets": f"{split.dataset}/{split.name}", "leakage_filter": data.leakage_filter}
        if data.cache_features is not None:
            self.training["trained_on_cache_features"] = data.cache_features
        self._write_card(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        share = _data(trainer).share
        self._write_card(
            trainer,
            training={
                "seconds": round(time.time() - self.started, 1),
                "steps": trainer.global_step,
                "sentences": trainer.global_step * share.total,
                "total_batch_size": share.total,
            },
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        kept = {"trained_on": torch.from_numpy(self.trained_on), "training": self.training}
        checkpoint.setdefault("riszoo", {}).update(kept)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint.get("riszoo", {})
        if "trained_on" in kept:
            self.trained_on = np.union1d(self.trained_on, kept["trained_on"].numpy())
        self.training = kept.get("training", self.training)

    def _write_card(self, trainer: Trainer, **more: Any) -> None:
        if trainer.is_global_zero:
            card = {
                **self.run,
                "verb": self.request.verb,
                "command": f"riszoo {self.request.verb} {self.request.command}",
                "started": self.started,
                "seed": torch.initial_seed(),
                "devices": trainer.world_size,
                **circumstances(trainer.strategy.root_device),
                **_kept_features(trainer),
                **more,
            }
            write_atomically(self.folder / runs.CARD, json.dumps(card, indent=2) + "\n")

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if trainer.state.fn != "fit" and batch_idx == 0 and isinstance(outputs, Output) and trainer.is_global_zero:
            most = min(int(self.run["images"]) - len(self.drawn), 4)
            if most > 0:
                questions, _ = _data(trainer).suites[dataloader_idx]
                self.drawn += panels(_module(pl_module), questions.decoded(batch, most), outputs, most)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._write_results(trainer, _module(pl_module), "validate")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_results(trainer, _module(pl_module), "test")

    def _write_results(self, trainer: Trainer, model: RISModule, verb: str) -> None:
        results: dict[str, Evaluation] = {}
        for suite, (questions, control) in zip(model.suites, _data(trainer).suites, strict=True):
            with suite.sync_context():  # every process meets here; one writes
                rows = suite.rows()
            if trainer.is_global_zero:
                name = questions.split.name + ("" if control == "none" else f"-{control}")
                facts = {**questions.split.describe(), "control": control}
                results[name] = Evaluation(rows, questions.samples(rows.index.tolist()), facts)
        if not trainer.is_global_zero:
            return
        folder = runs.create(self.folder, f"{verb}-{self.run['data']}")
        metrics = write_results(folder, results, self._circumstances(trainer, model))
        for place, drawn in enumerate(self.drawn):
            save(drawn, folder / "images" / f"{place:02d}.png")
        self.drawn = []
        print(render(metrics))
        print(language_gaps(metrics))
        print(f"results: {folder}")

    def _circumstances(self, trainer: Trainer, model: RISModule) -> dict[str, Any]:
        path = Path(str(trainer.ckpt_path)) if trainer.ckpt_path else None
        splits = {questions.split.name: questions.split for questions, _ in _data(trainer).suites}
        return {
            **circumstances(trainer.strategy.root_device),
            "command": f"riszoo {self.request.verb} {self.request.command}",
            "checkpoint": None if path is None else {"path": str(path), "sha256": file_hash(path)},
            "data": {name: split.fingerprint() for name, split in splits.items()},
            "images_trained_on": {
                name: int(np.isin(image_hashes(split.image_keys()), self.trained_on).sum())
                for name, split in splits.items()
            },
            "geometry": model.geometry,
            "size": list(model.size),
            "interpolation": "bilinear, antialiased",
            "token_limit": model.hparams["text"]["length"],
            "text_field": next(iter(splits.values())).describe().get("text", "as rendered"),
            "post_processing": "none",
            **_kept_features(trainer),
            **self.training,
            "precision": str(trainer.precision),
            "devices": trainer.world_size,
            "seed": torch.initial_seed(),
            "seconds": round(time.time() - self.started, 1),
        }


def language_gaps(metrics: Mapping[str, Any]) -> str:
    """mIoU less mIoU with shuffled sentences, for each split where both were measured."""
    lines = []
    for name, split in metrics["splits"].items():
        control = metrics["splits"].get(f"{name}-shuffled")
        if control is not None:
            (plain, shuffled) = (next(iter(s["protocols"].values()))["values"]["mIoU"] for s in (split, control))
            lines.append(f"language gap on {name}: {plain - shuffled:.2f} (mIoU less mIoU with shuffled sentences)")
    return "\n".join(lines)


class PredictionWriter(Callback):
    """Masks as PNG files named by sentence, and all of them as one RLE file."""

    def __init__(self, folder: Path, data: str) -> None:
        self.run_folder, self.stem = folder, f"predict-{data}"
        self.folder = folder
        self.written: dict[str, list[dict[str, Any]]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One folder for all processes."""
        made = str(runs.create(self.run_folder, self.stem)) if trainer.is_global_zero else ""
        self.folder = Path(trainer.strategy.broadcast(made))
        self.written = {}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        found = predictions(outputs, batch, _module(pl_module).protocols[0])
        split = batch.samples[0].split
        self.written.setdefault(split, []).extend(write_predictions(self.folder / split, found))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for split, entries in self._gathered(trainer):
            write_atomically(self.folder / f"{split}.json", json.dumps(sorted(entries, key=lambda e: str(e["id"]))))
            print(f"{len(entries)} masks: {self.folder / split} and {self.folder / split}.json")

    def _gathered(self, trainer: Trainer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        shares: list[Any] = [self.written]
        if trainer.world_size > 1:
            shares = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, self.written)
        for split in sorted({name for share in shares for name in share}) if trainer.is_global_zero else []:
            yield split, [entry for share in shares for entry in share.get(split, [])]


def _data(trainer: Trainer) -> RISData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, RISData)
    return data


def _kept_features(trainer: Trainer) -> dict[str, Any]:
    """In which numbers features were read from a cache; nothing where none was used."""
    kind = _data(trainer).cache_features
    return {} if kind is None else {"cache_features": kind}


def _module(module: LightningModule) -> RISModule:
    assert isinstance(module, RISModule)
    return module
