"""VIPA's contribution, the visual expression, and the language expressions that it is compared with.

The decoder's keys and values are not words but visual tokens: for every cue of the sentence ([CLS] is the global cue,
words are local cues) step 1 retrieves the image's most relevant tokens and pools them, and step 2 refines the result.
Sections and symbols are those of docs/models/vipa.md, section 4.

    N sentences   L cues   T visual tokens on h x w   d width   W channels of the words
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Words
from riszoo.errors import UserError
from riszoo.layers import LearnedToken, sine_2d, to_tokens
from riszoo.models.vipa.blocks import AttentionBlock


@dataclass
class Veg:
    """Section 4. `step1` retrieves, `step2` refines; `ratio` of the image's tokens are retrieved for a cue.

    `ratio` "adaptive" retrieves the fewest tokens that carry `share` of a cue's relevance. `cues` "global" is the
    literal reading (one key); "broadcast" gives every word the tokens of the global cue. `position` adds a sine code
    to the keys of step 2. `keep_cue` adds each cue to the mean of its retrieved tokens, which alone does not tell cues
    that retrieve the same tokens apart; `broadcast` always does.
    """

    step1: bool = True
    step2: bool = True
    cues: Literal["both", "global", "broadcast", "local", "none"] = "both"
    stride: int = 32
    ratio: float | Literal["adaptive"] = 0.3
    share: float = 0.8
    score: Literal["cosine", "dot"] = "cosine"
    sampling: Literal["gumbel_st", "softmax_st", "hard"] = "gumbel_st"
    aggregate: Literal["mean", "softmax", "max"] = "mean"
    position: bool = False
    keep_cue: bool = False


@dataclass
class Expression:
    """The decoder's keys and values, which of them count, and how they came about."""

    states: Tensor  # (N, L, d)
    mask: Tensor  # (N, L) bool
    scores: Tensor | None = None  # S (N, L, T), with retrieval
    retrieved: Tensor | None = None  # M (N, L, T) bool, with retrieval
    attention: Tensor | None = None  # (N, L, T), in evaluation


