"""Where image and sentence meet inside VIPA's encoders: nowhere, after them (late), or stage by stage (early).

Section 3.3 of docs/models/vipa.md. Any vision encoder works; early fusion also needs a text encoder whose layers can be
run one by one.

    N sentences   L tokens of a sentence   C channels of a stage   W channels of the words   h x w the stage's grid
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Features, Words, valid_cells
from riszoo.encoders.base import TextEncoder, VisionEncoder
from riszoo.errors import UserError
from riszoo.layers import Attention, FeedForward, attention, sine_2d, to_grid, to_tokens
from riszoo.models.vipa.blocks import AttentionBlock, heads_for


@dataclass
class Fusion:
    """Section 3.3. Early fusion runs `layers` of the text encoder before it, and one more with each later stage.

    An attention head has about `head_width` channels; pixels attend to words in at least `min_width` channels.
    `position` adds a sine code to the map at which pixels first meet words, with weights that start at zero. Early
    fusion begins after the blocks of the vision stage `start`: the earlier ones, of which the first is 0, see no
    language. In the last stage pixels still attend to the words, but no word to the pixels.
    """

    kind: Literal["none", "late", "early"] = "early"
    start: int = 0
    layers: int = 6
    head_width: int = 64
    min_width: int = 256
    position: bool = True


class PositionCode(nn.Module):
    """Adds a projected sine code to a map: the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, grid: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)"""
        channels, h, w = grid.shape[1:]
        code: Tensor = self.project(sine_2d(h, w, channels, grid))  # (hw, C)
        return grid + to_grid(code[None], (h, w))


def position_code(options: Fusion, channels: int) -> nn.Module:
    """The position code of a map of `channels`, or the identity."""
    return PositionCode(channels) if options.position else nn.Identity()


class NoFusion(nn.Module):
    """Both encoders run alone; the coarsest map gets the position code."""

    def __init__(self, options: Fusion, channels: int) -> None:
        super().__init__()
        self.position = position_code(options, channels)

    def language_free_maps(self, x: Tensor, vision: VisionEncoder) -> list[Tensor]:
        """The maps that can be computed before any language enters."""
        maps: list[Tensor] = vision(x)
        return maps

    def forward(
        self, visual: Features, words: Words, vision: VisionEncoder, text: TextEncoder
    ) -> tuple[list[Tensor], Words]:
        """The image's maps, each (N, C, h, w), and the words, after the fusion."""
        *finer, coarsest = visual.maps
        return [*finer, self.position(coarsest)], words


class LateFusion(NoFusion):
    """After both encoders, the coarsest map attends to the words, and the words to the map where `reads_words`."""

    def __init__(self, options: Fusion, channels: int, words: int, reads_words: bool) -> None:
        super().__init__(options, channels)
        self.pixel_block = AttentionBlock(channels, heads_for(channels, options.head_width), words)
        self.word_block = None
        if reads_words:
            self.word_block = AttentionBlock(words, heads_for(words, options.head_width), channels)

    def forward(
        self, visual: Features, words: Words, vision: VisionEncoder, text: TextEncoder
    ) -> tuple[list[Tensor], Words]:
        (*finer, coarsest), words = super().forward(visual, words, vision, text)
        pixels, cells = to_tokens(coarsest), visual.cells().flatten(1)  # (N, hw, C), (N, hw)
        fused = self.pixel_block(pixels, words.mask[:, None], words.states)  # (N, hw, C)
        if self.word_block is not None:
            words = words.with_states(self.word_block(words.states, cells[:, None], pixels))  # (N, L, W)
        return [*finer, to_grid(fused, coarsest.shape[-2:])], words


