"""The order of the training sentences depends on the run's seed, not on the state of a random number generator."""

from __future__ import annotations

import pytest
import torch

from riszoo.data.samplers import SampleKey
from riszoo.data.scenes import split as scenes
from riszoo.data.sets import Scenes


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scenes.PLANS, "train", scenes.ScenePlan(8, 2))


def order(seed: int | None = None) -> list[list[SampleKey]]:
    loader = Scenes(image_size=64, batch_size=4, seed=seed).train_dataloader()
    return list(loader.batch_sampler)  # type: ignore[arg-type]


def test_a_loader_that_is_created_again_has_the_same_order() -> None:
    first = order()
    torch.manual_seed(99)
    assert order() == first == order(0)


def test_another_seed_gives_another_order() -> None:
    assert order(1) != order(2)