class Projection(nn.Sequential):
    """Linear and LayerNorm, to the working width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(nn.Linear(channels, width), nn.LayerNorm(width))


class VisualExpressionGenerator(nn.Module):
    """Section 4: words and visual tokens in, one refined visual token for each cue out.

    Args:
        channels, words: of the visual tokens and of the words
        length: of the longest sentence, where queries are learned
    """

    def __init__(self, options: Veg, *, channels: int, words: int, length: int, width: int, heads: int) -> None:
        super().__init__()
        check(options)
        self.project = Projection(channels, width)
        self.step1 = build_step1(options, words, length, width)
        self.step2 = Refinement(width, heads, options.position) if options.step2 else None

    def forward(self, grid: Tensor, words: Words, fused_words: Words, cells: Tensor) -> Expression:
        """A map (N, C, h, w), the words before and after the fusion, and the valid cells (N, T) of the map."""
        tokens = self.project(to_tokens(grid))  # F_v (N, T, d)
        pooled, rows, mask, scores = self.step1(tokens, fused_words, cells)  # F_a (N, L, d), (N, L), M (N, L, T), S
        retrieved = None if scores is None else mask
        if self.step2 is None:
            return Expression(pooled, rows, scores, retrieved)
        states, attention = self.step2(pooled, tokens, rows, mask, (grid.shape[-2], grid.shape[-1]))  # E_V (N, L, d)
        return Expression(states, rows, scores, retrieved, attention)


# -- step 1, sections 4.1 and 4.2: retrieval and aggregation -----------------------------------------------------------


class Retrieved(NamedTuple):
    """The cells retrieved for each word."""

    scores: Tensor  # S (N, L, T): relevance
    mask: Tensor  # M (N, L, T) bool
    weights: Tensor  # M_st (N, L, T): M by value, with the gradient that the sampling gives it


class Pooled(NamedTuple):
    """The output of step 1."""

    states: Tensor  # F_a (N, L, d)
    rows: Tensor  # (N, L) bool: the cues that count
    mask: Tensor  # M (N, L, T) bool: the tokens retrieved for each cue
    scores: Tensor | None  # S (N, L, T): relevance; None without retrieval


class Retrieval(nn.Module):
    """Step 1: scores every token for every cue, retrieves the most relevant ones, and pools them."""

    def __init__(self, options: Veg, words: int, width: int) -> None:
        super().__init__()
        self.project = Projection(words, width)
        self.relevance = RELEVANCE[options.score](width)
        self.out = nn.Linear(width, width)
        self.valid_rows = CUES[options.cues]
        self.select = selection(options)
        self.sampling = SAMPLING[options.sampling]
        self.aggregate = AGGREGATES[options.aggregate]
        self.keep_cue = options.keep_cue or options.cues == "broadcast"

    def forward(self, tokens: Tensor, words: Words, cells: Tensor) -> Pooled:
        """Visual tokens (N, T, d), the words, and the valid cells (N, T)."""
        return self.retrieve(self.project(words.states), tokens, words, cells)

    def retrieve(self, cues: Tensor, tokens: Tensor, words: Words, cells: Tensor) -> Pooled:
        """As `forward`, for cues E_L (N, L, d) that are already projected."""
        scores = self.score(cues, tokens, words)  # S (N, L, T)
        noisy = self.noisy(scores) if self.training else scores
        noisy = noisy.masked_fill(~cells[:, None], -torch.inf)
        mask = self.select(noisy.detach())  # M (N, L, T) bool
        retrieved = Retrieved(scores, mask, self.sampling.weights(mask.to(tokens.dtype), noisy))
        states = self.out(self.aggregate(retrieved, tokens))  # F_a (N, L, d)
        states = states + cues if self.keep_cue else states
        return Pooled(states, self.valid_rows(words), mask, scores)

    def score(self, cues: Tensor, tokens: Tensor, words: Words) -> Tensor:
        scores: Tensor = self.relevance(cues, tokens).float()
        return scores

    def noisy(self, scores: Tensor) -> Tensor:
        """The scores that tokens are retrieved by in training."""
        return self.sampling.noise(scores)


class BroadcastRetrieval(Retrieval):
    """Step 1 with the tokens of the global cue for every row; each row adds its own cue, so that rows differ."""

    def score(self, cues: Tensor, tokens: Tensor, words: Words) -> Tensor:
        scores = super().score(cues, tokens, words)
        return global_scores(scores, words)[:, None].expand_as(scores)

    def noisy(self, scores: Tensor) -> Tensor:
        return super().noisy(scores[:, :1]).expand_as(scores)  # one draw, so that all rows retrieve the same tokens


class LearnedQueries(nn.Module):
    """Step 1 switched off: learned queries in place of pooled tokens, and the whole image for each."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.queries = LearnedToken(torch.randn(length, width))

    def forward(self, tokens: Tensor, words: Words, cells: Tensor) -> Pooled:
        position = torch.arange(words.mask.shape[1], device=tokens.device).clamp(max=len(self.queries) - 1)
        queries = self.queries[position].expand(tokens.shape[0], -1, -1)  # (N, L, d)
        return Pooled(queries, words.mask, cells[:, None].expand(-1, queries.shape[1], -1), None)


def build_step1(options: Veg, words: int, length: int, width: int) -> nn.Module:
    """Step 1 as `options` describe it."""
    if not retrieves(options):
        return LearnedQueries(length, width)
    return (BroadcastRetrieval if options.cues == "broadcast" else Retrieval)(options, words, width)


def retrieves(options: Veg) -> bool:
    return options.step1 and options.cues != "none"


