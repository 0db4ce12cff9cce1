"""Where image and sentence meet inside VIPA's encoders: nowhere, after them (late), or stage by stage (early).

Section 3.3 of docs/models/vipa.md. Any vision encoder of the zoo will do; early fusion also needs a text encoder
whose layers can be taken apart. `Look` is what the visual expression and the decoder are built of, too.

    N sentences   L tokens of a sentence   K keys   C channels of a stage   h x w its grid
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Features, Words, valid_cells
from riszoo.encoders.base import TextEncoder, VisionEncoder
from riszoo.encoders.text import valid_only
from riszoo.errors import UserError


@dataclass
class Fusion:
    """Section 3.3. `layers` of the text encoder come before any pixel (early), one more goes with each later stage.

    `head` channels make one attention head; the words meet the pixels on at least `least` channels.
    """

    kind: Literal["none", "late", "early"] = "early"
    layers: int = 6
    head: int = 64
    least: int = 256


def to_tokens(grid: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, hw, C)"""
    return grid.flatten(2).transpose(1, 2)


def to_grid(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, hw, C) -> (N, C, h, w) on the grid of another map"""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, like.shape[-2], like.shape[-1])


def heads_of(width: int, head: int) -> int:
    """As many heads of about `head` channels as the width can be divided into."""
    return next(heads for heads in range(max(1, width // head), 0, -1) if width % heads == 0)


def in_heads(x: Tensor, heads: int) -> Tensor:
    """(N, Q, C) -> (N, heads, Q, C / heads)"""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """(N, Q, C) over (N, K, C); `mask` (N, Q or 1, K) is true where a query may look."""
    q, k, v = (in_heads(x, heads) for x in (q, k, v))
    seen: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None])
    return seen.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Queries over keys and values of another width. A key's bias would move all its scores alike: there is none."""

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(context or width, width, bias=False)
        self.v = nn.Linear(context or width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        seen: Tensor = self.out(attend(self.q(queries), self.k(keys), self.v(values), self.heads, mask))
        return seen

    def weights(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """(N, Q, K): how much of each key a query takes, mean over the heads."""
        q, k = in_heads(self.q(queries), self.heads), in_heads(self.k(keys), self.heads)
        scores: Tensor = q @ k.mT / q.shape[-1] ** 0.5  # (N, heads, Q, K)
        return scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1).mean(1)


class FeedForward(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class Look(nn.Module):
    """Tokens look at a context, or at each other where none is given, then each thinks by itself; norms come first."""

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads, context)
        self.norm_feed, self.feed = nn.LayerNorm(width), FeedForward(width)

    def forward(
        self, x: Tensor, mask: Tensor | None, keys: Tensor | None = None, values: Tensor | None = None
    ) -> Tensor:
        y = self.norm(x)
        keys = y if keys is None else keys
        x = x + self.attention(y, keys, keys if values is None else values, mask)
        thought: Tensor = x + self.feed(self.norm_feed(x))
        return thought


class NoFusion(nn.Module):
    """Both encoders run alone."""

    def forward(
        self, seen: Features, words: Words, vision: VisionEncoder, text: TextEncoder
    ) -> tuple[list[Tensor], Words]:
        return seen.maps, words


class LateFusion(NoFusion):
    """After both encoders, the coarsest map and the words look at each other once."""

    def __init__(self, options: Fusion, channels: int, words: int) -> None:
        super().__init__()
        self.pixels = Look(channels, heads_of(channels, options.head), words)
        self.words = Look(words, heads_of(words, options.head), channels)

    def forward(
        self, seen: Features, words: Words, vision: VisionEncoder, text: TextEncoder
    ) -> tuple[list[Tensor], Words]:
        *finer, coarse = seen.maps
        pixels = to_tokens(coarse)  # (N, hw, C)
        fused = to_grid(self.pixels(pixels, words.mask[:, None], words.states), coarse)
        states = self.words(words.states, seen.cells().flatten(1)[:, None], pixels)
        return [*finer, fused], _with_states(words, states)


def _with_states(words: Words, states: Tensor) -> Words:
    return Words(valid_only(states, words.mask), words.mask, words.global_index, words.spans)


class Fuse(nn.Module):
    """Fuse(v, w): each pixel takes from the words. InstanceNorm is over pixels, so no pad word leaks through it;
    biases just before it would vanish in it."""

    def __init__(self, channels: int, words: int, options: Fusion) -> None:
        super().__init__()
        hidden = max(channels, options.least)
        self.heads = heads_of(hidden, options.head)
        self.q = nn.Linear(channels, hidden, bias=False)
        self.k, self.v = nn.Linear(words, hidden, bias=False), nn.Linear(words, hidden, bias=False)
        self.back = nn.Linear(hidden, channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, pixels: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """(N, hw, C), (N, L, C'), (N, L) -> (N, hw, C)"""
        taken = attend(_over_pixels(self.q(pixels)), self.k(words), self.v(words), self.heads, mask[:, None])
        return F.gelu(self.out(_over_pixels(self.back(taken)) + pixels))


def _over_pixels(pixels: Tensor) -> Tensor:
    """InstanceNorm of (N, hw, C)"""
    return F.instance_norm(pixels.transpose(1, 2)).transpose(1, 2)


class Gated(nn.Module):
    """v + g(y) y with g = tanh(Linear(ReLU(Linear))): nothing passes at the start, and the gate still learns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, channels, bias=False), nn.ReLU(), nn.Linear(channels, channels, bias=False), nn.Tanh()
        )
        nn.init.zeros_(self.gate[2].weight)  # type: ignore[arg-type]

    def forward(self, v: Tensor, y: Tensor) -> Tensor:
        passed: Tensor = v + self.gate(y) * y
        return passed


class Hear(nn.Module):
    """A language stage's look at the pixels that enter the vision stage: as a BERT layer, each norm comes last."""

    def __init__(self, words: int, pixels: int, options: Fusion) -> None:
        super().__init__()
        self.attention = Attention(words, heads_of(words, options.head), pixels)
        self.feed = FeedForward(words)
        self.norm, self.norm_feed = nn.LayerNorm(words), nn.LayerNorm(words)

    def forward(self, words: Tensor, pixels: Tensor, cells: Tensor) -> Tensor:
        words = self.norm(words + self.attention(words, pixels, pixels, cells[:, None]))
        heard: Tensor = self.norm_feed(words + self.feed(words))
        return heard


class EarlyFusion(NoFusion):
    """Every stage's pixels take from the words, and every later stage's words first look at its pixels."""

    def __init__(self, options: Fusion, vision: VisionEncoder, text: TextEncoder) -> None:
        super().__init__()
        channels, words = vision.channels, text.width
        entering = [_entering(vision, stage) for stage in range(1, len(channels))]
        self.fuse = nn.ModuleList(Fuse(c, words, options) for c in channels)
        self.norm = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.gate = nn.ModuleList(Gated(c) for c in channels[:-1])
        self.fuse_down = nn.ModuleList(Fuse(c, words, options) for c in entering)
        self.gate_down = nn.ModuleList(Gated(c) for c in entering)
        self.hear = nn.ModuleList(Hear(words, c, options) for c in entering)
        split_layers(text, options.layers, len(entering))

    def forward(
        self, seen: Features, words: Words, vision: VisionEncoder, text: TextEncoder
    ) -> tuple[list[Tensor], Words]:
        x, states = seen.maps[0], words.states  # the first stage's blocks and layers have run: nothing has met yet
        maps: list[Tensor] = []
        for stage in range(len(vision.channels)):
            if stage:
                x = self._down(stage, x, states, words.mask, vision)
                states = self._listen(stage, states, words.mask, x, seen, text)
                x = vision.blocks(stage, x)
            taken = self.fuse[stage](to_tokens(x), states, words.mask)
            maps.append(to_grid(self.norm[stage](taken), x))
            if stage < len(self.gate):
                x = to_grid(self.gate[stage](to_tokens(x), taken), x)
        return maps, _with_states(words, states)

    def _down(self, stage: int, x: Tensor, states: Tensor, mask: Tensor, vision: VisionEncoder) -> Tensor:
        """The encoder's step to the next grid, where the pixels take from the words again."""
        x = vision.down(stage, x)
        pixels = to_tokens(x)
        return to_grid(self.gate_down[stage - 1](pixels, self.fuse_down[stage - 1](pixels, states, mask)), x)

    def _listen(self, stage: int, states: Tensor, mask: Tensor, x: Tensor, seen: Features, text: TextEncoder) -> Tensor:
        """A later language stage: look at the pixels that enter the vision stage, then one layer of the encoder."""
        cells = valid_cells(seen.valid, seen.size, (x.shape[-2], x.shape[-1])).flatten(1)
        states = self.hear[stage - 1](states, to_tokens(x), cells)
        hidden = torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, torch.finfo(states.dtype).min)
        listened: Tensor = text.get_submodule(f"later.{stage - 1}")(states, hidden[:, None, None])
        return listened


def _entering(vision: VisionEncoder, stage: int) -> int:
    """Channels of what enters a stage: `down` makes them, or leaves them to the stage's blocks."""
    training = vision.training
    device = next(vision.parameters()).device
    with torch.no_grad():
        below = torch.zeros(1, vision.channels[stage - 1], 8, 8, device=device)
        channels = vision.eval().down(stage, below).shape[1]
    vision.train(training)
    return channels


def split_layers(text: TextEncoder, first: int, later: int) -> None:
    """Keep `first` layers as the encoder and the next `later` ones apart, as `text.later`; the rest are not used."""
    layers = getattr(getattr(getattr(text, "model", None), "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        raise UserError(
            f"fusion.kind 'early' takes the layers of a BERT apart, and {type(text).__name__} has none: "
            "give --model.text.name bert (or a hub BERT), or --model.fusion.kind late"
        )
    if not 0 < first <= len(layers) - later:
        raise UserError(
            f"fusion.layers is {first} and {later} more follow, one for each later stage of the vision encoder, "
            f"but the text encoder has {len(layers)} layers: lower fusion.layers or take a deeper text encoder"
        )
    text.get_submodule("model.encoder").layer = layers[:first]
    text.add_module("later", layers[first : first + later])


def build_fusion(options: Fusion, vision: VisionEncoder, text: TextEncoder) -> NoFusion:
    if options.kind == "early":
        return EarlyFusion(options, vision, text)
    if options.kind == "late":
        return LateFusion(options, vision.channels[-1], text.width)
    return NoFusion()
