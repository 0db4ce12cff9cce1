"""Training over several epochs, and from a checkpoint on: every epoch in an order of its own, no batch twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from riszoo.batch import Batch
from riszoo.data.scenes import split as scenes
from riszoo.data.sets import Scenes
from riszoo.training.optim import training_steps
from riszoo.training.saving import LastCheckpoint
from tests.support.two_processes import two_processes

EPOCHS, BATCHES = 3, 5
HOOKS = ("on_train_batch_end", "on_validation_end", "on_train_epoch_end")


class Listener(LightningModule):
    """Notes what it is asked, and learns next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.asked = nn.Parameter(torch.zeros(1)), []  # type: ignore[var-annotated]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.asked.append([sample.sentence_id for sample in batch.samples])
        return self.weight.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        return

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert training_steps(self.trainer) > 0
        return torch.optim.SGD(self.parameters(), 0.1)


class Saver(Callback):
    """A checkpoint at every hook that one may be saved at, named by the hook and the steps so far."""

    def __init__(self, folder: Path) -> None:
        for hook in HOOKS:
            setattr(self, hook, lambda trainer, *_, name=hook: trainer.save_checkpoint(
                folder / f"{name}-{trainer.global_step}.ckpt"))  # fmt: skip


FEW_IMAGES = {"train": scenes.ScenePlan(4 * BATCHES, 2), "val": scenes.ScenePlan(2, 2)}


def fit(
    *callbacks: Callback, checkpoint: Path | None = None, workers: int = 0, batch_size: int = 8, **options: Any
) -> list[list[str]]:
    model = Listener()
    batches = {"batch_size": batch_size, "total_batch_size": 8, "sentences_per_image": 2}
    data = Scenes(image_size=64, size=64, workers=workers, seed=3, **batches)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, **options}
    trainer = Trainer(
        accelerator="cpu", max_epochs=EPOCHS, callbacks=list(callbacks), num_sanity_val_steps=0,
        use_distributed_sampler=False, **quiet,
    )  # fmt: skip
    with patch.dict(scenes.PLANS, FEW_IMAGES):
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    asked: list[list[str]] = model.asked
    return asked


@pytest.mark.parametrize("workers", [0, 1])
def test_every_epoch_has_an_order_of_its_own(workers: int) -> None:
    """Lightning tells an epoch to samplers alone: an order it did not find once stayed the first epoch's for ever."""
    asked = fit(workers=workers)
    epochs = [asked[start : start + BATCHES] for start in range(0, len(asked), BATCHES)]
    assert len(epochs) == EPOCHS
    everything = {sentence for batch in epochs[0] for sentence in batch}
    for epoch in epochs:
        assert {sentence for batch in epoch for sentence in batch} == everything
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("often", [3, BATCHES, 1.0])
def test_a_training_goes_on_with_the_batches_that_were_to_come(often: float, tmp_path: Path) -> None:
    whole = fit(Saver(tmp_path), val_check_interval=often)
    assert len(whole) == EPOCHS * BATCHES
    saved = sorted(tmp_path.glob("*.ckpt"))
    assert {path.name.partition("-")[0] for path in saved} == set(HOOKS)
    for path in saved:
        steps = int(path.stem.partition("-")[2])
        if steps in (2, 3, BATCHES, BATCHES + 3, 2 * BATCHES):
            assert fit(checkpoint=path, val_check_interval=often) == whole[steps:], path.name


@pytest.mark.parametrize("limit", [3, 0.7])
def test_a_training_over_a_part_of_each_epoch_goes_on_where_it_was(limit: int | float, tmp_path: Path) -> None:
    whole = fit(Saver(tmp_path), limit_train_batches=limit)
    assert len(whole) == EPOCHS * 3
    for steps in (2, 3, 4, 6, 8):
        again = fit(checkpoint=tmp_path / f"on_train_batch_end-{steps}.ckpt", limit_train_batches=limit)
        assert again == whole[steps:], steps


def test_loading_processes_change_nothing_of_that(tmp_path: Path) -> None:
    whole = fit(Saver(tmp_path))
    for steps in (BATCHES, BATCHES + 3):
        again = fit(checkpoint=tmp_path / f"on_train_batch_end-{steps}.ckpt", workers=1)
        assert again == whole[steps:]


def fit_saved(last: Path, devices: int, steps: int) -> list[list[str]]:
    """The sentences of this process in batches of at most four, from the last checkpoint on where there is one."""
    return fit(
        LastCheckpoint(last, steps=0, minutes=0, seed=0), checkpoint=last if last.is_file() else None, batch_size=4,
        devices=devices, strategy="ddp" if devices > 1 else "auto", max_steps=steps, limit_val_batches=0,
        enable_checkpointing=True,
    )  # fmt: skip


def test_the_steps_of_a_training_are_the_same_when_the_number_of_devices_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two batches a step on one device, then one on each of two, then two on one again, within and between epochs."""
    last = tmp_path / "last.ckpt"
    first = fit_saved(last, devices=1, steps=BATCHES + 2)
    with two_processes([fit_saved.__module__]) as both:
        second = both(fit_saved, last, 2, 2 * BATCHES)
    third = fit_saved(last, devices=1, steps=EPOCHS * BATCHES)
    halves = [*zip(first[::2], first[1::2], strict=True), *zip(*second, strict=True)]
    halves += zip(third[::2], third[1::2], strict=True)
    assert [set(one + other) for one, other in halves] == [set(step) for step in fit()]
    assert (
        f"continuing from step {2 * BATCHES} of {EPOCHS * BATCHES}: a step has 8 sentences as before, now 2 batch(es)"
        in (capsys.readouterr().out)
    )
