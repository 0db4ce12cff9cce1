"""The callback that writes a run's description (run.json) and the results of its evaluations."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from riszoo.batch import Batch, Output
from riszoo.data.datamodule import RISData
from riszoo.files import file_hash, write_atomically
from riszoo.inference import evidence
from riszoo.inference.drawing import save
from riszoo.inference.predictions import draw_predictions
from riszoo.metrics.console import render
from riszoo.metrics.results import Evaluation, write_results
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.checkpoints import hashes, pretrained_files
from riszoo.training.provenance import circumstances, image_hashes

IMAGES_PER_SPLIT = 4


class Recorder(Callback):
    """Writes run.json, and for each evaluation its metrics, circumstances, sentences and some images.

    The validations within `fit` write nothing. Hashes of the training images travel in the checkpoint, so that a test
    can count the images that its model was trained on.

    Args:
        folder: the run's folder
        verb, options: the command line
        run, data: these sections of the configuration
        seed: of the run
    """

    def __init__(
        self, folder: Path, verb: str, options: str, run: dict[str, Any], data: dict[str, Any], seed: int
    ) -> None:
        self.folder, self.verb, self.run, self.data, self.seed = folder, verb, run, data, seed
        self.command = f"riszoo {verb} {options}"
        self.started = time.time()
        self.earlier_seconds = 0.0  # of the training that is continued, up to its checkpoint
        self.trained_on = np.zeros(0, dtype=np.int64)
        self.training: dict[str, Any] = {}  # how the model's weights were trained
        self.weight_files: dict[str, dict[str, str]] = {}  # what the encoders' weights began with, in the first process
        self.images: list[Image.Image] = []
        self.evidence: dict[str, evidence.EvidenceTable] = {}  # of this process, by split

    # -- training -----------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        split = data.split(data.train_split)
        self.trained_on = np.union1d(self.trained_on, image_hashes(split.image_keys()))
        self.training = {"train_sets": f"{split.dataset}/{split.name}", "leakage_filter": data.leakage_filter}
        if data.cache_features is not None:
            self.training["trained_on_cache_features"] = data.cache_features
        if trainer.is_global_zero:
            self.weight_files = hashes(pretrained_files(pl_module))
        self._write_card(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = data_of(trainer).step_plan.total
        training = {
            "seconds": self._seconds(),
            "steps": trainer.global_step,
            "sentences": trainer.global_step * total,
            "total_batch_size": total,
        }
        self._write_card(trainer, training=training)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        names = {name: str(self.run[name]) for name in ("model", "data", "scale")}
        state = {
            "trained_on": torch.from_numpy(self.trained_on),
            "training": self.training,
            "run": names,
            "seconds": self._seconds(),
        }
        checkpoint.setdefault("riszoo", {}).update(state)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.add_trained_on(checkpoint)
        self.training = checkpoint.get("riszoo", {}).get("training", self.training)
        self.earlier_seconds = float(checkpoint.get("riszoo", {}).get("seconds", 0))

    def _seconds(self) -> float:
        """How long the training has taken, with the parts before it was continued."""
        return round(self.earlier_seconds + time.time() - self.started, 1)

    def add_trained_on(self, checkpoint: dict[str, Any]) -> None:
        """Count the images that a checkpoint was trained on as trained on."""
        hashes = checkpoint.get("riszoo", {}).get("trained_on")
        if hashes is not None:
            self.trained_on = np.union1d(self.trained_on, hashes.numpy())

    def _write_card(self, trainer: Trainer, **training: Any) -> None:
        if not trainer.is_global_zero:
            return
        card = {
            **self.run,
            "verb": self.verb,
            "command": self.command,
            "started": self.started,
            "seed": self.seed,
            "devices": trainer.world_size,
            **circumstances(trainer.strategy.root_device),
            **_feature_cache(trainer),
            **({"pretrained": self.weight_files} if self.weight_files else {}),
            **training,
        }
        write_atomically(self.folder / runs.CARD, json.dumps(card, indent=2) + "\n")

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Measure the evidence, and draw predictions of the first batch of each split."""
        if trainer.state.fn == "fit" or not isinstance(outputs, Output):
            return
        protocol, (dataset, control) = model_of(pl_module).protocols[0], data_of(trainer).suites[dataloader_idx]
        if control == "none":
            self.evidence.setdefault(dataset.name, evidence.EvidenceTable()).update(outputs, batch, protocol)
        count = min(int(self.run["images"]) - len(self.images), IMAGES_PER_SPLIT)
        if batch_idx == 0 and trainer.is_global_zero and count > 0:
            self.images += draw_predictions(outputs, dataset.decoded(batch, count), protocol, count)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._write_results(trainer, model_of(pl_module), "validate")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_results(trainer, model_of(pl_module), "test")

    def _write_results(self, trainer: Trainer, model: RISModule, verb: str) -> None:
        results, measured = self._results(trainer, model), self._evidence(trainer)
        if not trainer.is_global_zero:
            return
        if runs.card(self.folder) is None:
            self._write_card(trainer)  # of a checkpoint outside a run
        folder = runs.create(self.folder, f"{verb}-{self.run['data']}")
        metrics = write_results(folder, results, self._circumstances(trainer, model))
        evidence.write_evidence(folder, measured)
        for index, image in enumerate(self.images):
            save(image, folder / "images" / f"{index:02d}.png")
        self.images = []
        print(render(metrics))
        print("\n".join(filter(None, [control_gaps(metrics), evidence.describe(measured)])))
        print(f"results: {folder}")

    def _results(self, trainer: Trainer, model: RISModule) -> dict[str, Evaluation]:
        """The evaluation of each split and control, gathered from all processes; only rank 0 gets them."""
        results: dict[str, Evaluation] = {}
        for suite, (dataset, control) in zip(model.suites, data_of(trainer).suites, strict=True):
            with suite.sync_context():
                table = suite.sentence_table()
            if trainer.is_global_zero:
                name = dataset.name + ("" if control == "none" else f"-{control}")
                chosen = {**dataset.split.describe(), "control": control}
                results[name] = Evaluation(table, dataset.samples(table.index.tolist()), chosen)
        return results

    def _evidence(self, trainer: Trainer) -> dict[str, Any]:
        """The measures of each split measured with its own sentences, gathered from all processes."""
        parts: list[dict[str, evidence.EvidenceTable] | None] = [self.evidence]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self.evidence)
        self.evidence = {}
        found: dict[str, Any] = {}
        for dataset, control in data_of(trainer).suites if trainer.is_global_zero else []:
            if control == "none":
                table, name = evidence.EvidenceTable(), dataset.name
                table.merge(part[name] for part in parts if part and name in part)
                found[name] = {
                    "evidence": table.summary(),
                    "guess": evidence.appearance_guess(dataset.split, table.values),
                }
        return found

    def _circumstances(self, trainer: Trainer, model: RISModule) -> dict[str, Any]:
        path = Path(str(trainer.ckpt_path)) if trainer.ckpt_path else None
        splits = {dataset.name: dataset.split for dataset, _ in data_of(trainer).suites}
        overlap = {
            name: int(np.isin(image_hashes(split.image_keys()), self.trained_on).sum())
            for name, split in splits.items()
        }
        return {
            **circumstances(trainer.strategy.root_device),
            "command": self.command,
            "checkpoint": None if path is None else {"path": str(path), "sha256": file_hash(path)},
            "data": {name: split.fingerprint() for name, split in splits.items()},
            "data_section": self.data,
            "images_trained_on": overlap,
            "geometry": model.geometry,
            "size": list(model.size),
            "interpolation": "bilinear, antialiased",
            "token_limit": model.hparams["text"]["length"],
            "text_field": next(iter(splits.values())).describe().get("text", "as rendered"),
            "post_processing": "none",
            **_feature_cache(trainer),
            **self.training,
            "precision": str(trainer.precision),
            "devices": trainer.world_size,
            "seed": self.seed,
            "started": self.started,
            "seconds": round(time.time() - self.started, 1),
        }


