"""The trained parts inside the frozen encoders: text adapters and dense aligners.

Sections 3 and 4 of docs/models/detris.md. Both reduce the width, add densely connected convolutions, and expand again.

    N sentences   L tokens   C channels of the encoder   a of the adapter   W of the words   p special tokens
    h x w the grid of the patches
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.errors import UserError
from riszoo.layers import to_grid, to_tokens

Grid = tuple[int, int]


@dataclass
class Adapters:
    """What text adapters and aligners share.

    convolutions  `dense`: each branch also reads the results of those before it; `plain`: none does; `none`
    scale         of what an adapter adds
    """

    convolutions: Literal["dense", "plain", "none"] = "dense"
    scale: float = 0.2


@dataclass
class TextAdapters:
    """Section 3. `layers` are counted from 0."""

    enabled: bool = True
    width: int = 64
    layers: tuple[int, ...] = (1, 3, 5, 7, 9, 11)


@dataclass
class Aligners:
    """Section 4. Encoders in stages have an aligner after every stage, whatever `blocks` says.

    blocks         of a ViT, counted from 0
    words          patches attend to the words
    attention      channels of that attention
    """

    enabled: bool = True
    width: int = 128
    blocks: tuple[int, ...] = (1, 3, 5, 7, 9, 11)
    words: bool = True
    attention: int = 128
    heads: int = 8
    dropout: float = 0.1


class ConvNormReLU(nn.Sequential):
    """A convolution with bias that keeps the size, BatchNorm with eps 1e-3, ReLU; in one or two dimensions."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dims: int) -> None:
        if dims == 1:
            convolution: nn.Module = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
            norm: nn.Module = nn.BatchNorm1d(outputs, eps=1e-3)
        else:
            convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
            norm = nn.BatchNorm2d(outputs, eps=1e-3)
        super().__init__(convolution, norm, nn.ReLU())


class MixedConvolutions(nn.Module):
    """Kernels 1, 3 and 5 side by side, (N, a, ...) twice; if `dense`, each branch also reads those before it."""

    def __init__(self, width: int, dims: int, dense: bool) -> None:
        super().__init__()
        if width < 16 or width % 16:
            raise UserError(f"the adapters' width {width} is invalid: give a multiple of 16")
        self.dense = dense
        half, quarter, narrow = width // 2, width // 4, width // 16
        second, third = (width + half, width + half + quarter) if dense else (width, width)
        self.branches = nn.ModuleList(
            nn.ModuleList(ConvNormReLU(*sizes, dims) for sizes in layers)
            for layers in (
                [(width, half, 1)],
                [(second, narrow, 1), (narrow, quarter, 3)],
                [(third, narrow, 1), (narrow, quarter, 5)],
            )
        )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """`valid` (N, 1, L) sets the positions of pads to zero before each convolution and after the last."""
        results = [zeroed(x, valid)]
        for branch in self.branches:
            assert isinstance(branch, nn.ModuleList)
            y = torch.cat(results, 1) if self.dense else results[0]
            for layer in branch:
                y = zeroed(layer(y), valid)
            results.append(y)
        return torch.cat(results[1:], 1)


def zeroed(x: Tensor, valid: Tensor | None) -> Tensor:
    """`x` (N, a, L) with zeros where `valid` (N, 1, L) is false."""
    return x if valid is None else x.masked_fill(~valid, 0)


def mixed_convolutions(adapters: Adapters, width: int, dims: int) -> MixedConvolutions | None:
    """None where the adapters have no convolutions."""
    kind = adapters.convolutions
    return None if kind == "none" else MixedConvolutions(width, dims, dense=kind == "dense")


class TextAdapter(nn.Module):
    """Beside the feed-forward part of a text layer: reads the stream (N, L, C) as it is, returns what is added to it.

    The first token has no convolutions: its reduced state counts twice, for itself and in place of their result.
    """

    def __init__(self, channels: int, width: int, adapters: Adapters) -> None:
        super().__init__()
        self.scale = adapters.scale
        self.down = nn.Linear(channels, width)
        self.convolutions = mixed_convolutions(adapters, width, 1)
        self.up = nn.Linear(width, channels)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(parameter.half())  # as initialised by the authors' code

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """`valid` (N, L) excludes pads from the convolutions; without it they count like words."""
        reduced = F.relu(self.down(x))  # (N, L, a)
        if self.convolutions is not None:
            mixed = self.convolutions(reduced[:, 1:].mT, None if valid is None else valid[:, None, 1:]).mT
            reduced = reduced + torch.cat([reduced[:, :1], mixed], 1)
        update: Tensor = self.scale * self.up(reduced)
        return update


class WordAttention(nn.Module):
    """Patches attend to the words, in a width of its own."""

    def __init__(self, width: int, words: int, options: Aligners) -> None:
        super().__init__()
        if options.attention % options.heads:
            raise UserError(f"aligners.attention {options.attention} must be a multiple of its heads ({options.heads})")
        self.image = nn.Linear(width, options.attention)
        self.text = nn.Linear(words, options.attention)
        self.attention = nn.MultiheadAttention(
            options.attention, options.heads, dropout=options.dropout, batch_first=True
        )
        self.back = nn.Linear(options.attention, width)

    def forward(
        self, patches: Tensor, words: Tensor, valid: Tensor | None, explain: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(N, hw, a), and if `explain` the weight of each word at each patch, (N, hw, L), the mean over the heads."""
        key = self.text(words)
        padding = None if valid is None else ~valid
        attended, weights = self.attention(self.image(patches), key, key, padding, need_weights=explain)
        return self.back(attended), weights


class DenseAligner(nn.Module):
    """Beside the MLP of a block: reads its normalised tokens (N, p + hw, C), returns what is added to the MLP's result.

    The p special tokens have no convolutions: as in the text adapter, their reduced states count twice.
    """

    def __init__(self, channels: int, words: int, special: int, options: Aligners, adapters: Adapters) -> None:
        super().__init__()
        self.special, self.scale = special, adapters.scale
        self.down = nn.Linear(channels, options.width)
        self.convolutions = mixed_convolutions(adapters, options.width, 2)
        self.words = WordAttention(options.width, words, options) if options.words else None
        self.up = nn.Linear(options.width, channels)
        self.apply(initialise)

    def forward(
        self, x: Tensor, words: Tensor, valid: Tensor | None, grid: Grid, evidence: dict[str, Tensor] | None = None
    ) -> Tensor:
        """`valid` (N, L) excludes pads from the words; `evidence` receives the attention to the words."""
        reduced = F.relu(self.down(x))  # (N, p + hw, a)
        special, patches = reduced[:, : self.special], reduced[:, self.special :]
        mixed = patches
        if self.convolutions is not None:
            mixed = mixed + to_tokens(self.convolutions(to_grid(patches, grid)))
        if self.words is not None:
            mixed, weights = self.words(mixed, words, valid, explain=evidence is not None)
            if evidence is not None and weights is not None:
                evidence["alignment"] = to_grid(weights.detach(), grid)  # (N, L, h, w)
        update: Tensor = self.scale * self.up(torch.cat([2 * special, patches + mixed], 1))
        return update


def initialise(module: nn.Module) -> None:
    """The authors' initial weights of an aligner."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
