"""Layers that models share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from riszoo.layers import NARROW, Attention, TopDownBlock, attention, convolve_upsampled, doubled, sine, sine_2d


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


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_few_queries_attend_to_a_context_without_projecting_it(rows: int) -> None:
    """The function of projected keys and values, and its gradients, with fewer multiplications."""
    torch.manual_seed(0)
    layer = Attention(24, 4, context=8).double()
    query = torch.randn(2, 3, 24, dtype=torch.double, requires_grad=True)
    context = torch.randn(2, 50, 8, dtype=torch.double, requires_grad=True)
    mask = torch.rand(2, rows, 50) < 0.7 if rows else None
    assert layer.is_cheaper_from_context(3, 50)

    def projected(query: Tensor, context: Tensor) -> Tensor:
        out: Tensor = layer.out(attention(layer.q(query), layer.k(context), layer.v(context), layer.heads, mask))
        return out

    inputs = [query, context, *layer.parameters()]
    found = values_and_gradients(layer(query, context, context, mask), *inputs)
    expected = values_and_gradients(projected(query, context), *inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    other_values = layer(query, context, context + 1, mask)  # keys and values that are not one tensor
    assert not torch.allclose(found[0], other_values)


def test_attention_takes_the_way_with_fewer_multiplications() -> None:
    for queries, keys, heads in ((3, 50, 4), (50, 3, 4), (8, 8, 1), (2, 400, 8)):
        layer = Attention(32, heads, context=16)
        query, context = torch.randn(1, queries, 32), torch.randn(1, keys, 16)
        projections = [2 * keys * 16 * 32] * 2
        products = [2 * queries * keys * 32] * 2
        from_context = [2 * queries * 16 * 32, 2 * queries * heads * keys * 16] * 2
        both_ends = [2 * queries * 32 * 32] * 2
        expected = sum(both_ends) + min(sum(projections + products), sum(from_context))
        with sdpa_kernel(SDPBackend.MATH):  # the counter does not know the others' products
            assert operations(layer, query, context, context) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_position_codes_are_exact_in_any_dtype(dtype: torch.dtype) -> None:
    like, exact = torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=torch.double)
    for found, expected in (
        (sine(1000, 64, like), sine(1000, 64, exact)),
        (sine_2d(3, 300, 64, like), sine_2d(3, 300, 64, exact)),
    ):
        assert found.dtype == dtype
        tolerance = torch.finfo(dtype).eps + (1e-4 if dtype != torch.double else 0)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
