"""What a model costs does not depend on the device that it is counted on."""

from __future__ import annotations

import pytest
from torch import nn

from riszoo.bench.cost import build, gflops, skeleton


@pytest.mark.parametrize("name", ["risam", "lavt"])
def test_info_and_speed_count_the_same_operations(name: str) -> None:
    """`info` counts on the meta device, `speed` on its own, where the CPU counted no fused attention."""
    shapes, model = skeleton(name, "scenes", "tiny"), build(name, "scenes", "tiny")[0]
    assert gflops(model) == gflops(shapes)


def test_a_skeleton_contains_no_values() -> None:
    model: nn.Module = skeleton("lts", "scenes", "paper")
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
