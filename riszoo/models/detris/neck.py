"""DETRIS's neck: three maps of one grid, each multiplied by a vector of the sentence, become one map.

Section 5 of docs/models/detris.md.

    N sentences   C channels of a map   S of the sentence's vector   D of the result   h x w the grid
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.layers import ConvNormReLU
from riszoo.models.cris.neck import coordinates


class SentenceFactor(nn.Module):
    """c = W_o (W_v t + b_v) + b_o: attention from every pixel to the one sentence vector t.

    A softmax over a single key is 1, so queries and keys have no effect: the rows of `in_proj_weight` for them exist in
    published files and are kept, and get no gradient.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 1)

    def forward(self, sentence: Tensor) -> Tensor:
        """(N, D) -> (N, D, 1, 1)"""
        weight, bias = (
            parameter.chunk(3)[2] for parameter in (self.attention.in_proj_weight, self.attention.in_proj_bias)
        )
        factor: Tensor = self.attention.out_proj(F.linear(sentence, weight, bias))
        return factor[:, :, None, None]


class Neck(nn.Module):
    """The maps times the sentence, merged, and two convolutions that also read coordinates.

    Args:
        channels: of the three maps
        sentence: S
        width: D
    """

    def __init__(self, channels: list[int], sentence: int, width: int) -> None:
        super().__init__()
        self.sentence = nn.Linear(sentence, width)
        self.projections = nn.ModuleList(ConvNormReLU(c, width, 1) for c in channels)
        self.factors = nn.ModuleList(SentenceFactor(width) for _ in channels)
        self.merge = ConvNormReLU(len(channels) * width, width, 1)
        self.locate = nn.Sequential(ConvNormReLU(width + 2, width, 3), ConvNormReLU(width, width, 3))

    def forward(self, maps: list[Tensor], sentence: Tensor) -> Tensor:
        """Maps (N, C, h, w) and sentence vectors (N, S) -> f_q (N, D, h, w)"""
        vector = self.sentence(sentence)
        visual = [project(one) for project, one in zip(self.projections, maps, strict=True)]
        merged = self.merge(torch.cat([v * factor(vector) for v, factor in zip(visual, self.factors, strict=True)], 1))
        located: Tensor = merged + self.locate(torch.cat([merged, coordinates(merged)], 1))
        return located