class PixelToWordAttention(nn.Module):
    """Fuse(v, w): pixels attend to the words. InstanceNorm is over pixels, so that no pad word enters its statistics;
    a bias in front of it would cancel out, so there is none."""

    def __init__(self, channels: int, words: int, options: Fusion) -> None:
        super().__init__()
        hidden = max(channels, options.min_width)
        self.heads = heads_for(hidden, options.head_width)
        self.q = nn.Linear(channels, hidden, bias=False)
        self.k, self.v = nn.Linear(words, hidden, bias=False), nn.Linear(words, hidden, bias=False)
        self.project = nn.Linear(hidden, channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, pixels: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """(N, hw, C), (N, L, W), (N, L) -> (N, hw, C)"""
        query = norm_over_pixels(self.q(pixels))
        attended = attention(query, self.k(states), self.v(states), self.heads, mask[:, None])
        return F.gelu(self.out(norm_over_pixels(self.project(attended)) + pixels))


def norm_over_pixels(pixels: Tensor) -> Tensor:
    """InstanceNorm of (N, hw, C)."""
    return F.instance_norm(pixels.transpose(1, 2)).transpose(1, 2)


class GatedResidual(nn.Module):
    """v + g(y) y with g = tanh(Linear(ReLU(Linear))): the identity at the start, with a gradient to the gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, channels, bias=False), nn.ReLU(), nn.Linear(channels, channels, bias=False), nn.Tanh()
        )
        nn.init.zeros_(self.gate[2].weight)  # type: ignore[arg-type]

    def forward(self, v: Tensor, y: Tensor) -> Tensor:
        gated: Tensor = v + self.gate(y) * y
        return gated


class WordToPixelAttention(nn.Module):
    """Words attend to the pixels that enter a vision stage; post-norm, as in BERT."""

    def __init__(self, words: int, channels: int, options: Fusion) -> None:
        super().__init__()
        self.attention = Attention(words, heads_for(words, options.head_width), channels)
        self.feed_forward = FeedForward(words)
        self.norm, self.norm_feed_forward = nn.LayerNorm(words), nn.LayerNorm(words)

    def forward(self, states: Tensor, pixels: Tensor, cells: Tensor) -> Tensor:
        """(N, L, W), (N, hw, C), (N, hw) -> (N, L, W)"""
        states = self.norm(states + self.attention(states, pixels, pixels, cells[:, None]))
        updated: Tensor = self.norm_feed_forward(states + self.feed_forward(states))
        return updated


class EarlyFusion(NoFusion):
    """In every stage from `start` on the pixels attend to the words; before every later one the words attend to its
    pixels."""

    def __init__(self, options: Fusion, vision: VisionEncoder, text: TextEncoder) -> None:
        channels, words, self.start = vision.channels[options.start :], text.width, options.start
        if options.start < 0 or not channels:
            raise UserError(f"fusion.start is {options.start}: give a stage from 0 to {len(vision.channels) - 1}")
        super().__init__(options, channels[0])
        entering = [channels_entering(vision, stage) for stage in range(options.start + 1, len(vision.channels))]
        split_text(text, options.layers, len(entering))
        self.stage_attention = nn.ModuleList(PixelToWordAttention(c, words, options) for c in channels)
        self.stage_norm = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.stage_gate = nn.ModuleList(GatedResidual(c) for c in channels[:-1])
        self.down_attention = nn.ModuleList(PixelToWordAttention(c, words, options) for c in entering)
        self.down_gate = nn.ModuleList(GatedResidual(c) for c in entering)
        self.word_attention = nn.ModuleList(WordToPixelAttention(words, c, options) for c in entering)

    def language_free_maps(self, x: Tensor, vision: VisionEncoder) -> list[Tensor]:
        """The stages before language enters, the last of them the one in which it does."""
        maps: list[Tensor] = []
        for stage in range(self.start + 1):
            x = vision.blocks(stage, vision.down(stage, maps[-1] if maps else vision.stem(x)))
            maps.append(x)
        return maps

    def forward(
        self, visual: Features, words: Words, vision: VisionEncoder, text: TextEncoder
    ) -> tuple[list[Tensor], Words]:
        *maps, entered = visual.maps
        x = self.position(entered)
        states = words.states  # nothing is fused yet
        for index, stage in enumerate(range(self.start, len(vision.channels))):
            if index:
                x = self._down(index - 1, vision.down(stage, x), states, words.mask)
                states = self._language_stage(index - 1, states, words.mask, x, visual, text)
                x = vision.blocks(stage, x)
            pixels, size = to_tokens(x), x.shape[-2:]
            fused = self.stage_attention[index](pixels, states, words.mask)  # (N, hw, C)
            maps.append(to_grid(self.stage_norm[index](fused), size))
            if index < len(self.stage_gate):
                x = to_grid(self.stage_gate[index](pixels, fused), size)
        return maps, words.with_states(states)

    def _down(self, index: int, x: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """On the grid of a later stage the pixels attend to the words again."""
        pixels = to_tokens(x)
        fused = self.down_attention[index](pixels, states, mask)
        return to_grid(self.down_gate[index](pixels, fused), x.shape[-2:])

    def _language_stage(
        self, index: int, states: Tensor, mask: Tensor, x: Tensor, visual: Features, text: TextEncoder
    ) -> Tensor:
        """The words attend to the pixels that enter the vision stage, then pass one layer of the text encoder."""
        cells = valid_cells(visual.valid, visual.size, (x.shape[-2], x.shape[-1])).flatten(1)
        return text.run_layer(index, self.word_attention[index](states, to_tokens(x), cells), mask)


def channels_entering(vision: VisionEncoder, stage: int) -> int:
    """Channels of the map that enters a stage's blocks, found by running the encoder's step to it."""
    training = vision.training
    device = next(vision.parameters()).device
    with torch.no_grad():
        below = torch.zeros(1, vision.channels[stage - 1], 8, 8, device=device)
        channels = vision.eval().down(stage, below).shape[1]
    vision.train(training)
    return channels


def split_text(text: TextEncoder, first: int, later: int) -> None:
    """Split the text encoder into its `first` layers and the `later` ones that fusion runs one by one."""
    if not text.num_layers:
        raise UserError(
            f"fusion.kind 'early' needs a text encoder such as BERT, whose layers can be run one by one; "
            f"{type(text).__name__} has none: use --model.text.name bert (or a BERT from the hub), "
            "or --model.fusion.kind late"
        )
    if not 0 < first <= text.num_layers - later:
        raise UserError(
            f"fusion.layers is {first} and {later} more layers follow, one for each later stage of the vision encoder, "
            f"but the text encoder has {text.num_layers} layers: lower fusion.layers or use a deeper text encoder"
        )
    text.split_layers(first, later)


def build_fusion(options: Fusion, vision: VisionEncoder, text: TextEncoder, reads_words: bool) -> NoFusion:
    """The fusion that `options.kind` names; `reads_words`: whether anything reads the words after it."""
    if options.kind == "early":
        return EarlyFusion(options, vision, text)
    if options.kind == "late":
        return LateFusion(options, vision.channels[-1], text.width, reads_words)
    return NoFusion(options, vision.channels[-1])
