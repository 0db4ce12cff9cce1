"""The data module that every set shares: which questions are asked, in which order, on which process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from riszoo.batch import Batch, GeometryKind
from riszoo.data.augment import Augment
from riszoo.data.controls import Control, parse_controls
from riszoo.data.dataset import RISDataset, collate
from riszoo.data.features import FeatureCache, Kind
from riszoo.data.masks import GroundTruth
from riszoo.data.record import Split
from riszoo.data.samplers import EvalBatchSampler, StepPlan, TrainBatchSampler
from riszoo.errors import UserError


class RISData(LightningDataModule, ABC):
    """Images and the sentences asked about them; a set is a subclass that opens its splits.

    Args:
        size, geometry: the network's frame and how an image comes into it (linked from the model)
        batch_size: sentences a device takes at once, at most
        total_batch_size: sentences in one optimiser step, over all devices (left out: batch_size times devices)
        sentences_per_image: sentences asked about one image in training, cycled where it has fewer
        epoch: one pass over every target (a sentence drawn for each), or over every sentence
        eval_images: images a device evaluates at once
        grouped: in evaluation, ask all sentences of an image together
        workers: loading processes a device
        seed: of the training order; left out, the run's seed
        train_split, val_split: what `fit` uses
        val_images: how many images the validations during training see; left out, all
        test_splits: what `test` and `predict` use
        test_images: how many images of a split `validate`, `test` and `predict` see; left out, all
        control: `none`, `shuffled` (each image asked another image's sentence), `blank`, or several with commas
        augment: changes to training images that keep their sentences true; left out, none
        cache_features: keep what a frozen backbone makes of images, as it is (`float32`) or rounded (`bf16`)
        cache_dir: where; left out, riszoo/features in the user's cache
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
        cache_features: Kind | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.frame = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.geometry: GeometryKind = geometry
        self.batch_size, self.total_batch_size = batch_size, total_batch_size
        self.sentences_per_image, self.epoch = sentences_per_image, epoch
        self.eval_images, self.grouped, self.workers, self.seed = eval_images, grouped, workers, seed
        self.train_split, self.val_split, self.val_images = train_split, val_split, val_images
        self.test_splits, self.test_images = test_splits, test_images
        for name, most in (("val_images", val_images), ("test_images", test_images)):
            if most is not None and most < 1:
                raise UserError(f"--data.{name} {most}: give at least 1, or leave it out for all")
        self.controls = parse_controls(control)
        self.augment = augment if augment is not None and augment.active else None
        self.cache_features, self.cache_dir = cache_features, cache_dir
        if cache_features is not None and self.augment is not None:
            raise UserError(
                "--data.augment changes images at every turn, and --data.cache_features keeps one state of each: "
                "leave one of them out"
            )
        self._cache: FeatureCache | None = None
        self._stage = "fit"
        self.ground_truths: list[GroundTruth] = [GroundTruth()]
        self.suites: list[tuple[RISDataset, Control]] = []
        self._open: dict[str, Split] = {}

    leakage_filter: ClassVar[bool] = False
    """Whether training leaves out the images that evaluation splits of other sets use."""

    @abstractmethod
    def load_split(self, split: str) -> Split:
        """One split of the set, or a UserError naming the split and those there are."""

    def split(self, name: str) -> Split:
        """As `open`, once."""
        if name not in self._open:
            self._open[name] = self.load_split(name)
        return self._open[name]

    def words(self) -> Iterable[str]:
        """Sentences that a word vocabulary is made of."""
        return self.split(self.train_split).texts()

    # -- one optimiser step, over the devices at hand -----------------------------------------------------------------

    @property
    def step_plan(self) -> StepPlan:
        return StepPlan.of(self.total_batch_size, self.batch_size, self.sentences_per_image, self._world)

    @property
    def device_batch(self) -> int:
        """Sentences a device takes at once."""
        return self.step_plan.sentences

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    def setup(self, stage: str) -> None:
        """Missing files are told before a model trains; accumulation follows from the devices."""
        self._stage, self._cache = stage, None
        if self.cache_features is not None and self.trainer is not None:
            from riszoo.data.fill import refuse_training

            refuse_training(self.trainer.lightning_module)  # type: ignore[arg-type]
        for name in self._wanted(stage):
            self.split(name)
        if stage == "fit" and self.trainer is not None:
            self.trainer.accumulate_grad_batches = self.step_plan.accumulate

    def _wanted(self, stage: str) -> list[str]:
        if stage in ("test", "predict"):
            return self.test_splits
        return [self.train_split, self.val_split] if stage == "fit" else [self.val_split]

    # -- kept features ------------------------------------------------------------------------------------------------

    @property
    def cache(self) -> FeatureCache | None:
        """Filled when the first loader is made: the model is on its device by then, with the weights it runs with."""
        if self._cache is None and self.cache_features is not None and self.trainer is not None:
            from riszoo.data.fill import filled

            self._cache = filled(self, self.trainer, self._asked_about(self._stage))
        return self._cache

    def _asked_about(self, stage: str) -> list[tuple[Split, int]]:
        """Every image that a run sees; one that trains is validated on the whole split at its end."""
        limits = dict.fromkeys(self._wanted(stage), self.test_images)
        if stage == "fit":
            some = [limit for limit in (self.test_images, self.val_images) if limit is not None]
            limits |= {self.val_split: max(some) if len(some) == 2 else None, self.train_split: None}
        return [
            (self.split(name), image)
            for name, limit in limits.items()
            for image in np.unique(self.split(name).sentence_image)[:limit].tolist()
        ]

    # -- loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        split = self.split(self.train_split)
        seed = torch.initial_seed() % 2**32 if self.seed is None else self.seed
        order = TrainBatchSampler(split, self.step_plan, self.epoch, seed, self._rank, self._world)
        if len(order) == 0:
            raise UserError(
                f"split '{split.name}' of {split.dataset} is smaller than one batch of {self.step_plan.total} "
                "sentences: lower --data.total_batch_size or --data.batch_size"
            )
        if self.trainer is not None:
            order.resume(*_trained(self.trainer))
        asked = RISDataset(split, self.frame, self.geometry, masks=True, augment=self.augment, cache=self.cache)
        return self._loader(asked, order)

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
        asked = partial(
            RISDataset, frame=self.frame, geometry=self.geometry, ground_truths=self.ground_truths, cache=self.cache
        )
        self.suites = [(asked(self.split(name), control=control), control) for name in splits for control in controls]
        return [
            self._loader(
                questions,
                EvalBatchSampler(questions.split, self.eval_images, self.grouped, self._rank, self._world, limit),
            )
            for questions, _ in self.suites
        ]

    def _loader(self, questions: RISDataset, batches: Any) -> DataLoader[Batch]:
        return DataLoader(
            questions,  # type: ignore[arg-type]  # examples become a batch in collate
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0 and isinstance(batches, TrainBatchSampler),
        )


def _trained(trainer: Trainer) -> tuple[int, int]:
    """The epoch that a training is in, and how many of its batches are behind it: more than none where it goes on from
    a checkpoint."""
    epoch: Any = trainer.fit_loop.epoch_progress.current
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    between_two = epoch.processed == epoch.started  # the count of batches is still the last epoch's
    return epoch.processed, 0 if between_two else batch.processed
