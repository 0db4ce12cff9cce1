"""Layers that models share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from riszoo.layers import NARROW, TopDownBlock, convolve_upsampled, doubled


def in_two_steps(
    convolution: nn.Conv2d, coarse: Tensor, size: tuple[int, int], align: bool, fine: Tensor | None
) -> Tensor:
    upsampled = F.interpolate(coarse, size, mode="bilinear", align_corners=align)
    convolved: Tensor = convolution(upsampled if fine is None else torch.cat([upsampled, fine], 1))
    return convolved


def values_and_gradients(result: Tensor, *inputs: Tensor) -> list[Tensor]:
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=result.dtype)
    return [result, *torch.autograd.grad((result * weights).sum(), inputs)]


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("size", [(10, 12), (11, 17), (5, 6)])
@pytest.mark.parametrize(
    ("channels", "finer", "k", "bias"), [(NARROW, 4, 3, True), (NARROW, 0, 5, False), (8, 4, 3, True)]
)
def test_a_convolution_of_an_upsampled_map(
    align: bool, size: tuple[int, int], channels: int, finer: int, k: int, bias: bool
) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels + finer, 7, k, padding=k // 2, bias=bias).double()
    coarse = torch.randn(2, channels, 5, 6, dtype=torch.double, requires_grad=True)
    fine = torch.randn(2, finer, *size, dtype=torch.double, requires_grad=True) if finer else None
    inputs = [coarse, *convolution.parameters(), *([fine] if fine is not None else [])]
    found = values_and_gradients(convolve_upsampled(convolution, coarse, size, align, fine), *inputs)
    expected = values_and_gradients(in_two_steps(convolution, coarse, size, align, fine), *inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [NARROW, 8])
def test_rows_of_a_finer_map_are_shared(channels: int) -> None:
    torch.manual_seed(0)
    block = TopDownBlock(channels + 4, 5).double().eval()
    coarse, fine = torch.randn(4, channels, 3, 3).double(), torch.randn(2, 4, 6, 6).double()
    index = torch.tensor([1, 0, 0, 1])
    torch.testing.assert_close(block(coarse, fine, index), block(coarse, fine[index]), rtol=1e-9, atol=1e-9)


def operations(run: nn.Module, *inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(*inputs)
    return counter.get_total_flops()


def test_a_wide_map_is_convolved_before_it_is_upsampled() -> None:
    coarse, fine = torch.randn(1, 256, 16, 16).double(), torch.randn(1, 8, 32, 32).double()
    block = TopDownBlock(256 + 8, 256).double().eval()
    upsampled = F.interpolate(coarse, (32, 32), mode="bilinear", align_corners=True)
    plain = operations(block.convolutions, torch.cat([upsampled, fine], 1))
    assert operations(block, coarse, fine) < 0.72 * plain  # the second convolution is half of `plain`
    torch.testing.assert_close(block(coarse, fine), block.convolutions(torch.cat([upsampled, fine], 1)))


def test_the_layers_after_the_convolution_run() -> None:
    layers = nn.Sequential(nn.Conv2d(NARROW, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()).double().eval()
    coarse = torch.randn(2, NARROW, 4, 4).double()
    expected = layers(F.interpolate(coarse, scale_factor=2, mode="bilinear"))
    torch.testing.assert_close(doubled(layers.children(), coarse), expected)