class DotRelevance(nn.Module):
    """Section 4.1, equation 1: a score for every cue and token, as a scaled dot product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cue, self.token = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, cues: Tensor, tokens: Tensor) -> Tensor:
        """(N, L, d), (N, T, d) -> (N, L, T)"""
        scores: Tensor = self.cue(cues) @ self.token(tokens).mT / math.sqrt(cues.shape[-1])
        return scores


class CosineRelevance(DotRelevance):
    """Section 4.1, equation 1, as a cosine over a learned temperature."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.temperature = nn.Parameter(torch.tensor(0.1))

    def forward(self, cues: Tensor, tokens: Tensor) -> Tensor:
        """(N, L, d), (N, T, d) -> (N, L, T)"""
        cosine: Tensor = F.normalize(self.cue(cues), dim=-1) @ F.normalize(self.token(tokens), dim=-1).mT
        return cosine / self.temperature.clamp(min=0.01)


RELEVANCE = {"dot": DotRelevance, "cosine": CosineRelevance}


class HardSampling:
    """No noise, and no gradient to the scores."""

    def noise(self, scores: Tensor) -> Tensor:
        """The scores that tokens are retrieved by in training."""
        return scores

    def weights(self, mask: Tensor, scores: Tensor) -> Tensor:
        """M_st: the mask by value; its gradient is the subject of the subclasses."""
        return mask


class SoftmaxSampling(HardSampling):
    """Straight-through: the mask's gradient is that of the softmax of the scores."""

    def weights(self, mask: Tensor, scores: Tensor) -> Tensor:
        soft = scores.softmax(-1)
        return mask + soft - soft.detach()


class GumbelSampling(SoftmaxSampling):
    """Straight-through, with Gumbel noise on the scores."""

    def noise(self, scores: Tensor) -> Tensor:
        return scores - torch.empty_like(scores).exponential_().log()


SAMPLING = {"hard": HardSampling(), "softmax_st": SoftmaxSampling(), "gumbel_st": GumbelSampling()}


def selection(options: Veg) -> Callable[[Tensor], Tensor]:
    """The function that turns scores (N, L, T), -inf at invalid cells, into the mask M (N, L, T)."""
    if options.ratio == "adaptive":
        return partial(select_by_share, share=options.share)
    return partial(select_by_ratio, ratio=options.ratio)


def select_by_ratio(scores: Tensor, ratio: float) -> Tensor:
    """M (N, L, T): the ceil(ratio T) best tokens of each row, where T counts the valid cells."""
    valid = (scores > -torch.inf).sum(-1, keepdim=True)  # (N, L, 1)
    wanted = torch.ceil(ratio * valid - 1e-6).clamp(min=1)
    most = max(1, math.ceil(ratio * scores.shape[-1] - 1e-6))
    best = scores.topk(most, -1).indices  # (N, L, most)
    within = torch.arange(most, device=scores.device) < wanted  # (N, L, most)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, within)


def select_by_share(scores: Tensor, share: float) -> Tensor:
    """M (N, L, T): the fewest tokens of each row that carry `share` of softmax(scores)."""
    mass, order = scores.softmax(-1).sort(-1, descending=True)
    needed = (mass.cumsum(-1) - mass < share) & (mass > 0)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, needed)


def mean_retrieved(retrieved: Retrieved, tokens: Tensor) -> Tensor:
    """The mean of the retrieved tokens, (N, L, d)."""
    return (retrieved.weights / retrieved.mask.sum(-1, keepdim=True)).to(tokens.dtype) @ tokens


def softmax_retrieved(retrieved: Retrieved, tokens: Tensor) -> Tensor:
    """The mean of the retrieved tokens weighted by the softmax of their relevance, (N, L, d)."""
    return retrieved.scores.masked_fill(~retrieved.mask, -torch.inf).softmax(-1).to(tokens.dtype) @ tokens


def max_retrieved(retrieved: Retrieved, tokens: Tensor) -> Tensor:
    """The largest value of the retrieved tokens in each channel, (N, L, d)."""
    weighted = retrieved.weights[..., None] * tokens[:, None]  # (N, L, T, d)
    return weighted.masked_fill(~retrieved.mask[..., None], -torch.inf).amax(2)


