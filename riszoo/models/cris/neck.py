"""CRIS's neck: attention pooling that keeps the grid, and the fusion of three maps with the sentence.

Sections 2 and 3 of docs/models/cris.md. What does not depend on the sentence is computed once for each image.

    I images   N sentences   C channels of the coarsest map   E width of the sentence vector   h x w a grid
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.errors import UserError
from riszoo.layers import ConvNormReLU, attention, to_grid, to_tokens, upsample


@dataclass
class Neck:
    """Sections 2 and 3.

    strides  of the three maps, each twice the one before
    widths   channels of the three maps after their projections; the second is the width of the result
    heads    of the attention pooling; default: one for each 64 channels
    grid     side of the pooling's position table, which is resized to the coarsest map
    """

    strides: tuple[int, int, int] = (8, 16, 32)
    widths: tuple[int, int, int] = (256, 512, 1024)
    heads: int | None = None
    grid: int = 7

    def check(self, size: tuple[int, int]) -> None:
        """Raise UserError for strides that do not fit each other or the frame."""
        fine, middle, coarse = self.strides
        if (middle, coarse) != (2 * fine, 4 * fine):
            raise UserError(f"neck.strides {list(self.strides)} are invalid: give three, each twice the one before")
        if any(side % coarse for side in size):
            raise UserError(f"size {size[0]} x {size[1]} is not a multiple of the coarsest of neck.strides, {coarse}")


class SpatialAttentionPool(nn.Module):
    """CLIP's attention pooling without its mean token: every cell keeps its place, and a shortcut is added.

    The first row of the position table, that of the mean token, is in CLIP's weights and is not read.
    """

    def __init__(self, channels: int, width: int, options: Neck) -> None:
        super().__init__()
        self.heads, self.grid = options.heads or max(1, channels // 64), options.grid
        if channels % self.heads:
            raise UserError(f"neck.heads {self.heads} does not divide the {channels} channels of the coarsest map")
        self.pos_embed = nn.Parameter(torch.randn(options.grid**2 + 1, channels) * channels**-0.5)
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, width)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, visual: Tensor) -> Tensor:
        """(I, C, h, w) -> (I, E, h, w)"""
        size = (visual.shape[2], visual.shape[3])
        cells = to_tokens(visual + self.positions(size))  # (I, hw, C)
        attended = attention(self.query(cells), self.key(cells), self.value(cells), self.heads)
        return F.relu(to_grid(self.out(attended), size) + self.shortcut(visual))

    def positions(self, size: tuple[int, int]) -> Tensor:
        """The position table resized to a grid: (1, C, h, w)."""
        table = to_grid(self.pos_embed[None, 1:], (self.grid, self.grid))
        return F.interpolate(table, size, mode="bicubic")


class FusionNeck(nn.Module):
    """The sentence multiplies the coarsest map; finer maps are added one by one; coordinates come last."""

    def __init__(self, channels: list[int], sentence: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.project_fine = ConvNormReLU(channels[0], fine, 3)
        self.project_middle = ConvNormReLU(channels[1], middle, 3)
        self.project_coarse = ConvNormReLU(channels[2], coarse, 1)
        self.project_sentence = nn.Sequential(
            nn.Linear(sentence, coarse, bias=False), nn.BatchNorm1d(coarse), nn.ReLU()
        )
        self.norm = nn.BatchNorm2d(coarse)
        self.merge_middle = ConvNormReLU(middle + coarse, middle, 1)
        self.merge_fine = ConvNormReLU(fine + middle, middle, 1)
        self.smooth_fine = ConvNormReLU(middle, middle, 3)
        self.smooth_middle = ConvNormReLU(middle, middle, 3)
        self.smooth_coarse = ConvNormReLU(coarse, middle, 3)
        self.merge = ConvNormReLU(3 * middle, middle, 1)
        self.locate = nn.Sequential(ConvNormReLU(middle + 2, middle, 3), ConvNormReLU(middle, middle, 3))

    def project(self, maps: list[Tensor]) -> list[Tensor]:
        """The part that does not depend on the sentence: three maps, of which the finest is halved to the second."""
        fine, middle, coarse = maps
        return [F.avg_pool2d(self.project_fine(fine), 2), self.project_middle(middle), self.project_coarse(coarse)]

    def forward(self, projected: list[Tensor], sentence: Tensor) -> Tensor:
        """Three projected maps for each sentence, and its vector (N, E) -> (N, C, h, w) on the second map's grid."""
        fine, middle, coarse = projected
        gate = self.project_sentence(sentence)[..., None, None]
        coarse = F.relu(self.norm(coarse * gate))  # f5
        size = middle.shape[-2:]
        middle = self.merge_middle(torch.cat([middle, upsample(coarse, size)], 1))  # f4
        fine = self.merge_fine(torch.cat([fine, middle], 1))  # f3
        smooth = [self.smooth_fine(fine), self.smooth_middle(middle), upsample(self.smooth_coarse(coarse), size)]
        fused = self.merge(torch.cat(smooth, 1))
        located: Tensor = self.locate(torch.cat([fused, coordinates(fused)], 1))
        return located


def coordinates(visual: Tensor) -> Tensor:
    """(N, 2, h, w): column and row of each cell from -1 to 1, ends included."""
    n, _, h, w = visual.shape
    rows, cols = (torch.linspace(-1, 1, length, device=visual.device, dtype=visual.dtype) for length in (h, w))
    return torch.stack([cols.expand(h, w), rows[:, None].expand(h, w)]).expand(n, 2, h, w)
