"""Which questions make up a batch: the same on any number of devices, none repeated, none dropped in evaluation."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from riszoo.data.record import Record, Split
from riszoo.data.samplers import EvalBatchSampler, StepPlan, TrainBatchSampler
from riszoo.errors import UserError


class Toy(Split):
    """Five images with 1, 2, 3, 4 and 5 targets, and two sentences about each target."""

    dataset, name = "toy", "train"

    def __init__(self) -> None:
        self.target_image = np.repeat(np.arange(5), [1, 2, 3, 4, 5])
        self.sentence_target = np.repeat(np.arange(15), 2)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, image: int) -> Record:
        raise AssertionError("an order is made without touching a record")

    def fingerprint(self) -> str:
        return "toy"


@pytest.mark.parametrize(
    ("total", "most", "per_image", "world", "sentences", "accumulate"),
    [(32, 32, 1, 1, 32, 1), (32, 32, 1, 8, 4, 1), (32, 10, 1, 1, 8, 4), (64, 64, 4, 2, 32, 1), (36, 16, 1, 1, 12, 3)],
)
def test_a_step_is_shared(total: int, most: int, per_image: int, world: int, sentences: int, accumulate: int) -> None:
    plan = StepPlan.of(total, most, per_image, world)
    assert (plan.sentences, plan.accumulate) == (sentences, accumulate)
    assert plan.sentences * plan.accumulate * world == total


def test_what_does_not_divide_is_an_error() -> None:
    with pytest.raises(UserError, match="total_batch_size"):
        StepPlan.of(30, 32, 1, 4)
    with pytest.raises(UserError, match="batch_size 2"):
        StepPlan.of(8, 2, 4, 1)
    assert StepPlan.of(None, 4, 1, 3).total == 12


def batches(
    world: int, rank: int, *, total: int = 4, per_image: int = 1, epoch: int = 0, most: int = 4
) -> TrainBatchSampler:
    order = TrainBatchSampler(Toy(), StepPlan.of(total, most, per_image, world), "targets", 7, rank, world)
    order.set_epoch(epoch)
    return order


@pytest.mark.parametrize("per_image", [1, 2])
def test_a_step_contains_the_same_sentences_on_any_number_of_devices(per_image: int) -> None:
    one = list(batches(1, 0, per_image=per_image))
    two = [list(batches(2, rank, per_image=per_image)) for rank in range(2)]
    accumulated = list(batches(1, 0, per_image=per_image, most=2))
    assert len(one) > 1
    for step, batch in enumerate(one):
        assert sorted(batch) == sorted(two[0][step] + two[1][step])
        assert sorted(batch) == sorted(accumulated[2 * step] + accumulated[2 * step + 1])


def test_an_epoch_draws_one_sentence_of_each_target() -> None:
    items = [item for batch in batches(1, 0, total=3, most=3) for item in batch]
    assert sorted(item.sentences[0] // 2 for item in items) == list(range(15))
    again = [item for batch in batches(1, 0, total=3, most=3) for item in batch]
    later = [item for batch in batches(1, 0, total=3, most=3, epoch=1) for item in batch]
    assert items == again
    assert items != later


def test_exactly_k_sentences_a_image_cycled() -> None:
    order = TrainBatchSampler(Toy(), StepPlan.of(4, 4, 4, 1), "targets", 0, 0, 1)
    items = [item for batch in order for item in batch]
    assert all(len(item.sentences) == 4 for item in items)
    counts = {p: sum(item.image == p for item in items) for p in range(5)}
    assert counts == {0: 1, 1: 1, 2: 2, 3: 2, 4: 3}, "as many turns as it takes to ask everything"
    for image, first, count in zip(range(5), (0, 2, 6, 12, 20), (2, 4, 6, 8, 10), strict=True):
        asked = set(chain.from_iterable(item.sentences for item in items if item.image == image))
        assert asked == set(range(first, first + count))


def test_an_epoch_over_sentences() -> None:
    order = TrainBatchSampler(Toy(), StepPlan.of(5, 5, 1, 1), "sentences", 0, 0, 1)
    assert sorted(item.sentences[0] for batch in order for item in batch) == list(range(30))


def test_the_last_partial_step_is_dropped() -> None:
    order = batches(1, 0, total=4)
    assert len(list(order)) == len(order) == 3, "15 targets make three steps of four"


@pytest.mark.parametrize(
    ("steps", "per_epoch", "epoch", "skipped"),
    [(0, 6, 0, 0), (2, 6, 0, 4), (3, 6, 1, 0), (4, 6, 1, 2), (5, 4, 2, 2), (4, 5, 1, 2), (5, 5, 1, 4), (6, 5, 2, 0)],
)
def test_a_training_continues_within_an_epoch_of_fewer_batches(
    steps: int, per_epoch: int, epoch: int, skipped: int
) -> None:
    """Two batches a step; five batches are two whole steps and one of a single batch."""
    order = batches(1, 0, most=2)
    order.resume(steps, per_epoch)
    order.set_epoch(epoch)
    assert list(order) == list(batches(1, 0, most=2, epoch=epoch))[skipped:]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("grouped", [True, False])
def test_evaluation_repeats_and_leaves_out_nothing(world: int, grouped: bool) -> None:
    shards = [EvalBatchSampler(Toy(), 2, grouped, rank, world) for rank in range(world)]
    asked = [s for shard in shards for batch in shard for item in batch for s in item.sentences]
    assert sorted(asked) == list(range(30))
    assert all(len(list(shard)) == len(shard) for shard in shards)
    assert all(len(item.sentences) == 1 or grouped for shard in shards for batch in shard for item in batch)


def test_evaluation_of_the_first_images() -> None:
    items = [item for batch in EvalBatchSampler(Toy(), 4, True, 0, 1, limit=2) for item in batch]
    assert [item.image for item in items] == [0, 1]
