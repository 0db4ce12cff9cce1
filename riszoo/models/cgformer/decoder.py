"""CGFormer's decoder: from coarse to fine, tokens read the words and group the pixels; the last token draws the mask.

Sections 3 to 6 of docs/models/cgformer.md. K counts the levels from 1, the coarsest.

    N sentences   T query tokens   C channels   h x w the finest grid
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Words
from riszoo.layers import LearnedToken, TopDownBlock, doubled, to_grid, to_tokens
from riszoo.models.cgformer.grouping import GROUPINGS, Group, GumbelNoise, WordReader


@dataclass
class Query:
    """Section 4. `width` of the decoder, default that of the second coarsest map; `readers` of the words."""

    tokens: int = 2
    width: int | None = None
    readers: Literal["last", "all"] = "last"


@dataclass
class Head:
    """Section 6. `width` default the decoder's; `upsamplings` by two; `padding` of the dynamic convolution."""

    width: int | None = None
    upsamplings: int = 2
    padding: Literal[0, 1] = 1


class Upsampling(nn.Sequential):
    """Twice the size, 3 x 3 convolution, BatchNorm, ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(inside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        _, *layers = self.children()
        return doubled(layers, x)


class MaskHead(nn.Module):
    """Section 6: a 1 x 1 convolution whose weights are computed from a token."""

    def __init__(self, width: int, options: Head) -> None:
        super().__init__()
        hidden = options.width or width
        inputs = [width, *(hidden for _ in range(options.upsamplings))]
        self.upsample = nn.Sequential(*(Upsampling(channels, hidden) for channels in inputs[:-1]))
        self.project = nn.Conv2d(inputs[-1], hidden, 1)
        self.dynamic = nn.Linear(width, hidden + 1)
        self.padding = options.padding

    def forward(self, visual: Tensor, token: Tensor) -> Tensor:
        """(N, C, h, w), (N, C) -> (N, 1, h', w'); in a padded ring around the mask there is the bias alone."""
        visual = self.project(self.upsample(visual))
        weight, bias = self.dynamic(token).split([visual.shape[1], 1], 1)
        mask = torch.einsum("nchw,nc->nhw", visual, weight)[:, None]
        padded: Tensor = F.pad(mask, 4 * [self.padding]) + bias[..., None, None]
        return padded


class GroupingDecoder(nn.Module):
    """Sections 3 to 6.

    Args:
        channels, grids: of the maps, fine to coarse
        words: width of the word states
    """

    def __init__(
        self, channels: list[int], grids: list[tuple[int, int]], words: int, query: Query, group: Group, head: Head
    ) -> None:
        super().__init__()
        *finer, coarsest = channels
        finer.reverse()
        width = query.width or finer[0]
        inputs = [coarsest, *(width for _ in finer)]
        self.queries = LearnedToken(torch.empty(query.tokens, width))
        nn.init.trunc_normal_(self.queries, std=0.02)
        self.fuses = nn.ModuleList(
            TopDownBlock(below + fine, width, bias=True) for below, fine in zip(inputs, finer, strict=False)
        )
        self.single_levels = nn.ModuleList([] if group.consecutive else [nn.Conv2d(c, width, 1) for c in finer])
        self.position_embeddings = nn.ParameterList(
            LearnedToken(torch.randn(h * w, width) / width**0.5) for h, w in reversed(grids[:-1])
        )
        self.readers = nn.ModuleList(WordReader(width, words, query.readers, group.dropout) for _ in finer[1:])
        self.groupings = nn.ModuleList(GROUPINGS[group.kind](width, group.dropout) for _ in finer[:2])
        self.noise = GumbelNoise(group.noise, query.tokens, [h * w for h, w in grids[:-1]])
        self.head = MaskHead(width, head)

    def forward(self, maps: list[Tensor], words: Words) -> tuple[Tensor, list[Tensor]]:
        """Maps from fine to coarse -> mask logits (N, 1, h', w'), and for each level which token has which pixel
        (N, T, h, w)."""
        visual, *finer = reversed(maps)
        tokens = self.queries.expand(visual.shape[0], -1, -1)  # (N, T, C)
        hits: list[Tensor] = []
        for level, fine in enumerate(finer):
            visual = self.fuses[level](visual, fine)  # (N, C, h, w)
            if level:
                tokens = self.readers[level - 1](tokens, words)
            grouped = self.single_levels[level](fine) if self.single_levels else visual
            pixels = to_tokens(grouped) + self.position_embeddings[level]  # (N, hw, C)
            tokens, hit = self.groupings[min(level, 1)](tokens, pixels, self.noise)  # the finer levels share one
            hits.append(to_grid(hit.mT, grouped.shape[-2:]))
        return self.head(visual, tokens[:, -1]), hits
