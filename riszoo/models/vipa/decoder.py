"""VIPA's decoder: pixels as queries, an expression as keys and values, and a top-down head.

Section 5 of docs/models/vipa.md. The decoder is the same for every kind of expression.

    N sentences   L rows of the expression   d width   C channels of a map   h x w the coarsest grid
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from riszoo.errors import UserError
from riszoo.layers import RARE, Attention, FeedForward, TopDownBlock, sine_2d, to_grid, to_tokens
from riszoo.models.vipa.blocks import AttentionBlock


@dataclass
class Decoder:
    """Section 5. The coarsest `levels` maps, or all where there are fewer, attend to the expression; `width` is that of
    the top-down head."""

    layers: int = 3
    levels: int = 1
    width: int = 512


class DecoderLayer(nn.Module):
    """Section 5: self-attention of the pixels, cross-attention to the expression, feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self, self.self_attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_cross, self.cross_attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_feed_forward, self.feed_forward = nn.LayerNorm(width), FeedForward(width)

    def forward(self, pixels: Tensor, position: Tensor, cells: Tensor, expression: Tensor, mask: Tensor) -> Tensor:
        """Pixels (N, hw, d), their position code (hw, d) and valid cells (N, hw), and the expression (N, L, d) with
        its valid rows (N, L) -> (N, hw, d)"""
        query = self.norm_self(pixels)
        pixels = pixels + self.self_attention(query + position, query + position, query, cells[:, None])
        query = self.norm_cross(pixels) + position
        pixels = pixels + self.cross_attention(query, expression, expression, mask[:, None])
        updated: Tensor = pixels + self.feed_forward(self.norm_feed_forward(pixels))
        return updated


class PixelDecoder(nn.Module):
    """Section 5: decoder layers on the coarsest map, then a top-down head to the finest map.

    Args:
        channels: of the maps, fine to coarse
        width, heads: of the attention; `width` is also the expression's
    """

    def __init__(self, options: Decoder, channels: list[int], width: int, heads: int) -> None:
        super().__init__()
        if options.layers < 1 or options.levels < 1:
            name, value = ("layers", options.layers) if options.layers < 1 else ("levels", options.levels)
            raise UserError(f"decoder.{name} is {value}: give at least 1, where pixels attend to the expression")
        if width % heads or (options.levels > 1 and options.width % heads):
            raise UserError(f"width {width} and decoder.width {options.width} must be divisible by heads {heads}")
        *finer, coarsest = channels
        inputs = [coarsest, *(options.width for _ in finer)]  # channels that enter each top-down block from below
        self.project_in, self.project_out = nn.Conv2d(coarsest, width, 1), nn.Conv2d(width, coarsest, 1)
        self.layers = nn.ModuleList(DecoderLayer(width, heads) for _ in range(options.layers))
        self.top_down = nn.ModuleList(
            TopDownBlock(below + fine, options.width) for below, fine in zip(inputs, reversed(finer), strict=False)
        )
        self.finer_attention = nn.ModuleList(
            AttentionBlock(options.width, heads, width) for _ in self.top_down[: options.levels - 1]
        )
        self.classify = nn.Conv2d(options.width if finer else coarsest, 2, 1)
        self.classify.bias.data.copy_(torch.tensor([0.0, RARE]))  # type: ignore[union-attr]

    def forward(
        self, maps: list[Tensor], cells: Tensor, expression: Tensor, mask: Tensor, image_index: list[Tensor | None]
    ) -> Tensor:
        """Maps from fine to coarse, the valid `cells` (N, hw) of the coarsest, the expression (N, L, d) and its valid
        rows (N, L) -> the target's logit minus the background's, (N, 1, h, w) on the finest grid.

        `image_index` has, for each map but the coarsest, the image of each sentence where the map is that of images.
        """
        x = self.project_in(maps[-1])  # (N, d, h, w)
        _, d, h, w = x.shape
        pixels, position = to_tokens(x), sine_2d(h, w, d, x)  # (N, hw, d), (hw, d)
        for layer in self.layers:
            pixels = layer(pixels, position, cells, expression, mask)
        x = self.project_out(to_grid(pixels, (h, w)))  # (N, C, h, w)
        finer = zip(reversed(maps[:-1]), reversed(image_index), strict=True)
        for index, (top_down, (fine, images)) in enumerate(zip(self.top_down, finer, strict=True)):
            x = top_down(x, fine, images)
            if index < len(self.finer_attention):
                pixels = self.finer_attention[index](to_tokens(x), mask[:, None], expression)
                x = to_grid(pixels, x.shape[-2:])
        background, target = self.classify(x).split(1, 1)
        logits: Tensor = target - background
        return logits
