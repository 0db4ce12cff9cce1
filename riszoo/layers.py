"""Layers that at least two models use.

Letters: N sentences, Q queries, K keys, C channels, n heads, h x w a grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RARE = -3.0
"""Initial bias of mask logits: one pixel in twenty is a target's, and learning that takes thousands of steps."""


class LearnedToken(nn.Parameter):
    """A learned query, token or position table: a parameter that weight decay leaves out, whatever its name."""


def to_tokens(grid: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, hw, C)"""
    return grid.flatten(2).transpose(1, 2)


def to_grid(tokens: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, hw, C) -> (N, C, h, w), where `size` is (h, w)"""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *size)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(N, Q, C) -> (N, n, Q, C / n)"""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of projected (N, Q, C) over (N, K, C); `mask` (N, Q or 1, K) is true where a key counts."""
    query, key, value = (split_heads(x, heads) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=None if mask is None else mask[:, None])
    return attended.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention of queries over a context of another width.

    Positions are added by the caller, to queries and keys only. The key projection has no bias: it would shift all
    scores of a query alike.
    """

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(context or width, width, bias=False)
        self.v = nn.Linear(context or width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, Q, C), (N, K, C'), (N, K, C'), mask (N, Q or 1, K) -> (N, Q, C)"""
        if key is value and self.is_cheaper_from_context(query.shape[1], key.shape[1]):
            attended = self.from_context(self.q(query), key, mask)
        else:
            attended = attention(self.q(query), self.k(key), self.v(value), self.heads, mask)
        out: Tensor = self.out(attended)
        return out

    def is_cheaper_from_context(self, queries: int, keys: int) -> bool:
        """Whether `from_context` multiplies less than projecting each key and value does."""
        width, context = self.k.weight.shape
        projected = keys * width * (context + queries)
        return queries * context * (width + keys * self.heads) < projected

    def from_context(self, query: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """`attention` of projected queries (N, Q, C) over a context (N, K, C') that is both keys and values: the same
        function with the key's projection applied to the few queries and the value's to what they attend to."""
        n, (q, width) = query.shape[0], query.shape[1:]
        per_head = (self.heads, width // self.heads, -1)
        k, v = self.k.weight.view(per_head), self.v.weight.view(per_head)  # (n, C / n, C')
        query = torch.einsum("bqnd,ndc->bnqc", query.view(n, q, self.heads, -1), k).flatten(1, 2)  # (N, nQ, C')
        if mask is not None and mask.shape[1] > 1:
            mask = mask[:, None].expand(-1, self.heads, -1, -1).flatten(1, 2)
        scale = (width // self.heads) ** -0.5
        attended = F.scaled_dot_product_attention(query, context, context, attn_mask=mask, scale=scale)
        attended = attended.view(n, self.heads, q, -1)
        return torch.einsum("bnqc,ndc->bqnd", attended, v).flatten(2) + self.v.bias

    def weights(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Attention probabilities (N, Q, K), mean over the heads."""
        q, k = split_heads(self.q(query), self.heads), split_heads(self.k(key), self.heads)
        scores: Tensor = q @ k.mT / q.shape[-1] ** 0.5  # (N, n, Q, K)
        return scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1).mean(1)


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int | None = None) -> None:
        hidden = hidden or 4 * width
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inside: int, outside: int, kernel: int) -> None:
        convolution = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outside), nn.ReLU())


def upsample(coarse: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear interpolation to (h, w)."""
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


NARROW = 128
"""Channels below which a convolution of an upsampled map is not worth computing from the coarse one."""


def in_order(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def doubled(layers: Iterable[nn.Module], coarse: Tensor) -> Tensor:
    """Layers, a convolution first, of a map upsampled to twice its size: (N, C, h, w) -> (N, O, 2 h, 2 w)"""
    convolution, *rest = layers
    size = (2 * coarse.shape[-2], 2 * coarse.shape[-1])
    return in_order(rest, convolve_upsampled(convolution, coarse, size, align_corners=False))


def convolve_upsampled(
    convolution: nn.Module,
    coarse: Tensor,
    size: tuple[int, int],
    align_corners: bool,
    fine: Tensor | None = None,
    index: Tensor | None = None,
) -> Tensor:
    """A convolution that keeps the grid, of a bilinearly upsampled map and behind it a finer one: (N, O, H, W).

    Equal to `convolution(torch.cat([F.interpolate(coarse, size, ...), fine[index]], 1))`. Each cell of the kernel is a
    product over channels, and it does not matter whether that comes before or after the interpolation; on the coarse
    map it has a quarter of the multiplications, where the size doubles. The part of `fine` is computed once for a row.
    """
    assert isinstance(convolution, nn.Conv2d)
    channels, (h, w) = coarse.shape[1], coarse.shape[-2:]
    if channels < NARROW or size[0] * size[1] < 3 * h * w:
        x = F.interpolate(coarse, size, mode="bilinear", align_corners=align_corners)
        if fine is not None:
            x = torch.cat([x, fine if index is None else fine[index]], 1)
        convolved: Tensor = convolution(x)
        return convolved
    kernel = convolution.weight[:, :channels]  # (O, C, k, k)
    outside, k = kernel.shape[0], kernel.shape[-1]
    columns, rows = (shifted_interpolation(*pair, k, align_corners, coarse) for pair in ((w, size[1]), (h, size[0])))
    wide: Tensor | None = None  # (N, O k, h, W): for each row of the kernel, its columns summed
    for cells, interpolation in zip(kernel.unbind(-1), columns, strict=True):
        products = F.conv2d(coarse, cells.transpose(1, 2).reshape(outside * k, channels, 1, 1))  # (N, O k, h, w)
        wide = products @ interpolation if wide is None else wide + products @ interpolation
    assert wide is not None
    convolved = rows.flatten(0, 1).T @ wide.reshape(-1, outside, k * h, size[1])  # (N, O, H, W)
    if fine is not None:
        finer = F.conv2d(fine, convolution.weight[:, channels:], convolution.bias, padding=k // 2)
        return convolved + (finer if index is None else finer[index])
    return convolved if convolution.bias is None else convolved + convolution.bias[:, None, None]


def shifted_interpolation(length: int, size: int, k: int, align_corners: bool, like: Tensor) -> Tensor:
    """Matrices (k, length, size) from a line to the interpolated line, shifted by each cell of a kernel of k."""
    exact = torch.promote_types(like.dtype, torch.float32)
    line = torch.eye(length, dtype=exact, device=like.device)[None]
    matrix = F.interpolate(line, size, mode="linear", align_corners=align_corners)[0]
    return F.pad(matrix, (k // 2, k // 2)).unfold(1, size, 1).transpose(0, 1).to(like.dtype)


class TopDownBlock(nn.Module):
    """Upsamples a coarse map, concatenates a finer one, and applies two 3 x 3 convolutions."""

    def __init__(self, channels: int, width: int, bias: bool = False) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(channels, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width), nn.ReLU()),
        )

    def forward(self, coarse: Tensor, fine: Tensor, index: Tensor | None = None) -> Tensor:
        convolution, *rest = self.convolutions
        size = (fine.shape[-2], fine.shape[-1])
        return in_order(rest, convolve_upsampled(convolution, coarse, size, align_corners=True, fine=fine, index=index))


def mean_valid(states: Tensor, mask: Tensor) -> Tensor:
    """(N, L, d) -> (N, d), the mean over the tokens where `mask` (N, L) is true"""
    return states.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)


class TextToPixel(nn.Module):
    """How similar each cell is to a sentence's vector, for an auxiliary loss."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.cell, self.sentence = nn.Linear(width, width), nn.Linear(width, width)
        self.start = start

    def forward(self, cells: Tensor, sentence: Tensor) -> Tensor:
        """(N, n, d), (N, d) -> logits (N, n)"""
        similarity = torch.einsum("nkd,nd->nk", self.cell(cells), self.sentence(sentence))
        return similarity / math.sqrt(cells.shape[-1]) + self.start


def sentence_convolution(pixels: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """Each (C, h, w) of a batch convolved with its own (C, k, k) and its own bias, or one bias: (N, 1, h, w).

    The product of every kernel cell with every pixel, shifted and summed: no group for each sentence is needed, whose
    number an exported graph could not leave open.
    """
    (h, w), k = pixels.shape[-2:], kernels.shape[-1]
    products = (kernels.flatten(2).mT @ pixels.flatten(2)).reshape(-1, k * k, h, w)  # one product for each kernel cell
    padded = F.pad(products, 4 * [k // 2])
    shifted = [padded[:, i * k + j, i : i + h, j : j + w] for i in range(k) for j in range(k)]
    return torch.stack(shifted, 1).sum(1, keepdim=True) + bias.view(-1, 1, 1, 1)


def sine(length: int, width: int, like: Tensor) -> Tensor:
    """(length, width) sine position code of the original Transformer, in the dtype and on the device of `like`.

    Angles are computed in at least 32 bit: half precision does not tell large positions apart.
    """
    exact = torch.promote_types(like.dtype, torch.float32)
    position = torch.arange(length, device=like.device, dtype=exact)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=exact) * (-math.log(1e4) / width))
    return torch.cat([(position * rate).sin(), (position * rate).cos()], 1)[:, :width].to(like.dtype)


def sine_2d(h: int, w: int, width: int, like: Tensor) -> Tensor:
    """(hw, width) sine position code of a grid: half of the channels for the row, half for the column."""
    rows, cols = sine(h, width // 2, like), sine(w, width - width // 2, like)
    return torch.cat([rows[:, None].expand(h, w, -1), cols[None].expand(h, w, -1)], -1).flatten(0, 1)