GAPS = {
    "shuffled": ("language gap", "shuffled sentences"),
    "constant": ("use of keys and values", "constant keys and values in the decoder"),
    "exchanged": ("use of the sentence's own keys and values", "those of another sentence about the image"),
}
"""What the difference to a control is called, and what the control changes."""


def control_gaps(metrics: Mapping[str, Any]) -> str:
    """One line for each split and control that it was also measured under: the difference in mIoU."""
    lines = []
    for name, split in metrics["splits"].items():
        for control, (gap, changed) in GAPS.items():
            if other := metrics["splits"].get(f"{name}-{control}"):
                own, controlled = (next(iter(s["protocols"].values()))["values"]["mIoU"] for s in (split, other))
                if own is not None and controlled is not None:
                    lines.append(f"{gap} on {name}: {own - controlled:.2f} (mIoU minus mIoU with {changed})")
    return "\n".join(lines)


def _feature_cache(trainer: Trainer) -> dict[str, Any]:
    """The number format of cached features, where they are used."""
    kind = data_of(trainer).cache_features
    return {} if kind is None else {"cache_features": kind}


def data_of(trainer: Trainer) -> RISData:
    """The data of a trainer."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, RISData)
    return data


def model_of(module: LightningModule) -> RISModule:
    """The module as a model of riszoo."""
    assert isinstance(module, RISModule)
    return module
