"""RISAM's mutual-aware attention (section 5 of docs/models/risam.md).

N sentences   L words   d channels   n cells of the grid   H heads
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from riszoo.layers import FeedForward, split_heads
from riszoo.models.risam.options import MutualAware


@dataclass(frozen=True)
class Context:
    """Position codes and masks of cells and words, the same for every block and the decoder."""

    cell_code: Tensor  # (n, d)
    word_code: Tensor  # (L, d)
    cell_mask: Tensor  # (N, n) bool, true inside the image
    word_mask: Tensor  # (N, L) bool, true on real tokens


class Affinity(nn.Module):
    """Scores between all cells and all words."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.cell = nn.Linear(width, width)
        self.word = nn.Linear(width, width)

    def forward(self, cells: Tensor, words: Tensor) -> Tensor:
        """(N, n, d), (N, L, d) -> (N, H, n, L)"""
        query, key = split_heads(self.cell(cells), self.heads), split_heads(self.word(words), self.heads)
        return query @ key.mT / math.sqrt(query.shape[-1])


class VisionGuidedAttention(nn.Module):
    """VGA: each cell attends to the words, by A."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, scores: Tensor, words: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """scores (N, H, n, L) and words (N, L, d) -> the update of the cells (N, n, d), and A (N, H, n, L)"""
        attention = over_words(scores, context.word_mask)
        return self.out(join_heads(attention @ split_heads(self.value(words), self.heads))), attention


class LanguageGuidedAttention(nn.Module):
    """LGA: each word attends to the cells, by the transposed scores, normalised again."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, scores: Tensor, cells: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """scores (N, H, n, L) and cells (N, n, d) -> the update of the words (N, L, d), and A^T (N, H, L, n)"""
        attention = self.normalise(scores, context)
        return self.out(join_heads(attention @ split_heads(self.value(cells), self.heads))), attention

    def normalise(self, scores: Tensor, context: Context) -> Tensor:
        return over_cells(scores.mT, context.cell_mask)


class PrunedLanguageGuidedAttention(LanguageGuidedAttention):
    """`ma.prune` mean: a word attends only to cells whose score is not below its mean."""

    def normalise(self, scores: Tensor, context: Context) -> Tensor:
        return over_cells(prune(scores.mT, context.cell_mask), context.cell_mask)


class TransposedLanguageGuidedAttention(LanguageGuidedAttention):
    """`ma.lga_norm` literal_transpose: A itself, transposed, which is not a distribution over the cells."""

    def normalise(self, scores: Tensor, context: Context) -> Tensor:
        return over_words(scores, context.word_mask).mT * context.cell_mask[:, None, None]


def join_heads(x: Tensor) -> Tensor:
    """(N, H, k, d / H) -> (N, k, d)"""
    return x.transpose(1, 2).flatten(2)


def over_words(scores: Tensor, word_mask: Tensor) -> Tensor:
    """A: (N, H, n, L), each cell's row a distribution over the words."""
    return scores.masked_fill(~word_mask[:, None, None], -math.inf).softmax(-1)


def over_cells(scores: Tensor, cell_mask: Tensor) -> Tensor:
    """A^T: (N, H, L, n), each word's row a distribution over the image's cells."""
    return scores.masked_fill(~cell_mask[:, None, None], -math.inf).softmax(-1)


def prune(scores: Tensor, cell_mask: Tensor) -> Tensor:
    """(N, H, L, n) with -inf below each word's mean over the image's cells; its largest score always stays."""
    outside = ~cell_mask[:, None, None]
    mean = scores.masked_fill(outside, 0).sum(-1, keepdim=True) / cell_mask.sum(-1)[:, None, None, None]
    largest = scores.masked_fill(outside, -math.inf).amax(-1, keepdim=True)
    return scores.masked_fill(scores < torch.minimum(mean, largest), -math.inf)


def language_guided(options: MutualAware, width: int) -> LanguageGuidedAttention:
    if options.lga_norm == "literal_transpose":
        return TransposedLanguageGuidedAttention(width, options.heads)
    kind = PrunedLanguageGuidedAttention if options.prune == "mean" else LanguageGuidedAttention
    return kind(width, options.heads)


class MutualAwareBlock(nn.Module):
    """Both branches read the block's inputs, side by side; a feed-forward follows in each stream.

    `updates_words` is False in a last block whose words nothing reads: it has only the cells' stream.
    """

    def __init__(self, options: MutualAware, width: int, updates_words: bool = True) -> None:
        super().__init__()
        vga, lga = options.vga, options.lga and updates_words
        affinities = 2 if vga and lga and not options.shared_affinity else int(vga or lga)
        norms = (nn.LayerNorm(width) if affinities else nn.Identity() for _ in range(2))
        self.norm_cells, self.norm_words = norms
        self.affinities = nn.ModuleList(Affinity(width, options.heads) for _ in range(affinities))
        self.vision_guided = VisionGuidedAttention(width, options.heads) if vga else None
        self.language_guided = language_guided(options, width) if lga else None
        self.cell_feed_forward = pre_norm_feed_forward(width, options.hidden)
        self.word_feed_forward = pre_norm_feed_forward(width, options.hidden) if updates_words else None

    def forward(self, cells: Tensor, words: Tensor, context: Context) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Cells (N, n, d) and words (N, L, d) -> the same, updated, and the branches' attention"""
        attention: dict[str, Tensor] = {}
        v, w = self.norm_cells(cells), self.norm_words(words)
        scores = [affinity(v + context.cell_code, w + context.word_code) for affinity in self.affinities]
        if self.vision_guided is not None:
            update, attention["word_attention"] = self.vision_guided(scores[0], w, context)
            cells = cells + update
        if self.language_guided is not None:
            update, attention["region_attention"] = self.language_guided(scores[-1], v, context)
            words = words + update
        cells = cells + self.cell_feed_forward(cells)
        if self.word_feed_forward is not None:
            words = words + self.word_feed_forward(words)
        return cells, words * context.word_mask[..., None], attention


def pre_norm_feed_forward(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), FeedForward(width, hidden))
