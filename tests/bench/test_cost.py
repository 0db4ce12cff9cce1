"""What a model costs does not depend on the device that it is counted on."""

from __future__ import annotations

import pytest
from torch import nn

from riszoo.bench.cost import build, gflops, skeleton
from riszoo.bench.plan import models_with


@pytest.mark.parametrize("name", ["risam", "lavt"])
def test_info_and_speed_count_the_same_operations(name: str) -> None:
    """`info` counts on the meta device, `speed` on its own, where the CPU counted no fused attention."""
    shapes, model = skeleton(name, "scenes", "tiny"), build(name, "scenes", "tiny")[0]
    assert gflops(model) == gflops(shapes)


@pytest.mark.parametrize("name", models_with("tiny", "scenes"))
def test_every_model_is_counted_and_stays_trainable(name: str) -> None:
    model = skeleton(name, "scenes", "tiny")
    trained = [parameter.requires_grad for parameter in model.parameters()]
    assert 0.1 < gflops(model) < 1
    assert [parameter.requires_grad for parameter in model.parameters()] == trained


def test_a_skeleton_contains_no_values() -> None:
    model: nn.Module = skeleton("lts", "scenes", "paper")
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
