"""VIPA's decoder: pixels as queries, an expression as keys and values, and a top-down head.

Section 5 of docs/models/vipa.md. What the expression is made of (visual tokens, or words) is not its concern.

    N sentences   L rows of the expression   d width   C channels of a map   h x w the coarsest grid
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.layers import RARE, sine_2d
from riszoo.models.vipa.fusion import Attention, FeedForward, Look, to_grid, to_tokens


@dataclass
class Decoder:
    """Section 5. The visual expression is heard at the coarsest `levels` maps; `width` is the top-down head's."""

    layers: int = 3
    levels: int = 1
    width: int = 512


class DecoderLayer(nn.Module):
    """Section 5: pixels look at each other, then at the expression."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self, self.attend = nn.LayerNorm(width), Attention(width, heads)
        self.norm_hear, self.hear = nn.LayerNorm(width), Attention(width, heads)
        self.norm_feed, self.feed = nn.LayerNorm(width), FeedForward(width)

    def forward(self, q: Tensor, place: Tensor, cells: Tensor, made: Tensor, rows: Tensor) -> Tensor:
        y = self.norm_self(q)
        q = q + self.attend(y + place, y + place, y, cells[:, None])
        q = q + self.hear(self.norm_hear(q) + place, made, made, rows[:, None])
        fed: Tensor = q + self.feed(self.norm_feed(q))
        return fed


class Merge(nn.Module):
    """Two convolutions over a coarser map brought up beside a finer one."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(inside, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        raised = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        merged: Tensor = self.convolutions(torch.cat([raised, fine], 1))
        return merged


class PixelDecoder(nn.Module):
    """Section 5: the coarsest map hears the expression, then a top-down head carries it to the finest."""

    def __init__(self, options: Decoder, channels: list[int], width: int, heads: int) -> None:
        super().__init__()
        *finer, coarse = channels
        wide, carried = options.width, [coarse] + [options.width] * len(finer)
        self.enter, self.leave = nn.Conv2d(coarse, width, 1), nn.Conv2d(width, coarse, 1)
        self.layers = nn.ModuleList(DecoderLayer(width, heads) for _ in range(options.layers))
        self.merge = nn.ModuleList(Merge(c + f, wide) for c, f in zip(carried, reversed(finer), strict=False))
        self.again = nn.ModuleList(Look(wide, heads, width) for _ in self.merge[: options.levels - 1])
        self.out = nn.Conv2d(wide if finer else coarse, 2, 1)
        self.out.bias.data.copy_(torch.tensor([0.0, RARE]))  # type: ignore[union-attr]

    def forward(self, maps: list[Tensor], cells: Tensor, made: Tensor, rows: Tensor) -> Tensor:
        """The target's logit less the background's, (N, 1, h, w) on the finest grid.

        Out of maps from fine to coarse, the coarsest's `cells` (N, hw) that hold image, the expression `made`
        (N, L, d), and which of its `rows` (N, L) count.
        """
        x = self.enter(maps[-1])
        q, place = to_tokens(x), sine_2d(x.shape[-2], x.shape[-1], x.shape[1], x)
        for layer in self.layers:
            q = layer(q, place, cells, made, rows)
        x = self.leave(to_grid(q, x))
        for step, (merge, fine) in enumerate(zip(self.merge, reversed(maps[:-1]), strict=True)):
            x = merge(x, fine)
            if step < len(self.again):
                again = self.again[step](to_tokens(x), rows[:, None], made)
                x = to_grid(again, x)
        background, target = self.out(x).split(1, 1)
        logits: Tensor = target - background
        return logits
