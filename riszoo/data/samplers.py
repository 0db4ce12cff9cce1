"""Batch samplers: pure functions of seed, epoch and rank, so that workers draw no random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from riszoo.data.record import Ints, Split
from riszoo.errors import UserError


class SampleKey(NamedTuple):
    """One image of a split and some of its sentences, by index. `seed` is for augmentation, None in evaluation."""

    image: int
    sentences: tuple[int, ...]
    seed: int | None = None


@dataclass(frozen=True)
class StepPlan:
    """How one optimiser step of `total` sentences is divided: each device takes `accumulate` batches of `sentences`."""

    total: int
    sentences: int
    accumulate: int
    per_image: int

    @classmethod
    def of(cls, total: int | None, most: int, per_image: int, world: int) -> StepPlan:
        """The fewest accumulations whose batch fits a device; a total that does not divide raises."""
        total = most * world if total is None else total
        if total % (world * per_image):
            raise UserError(
                f"a total batch of {total} sentences cannot be shared by {world} device(s) with {per_image} "
                "sentence(s) an image: change --data.total_batch_size, --data.sentences_per_image or --trainer.devices"
            )
        images = total // world // per_image
        for accumulate in range(1, images + 1):
            if images % accumulate == 0 and images // accumulate * per_image <= most:
                return cls(total, images // accumulate * per_image, accumulate, per_image)
        raise UserError(
            f"--data.batch_size {most} cannot hold one image with {per_image} sentences: "
            "raise it or lower --data.sentences_per_image"
        )


class TrainBatchSampler(Sampler[list[SampleKey]]):
    """Shuffled batches of exactly k sentences an image; the last partial step is dropped.

    Step t contains the same images on any number of devices. With k = 1 an epoch runs over targets (one sentence drawn
    for each) or over sentences; with k > 1 over images, as many times as it takes to use all sentences of an image.
    """

    def __init__(
        self,
        split: Split,
        plan: StepPlan,
        epoch_of: Literal["targets", "sentences"],
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.plan, self.seed, self.rank, self.world = plan, seed, rank, world
        self.epoch, self.skipped = 0, 0
        self.image_of = split.sentence_image
        groups = self.image_of if plan.per_image > 1 else split.sentence_target
        if plan.per_image == 1 and epoch_of == "sentences":
            groups = np.arange(len(self.image_of), dtype=np.int64)
        self.first, self.count = run_lengths(groups)  # the range of sentences that each unit draws from
        repeats = -(-self.count // plan.per_image) if plan.per_image > 1 else np.ones_like(self.count)
        self.units = np.repeat(np.arange(len(self.count)), repeats)
        self.repeat = np.concatenate([np.arange(n) for n in repeats]) if len(repeats) else self.units

    @property
    def sampler(self) -> TrainBatchSampler:
        """Itself: Lightning calls `set_epoch` on the `sampler` of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.skipped = epoch, 0

    def resume(self, steps: int, batches: int) -> None:
        """Continue after so many optimiser steps, where an epoch takes `batches` of this process's batches.

        An epoch that is cut within a step ends with a step of fewer batches.
        """
        self.epoch, done = divmod(steps, -(-batches // self.plan.accumulate))
        self.skipped = done * self.plan.accumulate

    def __len__(self) -> int:
        """The number of batches of this process, accumulated ones counted separately."""
        return len(self.units) // self._step * self.plan.accumulate

    @property
    def _step(self) -> int:
        return self.plan.total // self.plan.per_image  # images in one optimiser step

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """The batches of the current epoch, which is read at this call."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.units))
        steps = len(order) // self._step
        images = self.plan.sentences // self.plan.per_image
        by_rank = order[: steps * self._step].reshape(steps, self.world, self.plan.accumulate, images)
        epoch, own = self.epoch, by_rank[:, self.rank].reshape(-1, images)[self.skipped :]
        return ([self._key(int(index), epoch) for index in batch] for batch in own)

    def _key(self, index: int, epoch: int) -> SampleKey:
        unit, k = int(self.units[index]), self.plan.per_image
        first, count = int(self.first[unit]), int(self.count[unit])
        rng = np.random.default_rng((self.seed, epoch, unit))
        repeat = int(self.repeat[index])
        chosen = rng.permutation(count)[(repeat * k + np.arange(k)) % count]
        seed = int(rng.integers(1 << 62)) + repeat
        return SampleKey(int(self.image_of[first]), tuple(int(first + c) for c in chosen), seed)


class EvalBatchSampler(Sampler[list[SampleKey]]):
    """Every sentence once: images rank, rank + world, ... with all their sentences together, or one at a time."""

    def __init__(
        self, split: Split, images: int, grouped: bool, rank: int, world: int, limit: int | None = None
    ) -> None:
        first, count = run_lengths(split.sentence_image)
        count = count[:limit]
        self.items = [
            SampleKey(int(split.sentence_image[f]), tuple(range(f, f + c)))
            for f, c in zip(first[rank : len(count) : world].tolist(), count[rank::world].tolist(), strict=True)
        ]
        if not grouped:
            self.items = [SampleKey(item.image, (s,)) for item in self.items for s in item.sentences]
        self.images = images

    def __len__(self) -> int:
        return -(-len(self.items) // self.images)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(0, len(self.items), self.images):
            yield self.items[start : start + self.images]


def run_lengths(groups: Ints) -> tuple[Ints, Ints]:
    """Start and length of each run of equal values."""
    if len(groups) == 0:
        return groups, groups
    starts = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
    lengths = np.diff(np.append(starts, len(groups)))
    return starts.astype(np.int64), lengths.astype(np.int64)
