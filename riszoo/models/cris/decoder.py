"""CRIS's decoder, in which pixels read the words, and its head, a convolution whose kernel is made from the sentence.

Sections 4 and 5 of docs/models/cris.md.

    N sentences   L tokens   C width   E width of the sentence vector   h x w a grid
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from riszoo.batch import Words
from riszoo.errors import UserError
from riszoo.layers import ConvNormReLU, doubled, sentence_convolution, sine, to_grid, to_tokens


@dataclass
class Decoder:
    """Section 4. Without `words`, pixels attend to each other only.

    hidden  width of the feed-forward layers
    """

    layers: int = 3
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.1
    words: bool = True

    def check(self, width: int) -> None:
        """Raise UserError for numbers that do not fit the width of the neck's output."""
        if self.layers < 0 or self.heads < 1 or width % self.heads or width % 4:
            raise UserError(
                f"decoder.layers {self.layers} and decoder.heads {self.heads} are invalid: give at least 0 layers, and "
                f"heads that divide the neck's second width {width}, a multiple of 4"
            )


def word_positions(length: int, width: int, like: Tensor) -> Tensor:
    """(L, C): sine and cosine of each rate side by side, in float32 where `like` is of half precision."""
    like = like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32))
    return sine(length, width, like).view(length, 2, -1).mT.flatten(1)


def pixel_positions(size: tuple[int, int], width: int, like: Tensor) -> Tensor:
    """(hw, C): the first half of the channels is the column's code, the second half the row's."""
    rows, cols = (word_positions(length, width // 2, like) for length in size)
    h, w = size
    return torch.cat([cols[None].expand(h, w, -1), rows[:, None].expand(h, w, -1)], -1).flatten(0, 1)


class DecoderLayer(nn.Module):
    """Self-attention of the pixels, cross-attention to the words, feed-forward; a norm before and after attention."""

    def __init__(self, width: int, options: Decoder) -> None:
        super().__init__()
        self.dropout = nn.Dropout(options.dropout)
        self.norm_self, self.norm_self_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attention = nn.MultiheadAttention(width, options.heads, options.dropout, batch_first=True)
        self.reads_words = options.words
        if options.words:
            self.norm_cross, self.norm_cross_out = nn.LayerNorm(width), nn.LayerNorm(width)
            self.cross_attention = nn.MultiheadAttention(width, options.heads, options.dropout, batch_first=True)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, options.hidden),
            nn.ReLU(),
            nn.Dropout(options.dropout),
            nn.LayerNorm(options.hidden),
            nn.Linear(options.hidden, width),
        )

    def forward(
        self, pixels: Tensor, pixel_position: Tensor, words: Tensor, keys: Tensor, pads: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Pixels (N, hw, C), and the weight of each word at each pixel (N, hw, L) where they attend to words.

        `keys` are the words with their positions, `pads` (N, L) is true at pad tokens.
        """
        normed = self.norm_self(pixels)
        query = normed + pixel_position
        attended, _ = self.self_attention(query, query, normed, need_weights=False)
        pixels = pixels + self.dropout(self.norm_self_out(attended))
        weights = None
        if self.reads_words:
            query = self.norm_cross(pixels) + pixel_position
            attended, weights = self.cross_attention(query, keys, words, key_padding_mask=pads)
            pixels = pixels + self.dropout(self.norm_cross_out(attended))
        pixels = pixels + self.dropout(self.feed_forward(self.norm_feed_forward(pixels)))
        return pixels, weights


class PixelWordDecoder(nn.Module):
    """Layers over the pixels of one map, and a last norm."""

    def __init__(self, width: int, options: Decoder) -> None:
        super().__init__()
        options.check(width)
        self.layers = nn.ModuleList(DecoderLayer(width, options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, visual: Tensor, states: Tensor, words: Words) -> tuple[Tensor, dict[str, Tensor]]:
        """Visual (N, C, h, w) and word states (N, L, C) -> (N, C, h, w), and each layer's attention (N, L, h, w)."""
        size = (visual.shape[2], visual.shape[3])
        pixels, pixel_position = to_tokens(visual), pixel_positions(size, visual.shape[1], visual)
        keys = states + word_positions(states.shape[1], states.shape[2], states)
        evidence = {}
        for index, layer in enumerate(self.layers, 1):
            pixels, weights = layer(pixels, pixel_position, states, keys, ~words.mask)
            if weights is not None:
                evidence[f"attention{index}"] = to_grid(weights.detach(), size)
        return to_grid(self.norm(pixels), size), evidence


class Upscale(nn.Sequential):
    """Twice: enlarge by 2 and convolve; then a pointwise convolution. (N, C, h, w) -> (N, C/2, 4h, 4w)"""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            ConvNormReLU(width, width, 3),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            ConvNormReLU(width, width // 2, 3),
            nn.Conv2d(width // 2, width // 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        _, first, _, second, pointwise = self.children()
        y: Tensor = pointwise(doubled(second.children(), doubled(first.children(), x)))
        return y


class DynamicHead(nn.Module):
    """Text-to-pixel: one 3 x 3 convolution for each sentence, whose kernel and bias are made from its vector."""

    KERNEL = 3

    def __init__(self, width: int, sentence: int) -> None:
        super().__init__()
        self.upscale = Upscale(width)
        self.kernel = nn.Linear(sentence, width // 2 * self.KERNEL**2 + 1)

    def forward(self, visual: Tensor, sentence: Tensor) -> Tensor:
        """(N, C, h, w), (N, E) -> logits (N, 1, 4h, 4w)"""
        pixels = self.upscale(visual)  # (N, C/2, 4h, 4w)
        made = self.kernel(sentence)
        kernels, bias = made[:, :-1].unflatten(1, (-1, self.KERNEL, self.KERNEL)), made[:, -1]
        return sentence_convolution(pixels, kernels, bias)


class PlainHead(nn.Module):
    """Logits from a pointwise convolution that is the same for every sentence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upscale = Upscale(width)
        self.classify = nn.Conv2d(width // 2, 1, 1)

    def forward(self, visual: Tensor, sentence: Tensor) -> Tensor:
        """(N, C, h, w), (N, E) -> logits (N, 1, 4h, 4w); the sentence is not read."""
        logits: Tensor = self.classify(self.upscale(visual))
        return logits