AGGREGATES = {"mean": mean_retrieved, "softmax": softmax_retrieved, "max": max_retrieved}


def all_cues(words: Words) -> Tensor:
    """(N, L) bool: every token of the sentence."""
    return words.mask


def global_cue(words: Words) -> Tensor:
    """(N, L) bool: the global token."""
    if words.global_index is None:
        raise UserError("this text encoder has no global token such as [CLS], which veg.cues needs: set it to 'both'")
    return torch.arange(words.mask.shape[1], device=words.mask.device) == words.global_index[:, None]


def local_cues(words: Words) -> Tensor:
    """(N, L) bool: every token but the global one."""
    return words.mask & ~global_cue(words)


CUES = {"both": all_cues, "broadcast": all_cues, "global": global_cue, "local": local_cues}


def global_scores(scores: Tensor, words: Words) -> Tensor:
    """(N, T): the relevance of the global cue; the mean of the words' where the text encoder has none."""
    if words.global_index is not None:
        return scores[torch.arange(scores.shape[0], device=scores.device), words.global_index]
    return (scores * words.mask[..., None]).sum(1) / words.mask.sum(1, keepdim=True)


# -- step 2, section 4.3: refinement ----------------------------------------------------------------------------------


class Refinement(nn.Module):
    """Step 2: cross-attention of each row to the tokens its cue retrieved, then self-attention among the rows."""

    def __init__(self, width: int, heads: int, position: bool) -> None:
        super().__init__()
        self.position = position
        self.cross_block, self.self_block = AttentionBlock(width, heads), AttentionBlock(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, pooled: Tensor, tokens: Tensor, rows: Tensor, mask: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None]:
        """F_a (N, L, d), F_v (N, T, d), valid rows (N, L), M (N, L, T) and the grid (h, w) of the tokens -> E_V
        (N, L, d), and in evaluation the weights of the cross-attention (N, L, T)."""
        keys = tokens + sine_2d(*size, tokens.shape[-1], tokens) if self.position else tokens
        weights = None
        if not self.training:
            weights = self.cross_block.attention.weights(self.cross_block.norm(pooled), keys, mask)
        refined = self.cross_block(pooled, mask, keys, tokens)  # F_r (N, L, d)
        return self.norm(self.self_block(refined, rows[:, None])), weights


# -- language expressions, Table 2 ------------------------------------------------------------------------------------


class VanillaLanguageExpression(nn.Module):
    """Words before the fusion as keys and values."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.project = Projection(words, width)

    def forward(self, grid: Tensor, words: Words, fused_words: Words, cells: Tensor) -> Expression:
        return Expression(self.project(words.states), words.mask)


class AdvancedLanguageExpression(VanillaLanguageExpression):
    """Words after the fusion as keys and values."""

    def forward(self, grid: Tensor, words: Words, fused_words: Words, cells: Tensor) -> Expression:
        return super().forward(grid, fused_words, fused_words, cells)


def build_expression(
    kind: str, options: Veg, *, channels: int, words: int, length: int, width: int, heads: int
) -> nn.Module:
    """The expression that `kind` names: ve, advanced_le or vanilla_le."""
    if kind == "ve":
        return VisualExpressionGenerator(
            options, channels=channels, words=words, length=length, width=width, heads=heads
        )
    return (AdvancedLanguageExpression if kind == "advanced_le" else VanillaLanguageExpression)(words, width)


def check(options: Veg) -> None:
    if not (retrieves(options) or options.step2):
        raise UserError("veg.step1 and veg.step2 are both off, so the expression has no image content: set one to true")
    name, number = ("veg.share", options.share) if options.ratio == "adaptive" else ("veg.ratio", options.ratio)
    if not 0 < number <= 1:
        raise UserError(f"{name} is {number}, but a share of the image's tokens lies above 0 and at most at 1")
