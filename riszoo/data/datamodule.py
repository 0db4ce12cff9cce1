"""The data module of every data set: which sentences make up a batch, in which order, on which process."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from riszoo.batch import Batch, GeometryKind, View
from riszoo.data.augment import Augment
from riszoo.data.controls import Control, parse_controls
from riszoo.data.dataset import RISDataset, collate
from riszoo.data.features import FeatureCache, FeatureType, check_frozen, fill_cache
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.record import Split
from riszoo.data.samplers import EvalBatchSampler, StepPlan, TrainBatchSampler
from riszoo.errors import UserError


class RISData(LightningDataModule, ABC):
    """Images with their sentences; each data set is a subclass that opens its splits.

    Args:
        size, geometry: the network's frame and how images are fitted into it (linked from the model)
        batch_size: sentences a device processes at once, at most
        total_batch_size: sentences in one optimiser step, over all devices (left out: batch_size times devices)
        sentences_per_image: sentences of one image in a training batch, repeated where it has fewer
        epoch: one pass over every target (a sentence drawn for each), or over every sentence
        eval_images: images a device evaluates at once
        grouped: evaluate all sentences of an image together
        workers: loading processes for each device
        seed: of the training order; left out, the seed of `riszoo fit`, and 0 without it
        train_split, val_split: what `fit` uses
        val_images: how many images validations during training use; left out, all
        test_splits: what `test` and `predict` use
        test_images: how many images of a split `validate`, `test` and `predict` use; left out, all
        control: `none`, `shuffled` (each image with another image's sentence), `blank`, `constant` and `exchanged`
            (the decoder's keys and values are zero, or another sentence's; for models that have them), or several
        augment: changes to training images that keep their sentences true; left out, none
        cache_features: store the features of a frozen backbone, as returned (`float32`) or rounded (`bf16`)
        cache_dir: the folder for them; left out, riszoo/features in the user's cache
    """

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 480,
        geometry: GeometryKind = "squeeze",
        batch_size: int = 32,
        total_batch_size: int | None = None,
        sentences_per_image: int = 1,
        epoch: Literal["targets", "sentences"] = "targets",
        eval_images: int = 16,
        grouped: bool = True,
        workers: int = 1,
        seed: int | None = None,
        train_split: str = "train",
        val_split: str = "val",
        val_images: int | None = None,
        test_splits: list[str] = ["val"],  # noqa: B006 - read only
        test_images: int | None = None,
        control: str = "none",
        augment: Augment | None = None,
        cache_features: FeatureType | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.frame = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.geometry: GeometryKind = geometry
        self.batch_size, self.total_batch_size = batch_size, total_batch_size
        self.sentences_per_image, self.epoch = sentences_per_image, epoch
        self.eval_images, self.grouped, self.workers, self.seed = eval_images, grouped, workers, seed
        self.train_split, self.val_split, self.val_images = train_split, val_split, val_images
        self.test_splits, self.test_images = list(dict.fromkeys(test_splits)), test_images
        for name, most in (("val_images", val_images), ("test_images", test_images)):
            if most is not None and most < 1:
                raise UserError(f"--data.{name} {most}: give at least 1, or leave it out for all")
        self.controls = parse_controls(control)
        if "exchanged" in self.controls and not grouped:
            raise UserError("--control exchanged needs all sentences of an image together: set data.grouped to true")
        self.augment = augment if augment is not None and augment.active else None
        self.cache_features, self.cache_dir = cache_features, cache_dir
        if cache_features is not None and self.augment is not None:
            raise UserError(
                "--data.cache_features stores each image's features once, and --data.augment changes images in every "
                "epoch: leave one of them out"
            )
        self._cache: FeatureCache | None = None
        self._stage = "fit"
        self.ground_truths: list[GroundTruth] = [GroundTruth()]
        self.views: Sequence[View] = ()
        self.suites: list[tuple[RISDataset, Control]] = []
        self._splits: dict[str, Split] = {}

    leakage_filter: ClassVar[bool] = False
    """Whether training leaves out the images that evaluation splits of other sets use."""

    @abstractmethod
    def load_split(self, split: str) -> Split:
        """One split of the set; an unknown name is a UserError that lists the splits."""

    def split(self, name: str) -> Split:
        """As `load_split`, opened once."""
        if name not in self._splits:
            self._splits[name] = self.load_split(name)
        return self._splits[name]

    def words(self) -> Iterable[str]:
        """The sentences that a word vocabulary is built from."""
        return self.split(self.train_split).texts()

    # -- one optimiser step over all devices -------------------------------------------------------------------------

    @property
    def step_plan(self) -> StepPlan:
        return StepPlan.of(self.total_batch_size, self.batch_size, self.sentences_per_image, self._world)

    @property
    def device_batch(self) -> int:
        """Sentences a device processes at once."""
        return self.step_plan.sentences

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    def setup(self, stage: str) -> None:
        """Opens the splits, so that missing files are reported before training; sets gradient accumulation."""
        self._stage, self._cache = stage, None
        if self.cache_features is not None and self.trainer is not None:
            check_frozen(self.trainer.lightning_module)  # type: ignore[arg-type]
        for name in self._splits_of(stage):
            self.split(name)
        if stage == "fit" and self.trainer is not None:
            self._set_accumulation(self.trainer)

    def _set_accumulation(self, trainer: Trainer) -> None:
        """So many batches on each device make a step of the whole batch size."""
        plan = self.step_plan
        if trainer.accumulate_grad_batches not in (1, plan.accumulate):
            raise UserError(
                f"--trainer.accumulate_grad_batches {trainer.accumulate_grad_batches}: leave it out, and give "
                f"--data.total_batch_size {plan.total} for a step and --data.batch_size for what a device takes at once"
            )
        trainer.accumulate_grad_batches = plan.accumulate
        if isinstance(trainer.val_check_interval, int):  # Lightning counts batches, the option steps
            trainer.val_check_interval *= plan.accumulate

    def _splits_of(self, stage: str) -> list[str]:
        if stage in ("test", "predict"):
            return self.test_splits
        return [self.train_split, self.val_split] if stage == "fit" else [self.val_split]

    # -- feature cache ------------------------------------------------------------------------------------------------

    @property
    def cache(self) -> FeatureCache | None:
        """Filled when the first loader is created: the model is then on its device, with its final weights."""
        if self._cache is None and self.cache_features is not None and self.trainer is not None:
            self._cache = fill_cache(
                self.trainer, self._images_of_run(), self.cache_features, self.cache_dir, self.eval_images, self.workers
            )
        return self._cache

    def _images_of_run(self) -> dict[str, tuple[Split, int]]:
        """Every image that the run uses, by version. A training ends with a validation on the whole split."""
        limits = dict.fromkeys(self._splits_of(self._stage), self.test_images)
        if self._stage == "fit":
            some = [limit for limit in (self.test_images, self.val_images) if limit is not None]
            limits |= {self.val_split: max(some) if len(some) == 2 else None, self.train_split: None}
        return {
            self.split(name).image_version(image): (self.split(name), image)
            for name, limit in limits.items()
            for image in np.unique(self.split(name).sentence_image)[:limit].tolist()
        }

    # -- loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        split = self.split(self.train_split)
        order = TrainBatchSampler(split, self.step_plan, self.epoch, self.seed or 0, self._rank, self._world)
        if len(order) == 0:
            raise UserError(
                f"split '{split.name}' of {split.dataset} is smaller than one batch of {self.step_plan.total} "
                "sentences: lower --data.total_batch_size or --data.batch_size"
            )
        if self.trainer is not None:
            order.resume(self.trainer.global_step, limited(len(order), self.trainer.limit_train_batches))
        inputs: dict[str, Any] = {"augment": self.augment, "cache": self.cache, "views": self.views}
        return self._loader(RISDataset(split, self.frame, self.geometry, masks=True, **inputs), order)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        training = self.trainer is not None and self.trainer.state.fn == "fit"
        controls: list[Control] = ["none"] if training else self.controls
        limit = self.val_images if training else self.test_images
        return self._eval_loaders([self.val_split], controls, limit)

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        return self._eval_loaders(self.test_splits, self.controls, self.test_images)

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        return self._eval_loaders(self.test_splits, self.controls[:1], self.test_images)

    def _eval_loaders(self, splits: list[str], controls: list[Control], limit: int | None) -> list[DataLoader[Batch]]:
        dataset = partial(
            RISDataset,
            frame=self.frame,
            geometry=self.geometry,
            ground_truths=self.ground_truths,
            cache=self.cache,
            views=self.views,
        )
        self.suites = [(dataset(self.split(name), name=name, control=c), c) for name in splits for c in controls]
        return [
            self._loader(
                dataset,
                EvalBatchSampler(dataset.split, self.eval_images, self.grouped, self._rank, self._world, limit),
            )
            for dataset, _ in self.suites
        ]

    def _loader(self, dataset: RISDataset, batches: Any) -> DataLoader[Batch]:
        return DataLoader(
            dataset,  # type: ignore[arg-type]  # examples become a batch in collate
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            worker_init_fn=ignore_signals,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0 and isinstance(batches, TrainBatchSampler),
        )


def limited(batches: int, limit: int | float) -> int:
    """The batches of an epoch under --trainer.limit_train_batches, a number or a share, as Lightning counts them."""
    return max(1, min(batches, limit) if isinstance(limit, int) else int(batches * limit))


def ignore_signals(_worker: int) -> None:
    """Leave signals to the main process; called in each loading process, which ends with it."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)


@atexit.register
def end_loading_processes() -> None:
    """End the loading processes that are left at exit; multiprocessing would wait for ever after a SIGTERM to them."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
