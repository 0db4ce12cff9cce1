"""CGFormer's query tokens: how they read the words and how they group the pixels.

Sections 4 and 5 of docs/models/cgformer.md.

    N sentences   L words   S width of the words   T query tokens   C channels   P pixels of a grid
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from riszoo.batch import Words

TINY = torch.finfo(torch.float32).tiny
Noise = Literal["seeded", "always", "training", "never"]


@dataclass
class Group:
    """Section 5.

    kind         hard: each pixel belongs to one token; soft: to each in part; attention: plain cross-attention
    noise        Gumbel noise on the scores of a hard grouping. It is drawn in training; in evaluation it is one seeded
                 draw for all sentences (`seeded`), drawn anew (`always`, as the authors' code) or absent (`training`).
                 `never`: no noise in training either
    consecutive  each grouping reads a map made of two neighbouring levels; without it, of one level
    dropout      of the token updates, in training
    """

    kind: Literal["hard", "soft", "attention"] = "hard"
    noise: Noise = "seeded"
    consecutive: bool = True
    dropout: float = 0.1


class TokenUpdate(nn.Sequential):
    """LayerNorm and feed-forward, without a residual connection."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.LayerNorm(width),
            *(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout)),
            *(nn.Linear(2 * width, width), nn.Dropout(dropout)),
        )


class WordReader(nn.Module):
    """Section 4: tokens attend to the words, with one head; then all tokens are updated.

    Args:
        readers: the last token alone attends to the words, or all tokens
    """

    def __init__(self, width: int, words: int, readers: Literal["last", "all"], dropout: float) -> None:
        super().__init__()
        self.readers, self.scale = readers, width**-0.5
        self.norm_query, self.norm_words = nn.LayerNorm(width), nn.LayerNorm(words)
        self.query = nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(words, width, bias=False), nn.Linear(words, width, bias=False)
        self.project = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.update = TokenUpdate(width)

    def forward(self, tokens: Tensor, words: Words) -> Tensor:
        """(N, T, C) -> (N, T, C)"""
        if self.readers == "all":
            tokens = self.attend(tokens, words)
        else:
            tokens = torch.cat([tokens[:, :-1], self.attend(tokens[:, -1:], words)], 1)
        updated: Tensor = self.update(tokens)
        return updated

    def attend(self, tokens: Tensor, words: Words) -> Tensor:
        query, states = self.query(self.norm_query(tokens)), self.norm_words(words.states)
        scores = self.scale * query @ self.key(states).mT  # (N, T, L)
        weights = scores.masked_fill(~words.mask[:, None], -float("inf")).softmax(-1)
        attended = self.project(self.dropout(weights) @ self.value(states))
        updated: Tensor = tokens + self.dropout(attended)
        return updated


class GumbelNoise(nn.Module):
    """Gumbel(0, 1) noise for every score (N, T, P), or zeros.

    A token that was trained to share the pixels with others by chance gets too few or too many of them without noise.

    Args:
        tokens, pixels: T and each P that occurs, for the draws of `seeded`
    """

    def __init__(self, when: Noise, tokens: int, pixels: Iterable[int]) -> None:
        super().__init__()
        self.when = when
        for count in set(pixels) if when == "seeded" else ():
            generator = torch.Generator().manual_seed(count)
            exponential = -torch.rand(tokens, count, generator=generator, device="cpu").clamp_min(TINY).log()
            self.register_buffer(f"draw_{count}", -exponential.clamp_min(TINY).log(), persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        if self.when == "always" or (self.when != "never" and self.training):
            exponential = torch.empty_like(scores).exponential_()
            return -exponential.clamp_min(torch.finfo(scores.dtype).tiny).log()
        if self.when == "seeded":
            draw: Tensor = getattr(self, f"draw_{scores.shape[-1]}")
            return draw.to(scores).expand_as(scores)
        return torch.zeros_like(scores)


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """(N, T, C), (N, P, C) -> (N, T, P), in float32 at least."""
    query, key = (x / (x.norm(dim=-1, keepdim=True) + 1e-12) for x in (query, key))
    scores = query @ key.mT
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


class TokenAttention(nn.Module):
    """`attention`: each token attends to the pixels, whatever the other tokens attend to."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_tokens, self.norm_pixels = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.key = self.build_key(width)
        self.project, self.dropout = nn.Linear(width, width), nn.Dropout(dropout)
        self.update = TokenUpdate(width, dropout)

    def build_key(self, width: int) -> nn.Linear:
        """Without a bias, which would shift all scores of a token alike."""
        return nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, pixels: Tensor, noise: nn.Module) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, C) and pixels (N, P, C) -> the updated tokens, and what each token reads of each pixel
        (N, T, P)."""
        pixels = self.norm_pixels(pixels)
        query, key = self.query(self.norm_tokens(tokens)), self.key(pixels)
        hits = self.hits(query, key, noise)
        read = self.project(self.normalised(hits).to(query.dtype) @ self.value(pixels))
        return self.update(self.dropout(read) + tokens), hits

    def hits(self, query: Tensor, key: Tensor, noise: nn.Module) -> Tensor:
        weights: Tensor = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
        return weights

    def normalised(self, hits: Tensor) -> Tensor:
        """The weights of the pixels in the sum that a token reads."""
        return hits


class SoftGrouping(TokenAttention):
    """`soft`: each pixel is shared among the tokens.

    `tau` is the logarithm of the temperature, at most 0. It starts at 1, so no gradient ever reaches it.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(width, dropout)
        self.tau = nn.Parameter(torch.ones(1), requires_grad=False)

    def build_key(self, width: int) -> nn.Linear:
        return nn.Linear(width, width)

    def hits(self, query: Tensor, key: Tensor, noise: nn.Module) -> Tensor:
        return (cosine(query, key) / self.tau.clamp(max=0).exp()).softmax(1)

    def normalised(self, hits: Tensor) -> Tensor:
        return hits / (hits.sum(-1, keepdim=True) + 1)


class HardGrouping(SoftGrouping):
    """`hard`: each pixel belongs to the token with the largest score; the gradient is that of the softmax."""

    def hits(self, query: Tensor, key: Tensor, noise: nn.Module) -> Tensor:
        scores = cosine(query, key)
        shares: Tensor = ((scores + noise(scores)) / self.tau.clamp(max=0).exp()).softmax(1)
        chosen = torch.zeros_like(shares).scatter(1, shares.argmax(1, keepdim=True), 1.0)
        return chosen - shares.detach() + shares


GROUPINGS = {"hard": HardGrouping, "soft": SoftGrouping, "attention": TokenAttention}
