"""How language enters a stage of the vision encoder: the pixel-word attention module and the language gate.

Sections 3 and 4 of docs/models/lavt.md.

    N sentences   L tokens   W channels of the words   C channels of a stage   h x w its grid
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from riszoo.batch import Words
from riszoo.errors import UserError
from riszoo.layers import split_heads


@dataclass
class Fusion:
    """Section 3. `sentence` replaces the attention of each pixel by the mean of the words.

    heads  of the attention, one number for all stages or one for each
    norm   of the queries and of what the attention returns
    """

    kind: Literal["words", "sentence"] = "words"
    heads: int | tuple[int, ...] = 1
    norm: Literal["instance", "layer", "batch", "none"] = "instance"
    dropout: float = 0.0

    def heads_of(self, channels: list[int]) -> list[int]:
        """The number of heads of each stage; each must divide the stage's channels."""
        heads = [self.heads] * len(channels) if isinstance(self.heads, int) else list(self.heads)
        if len(heads) != len(channels) or any(n < 1 or width % n for n, width in zip(heads, channels, strict=True)):
            raise UserError(
                f"fusion.heads {self.heads} is invalid: give one number, or one for each stage, that divides the "
                f"channels {channels}"
            )
        return heads


class OverPixels(nn.Module):
    """A norm of (N, C, hw) applied to (N, hw, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, pixels: Tensor) -> Tensor:
        normed: Tensor = self.norm(pixels.transpose(1, 2)).transpose(1, 2)
        return normed


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": lambda channels: OverPixels(nn.InstanceNorm1d(channels)),
    "batch": lambda channels: OverPixels(nn.BatchNorm1d(channels)),
    "layer": nn.LayerNorm,
    "none": lambda channels: nn.Identity(),
}


class SentenceFusion(nn.Module):
    """The pixels times one vector for the whole sentence."""

    def __init__(self, channels: int, words: int, dropout: float) -> None:
        super().__init__()
        self.visual = nn.Linear(channels, channels)
        self.value = nn.Linear(words, channels)
        self.project = nn.Linear(channels, channels)
        self.merge = nn.Linear(channels, channels)
        self.activation = nn.Sequential(nn.GELU(), nn.Dropout(dropout))

    def image_parts(self, pixels: Tensor) -> list[Tensor]:
        """What depends on the pixels (N, hw, C) alone."""
        return [self.activation(self.visual(pixels))]

    def forward(self, parts: list[Tensor], words: Words) -> tuple[Tensor, Tensor]:
        """The product R (N, hw, C), and the weight of each word at each pixel (N, hw, L)."""
        mask = words.mask[:, None].to(parts[0].dtype)  # (N, 1, L)
        weights = mask / mask.sum(-1, keepdim=True)
        language = self.project(weights @ self.value(words.states))  # (N, 1, C)
        return self.merged(parts[0], language), weights.expand(-1, parts[0].shape[1], -1)

    def merged(self, visual: Tensor, language: Tensor) -> Tensor:
        merged: Tensor = self.activation(self.merge(visual * language))
        return merged


class PixelWordAttention(SentenceFusion):
    """The pixels times a vector of their own: what each one attends to among the words.

    Scores are divided by the root of all channels, whatever the number of heads.
    """

    def __init__(self, channels: int, words: int, heads: int, norm: str, dropout: float) -> None:
        super().__init__(channels, words, dropout)
        self.heads, self.scale = heads, channels**-0.5
        self.query, self.norm_query = nn.Linear(channels, channels), NORMS[norm](channels)
        self.key, self.norm_project = nn.Linear(words, channels), NORMS[norm](channels)

    def image_parts(self, pixels: Tensor) -> list[Tensor]:
        return [*super().image_parts(pixels), self.norm_query(self.query(pixels))]

    def forward(self, parts: list[Tensor], words: Words) -> tuple[Tensor, Tensor]:
        visual, query = parts
        query, key, value = (
            split_heads(x, self.heads) for x in (query, self.key(words.states), self.value(words.states))
        )
        scores = self.scale * query @ key.mT  # (N, n, hw, L)
        weights = scores.masked_fill(~words.mask[:, None, None], -float("inf")).softmax(-1)
        attended = (weights @ value).transpose(1, 2).flatten(2)  # (N, hw, C)
        return self.merged(visual, self.norm_project(self.project(attended))), weights.mean(1)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "none": nn.Identity}


class LanguageGate(nn.Sequential):
    """g(R): for each pixel and channel, how much of the product is added to what the next stage sees."""

    def __init__(self, channels: int, activation: str) -> None:
        first, second = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        for linear in (first, second):
            nn.init.trunc_normal_(linear.weight, std=0.02)
        super().__init__(first, nn.ReLU(), second, ACTIVATIONS[activation]())


def build_fusion(options: Fusion, channels: list[int], words: int) -> nn.ModuleList:
    """One module for each stage."""
    if options.kind == "sentence":
        return nn.ModuleList(SentenceFusion(c, words, options.dropout) for c in channels)
    return nn.ModuleList(
        PixelWordAttention(c, words, heads, options.norm, options.dropout)
        for c, heads in zip(channels, options.heads_of(channels), strict=True)
    )
