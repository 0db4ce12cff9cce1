"""VIPA, "Visual Informative Part Attention for Referring Image Segmentation" (Cho et al., arXiv 2602.14788).

The keys and values that pixels are decoded with are no words but a *visual expression*: for every cue of the sentence
([CLS] the global one, words the local ones) the image's own most relevant tokens, gathered and refined. Section
numbers are those of docs/models/vipa.md, which says of each choice whether it is the paper's or assumed. How image
and sentence meet inside the encoders is in vipa_fusion.py, the decoder in vipa_decoder.py.

    N sentences   L cues   T visual tokens on h x w   d width   P tokens retrieved for a cue
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words, valid_cells
from riszoo.errors import UserError
from riszoo.layers import sine_2d
from riszoo.losses import dice, shrink_mask
from riszoo.model import RISModule
from riszoo.models.vipa.decoder import Decoder, PixelDecoder
from riszoo.models.vipa.fusion import EarlyFusion, Fusion, Look, build_fusion, to_tokens


@dataclass
class Veg:
    """Section 4. `step1` retrieves, `step2` refines; `ratio` of the image's tokens are retrieved for a cue.

    `ratio` "adaptive" retrieves the fewest tokens that hold `share` of a cue's relevance. `cues` "global" is the
    literal reading (one key); "broadcast" gives every word the tokens of the global cue. `position` adds a sine code
    to the keys of step 2.
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

    @property
    def retrieves(self) -> bool:
        return self.step1 and self.cues != "none"


@dataclass
class Segment:
    """Section 6: the mask's loss; `background` and `target` are the classes' weights in the cross-entropy."""

    loss: Literal["ce", "dice", "ce+dice"] = "ce"
    background: float = 0.9
    target: float = 1.1


@dataclass
class Contrast:
    """Section 4.4: supervision of the retrieval by the relevance of the global cue."""

    kind: Literal["bce", "infonce"] = "bce"
    weight: float = 0.5


@dataclass
class Nothing:
    """Not the paper's: a head that says whether anything in the image is meant."""

    enabled: bool = False
    weight: float = 0.1


@dataclass
class Retrieval:
    """What step 1 found for each cue."""

    scores: Tensor  # (N, L, T) relevance
    mask: Tensor  # (N, L, T) bool: M, the tokens retrieved
    straight: Tensor  # (N, L, T) M by value; by gradient, where sampling has one, the relevance's


@dataclass
class Expression:
    """The decoder's keys and values, which of them count, and how they came about."""

    states: Tensor  # (N, L, d)
    mask: Tensor  # (N, L) bool
    retrieval: Retrieval | None = None
    attention: Tensor | None = None  # (N, L, T), in evaluation


class Projection(nn.Sequential):
    """To the working width, normed: what enters the expression."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__(nn.Linear(inside, width), nn.LayerNorm(width))


class Relevance(nn.Module):
    """Section 4.1, equation 1: a score for every cue and token."""

    def __init__(self, width: int, score: str) -> None:
        super().__init__()
        self.cue, self.token = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.temperature = nn.Parameter(torch.tensor(0.1)) if score == "cosine" else None

    def forward(self, cues: Tensor, tokens: Tensor) -> Tensor:
        e, v = self.cue(cues), self.token(tokens)  # (N, L, d), (N, T, d)
        if self.temperature is None:
            dot: Tensor = e @ v.mT / math.sqrt(e.shape[-1])
            return dot
        cosine: Tensor = F.normalize(e, dim=-1) @ F.normalize(v, dim=-1).mT
        return cosine / self.temperature.clamp(min=0.01)


def most_relevant(scores: Tensor, cells: Tensor, ratio: float) -> Tensor:
    """M (N, L, T): the ceil(ratio T) best tokens of each row, T counting the `cells` (N, T) that hold image."""
    wanted = torch.ceil(ratio * cells.sum(-1) - 1e-6).clamp(min=1)[:, None, None]
    most = max(1, math.ceil(ratio * scores.shape[-1] - 1e-6))
    best = scores.topk(most, -1).indices  # (N, L, P)
    within = (torch.arange(most, device=scores.device) < wanted).expand_as(best)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, within)


def holding(scores: Tensor, share: float) -> Tensor:
    """M (N, L, T): of each row the fewest tokens that hold a share of softmax(scores)."""
    mass, order = scores.softmax(-1).sort(-1, descending=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, (mass.cumsum(-1) - mass < share) & (mass > 0))


class VisualExpressionGenerator(nn.Module):
    """Section 4: words and visual tokens in, one refined visual token a cue out."""

    def __init__(self, options: Veg, tokens: int, words: int, length: int, width: int, heads: int) -> None:
        super().__init__()
        _check(options)
        self.options = options
        self.token = Projection(tokens, width)
        if options.retrieves:
            self.cue, self.relevance = Projection(words, width), Relevance(width, options.score)
            self.aggregated = nn.Linear(width, width)
        else:
            self.learned_query = nn.Parameter(torch.randn(length, width))
        if options.step2:
            self.look, self.share = Look(width, heads), Look(width, heads)
            self.norm = nn.LayerNorm(width)

    def forward(self, grid: Tensor, words: Words, cells: Tensor) -> Expression:
        """(N, C, h, w), the words, and the cells (N, T) that hold image."""
        tokens, found = self.token(to_tokens(grid)), None
        if self.options.retrieves:
            cues, mask = self.cue(words.states), heard(words, self.options.cues)
            found = self.retrieve(cues, tokens, cells, words)
            x, retrieved = self.aggregate(found, tokens), found.mask
            x = x + cues if self.options.cues == "broadcast" else x
        else:
            place = torch.arange(words.mask.shape[1], device=grid.device).clamp(max=len(self.learned_query) - 1)
            x, mask = self.learned_query[place].expand(len(grid), -1, -1), words.mask
            retrieved = cells[:, None].expand(-1, x.shape[1], -1)
        if not self.options.step2:
            return Expression(x, mask, found)
        keys = (
            tokens + sine_2d(grid.shape[-2], grid.shape[-1], tokens.shape[-1], tokens)
            if self.options.position
            else tokens
        )
        attention = None if self.training else self.look.attention.weights(self.look.norm(x), keys, retrieved)
        refined = self.look(x, retrieved, keys, tokens)  # F_r (N, L, d)
        return Expression(self.norm(self.share(refined, mask[:, None])), mask, found, attention)

    def retrieve(self, cues: Tensor, tokens: Tensor, cells: Tensor, words: Words) -> Retrieval:
        """Step 1; noise is drawn in training only."""
        scores = self.relevance(cues, tokens).float()  # S
        if self.options.cues == "broadcast":
            scores = global_row(scores, words)[:, None].expand_as(scores)
        sampled = scores
        if self.training and self.options.sampling == "gumbel_st":
            sampled = scores - torch.empty_like(scores).exponential_().log()
        sampled = sampled.masked_fill(~cells[:, None], -torch.inf)
        ratio, known = self.options.ratio, sampled.detach()  # which tokens are best has no gradient
        mask = holding(known, self.options.share) if ratio == "adaptive" else most_relevant(known, cells, ratio)
        straight = mask.to(tokens.dtype)
        if self.options.sampling != "hard":
            soft = sampled.softmax(-1)
            straight = straight + soft - soft.detach()
        return Retrieval(scores, mask, straight)

    def aggregate(self, found: Retrieval, tokens: Tensor) -> Tensor:
        """Step 2a: F_a (N, L, d), what the retrieved tokens are together."""
        if self.options.aggregate == "max":
            each = found.straight[..., None] * tokens[:, None]  # (N, L, T, d)
            together = each.masked_fill(~found.mask[..., None], -torch.inf).amax(2)
        elif self.options.aggregate == "softmax":
            together = found.scores.masked_fill(~found.mask, -torch.inf).softmax(-1).to(tokens.dtype) @ tokens
        else:
            together = (found.straight / found.mask.sum(-1, keepdim=True)).to(tokens.dtype) @ tokens
        aggregated: Tensor = self.aggregated(together)
        return aggregated


def _check(options: Veg) -> None:
    if not (options.retrieves or options.step2):
        raise UserError("veg.step1 and veg.step2 are both off, so nothing of the image is left: switch one on")
    number = options.share if options.ratio == "adaptive" else options.ratio
    if not 0 < number <= 1:
        name = "veg.share" if options.ratio == "adaptive" else "veg.ratio"
        raise UserError(f"{name} is {number}; it is a share of an image's tokens: above 0, at most 1")


def heard(words: Words, cues: str) -> Tensor:
    """(N, L) bool: which rows of the expression count."""
    if cues not in ("global", "local"):
        return words.mask
    at = torch.arange(words.mask.shape[1], device=words.mask.device) == _global(words, cues)[:, None]
    return at if cues == "global" else words.mask & ~at


def _global(words: Words, cues: str) -> Tensor:
    if words.global_index is None:
        raise UserError(
            f"veg.cues '{cues}' needs a global cue such as [CLS], which this text encoder lacks: take 'both'"
        )
    return words.global_index


def global_row(scores: Tensor, words: Words) -> Tensor:
    """(N, T): the relevance of the global cue; the words' mean where the text encoder has none."""
    if words.global_index is not None:
        return scores[torch.arange(len(scores), device=scores.device), words.global_index]
    return (scores * words.mask[..., None]).sum(1) / words.mask.sum(1, keepdim=True)


class LanguageExpression(nn.Module):
    """What VIPA is compared with: words themselves as keys and values."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.cue = Projection(words, width)

    def forward(self, grid: Tensor, words: Words, cells: Tensor) -> Expression:
        return Expression(self.cue(words.states), words.mask)


class VIPA(RISModule):
    """Pixels attend to the image's own informative parts.

    Args:
        fusion, veg, decoder, segment, contrast: sections 3.3 to 6
        nothing: a no-target head, for data with sentences that mean nothing
        kv: what the decoder's keys and values are: the visual expression, words that met the image, or plain words
        width, heads: of the expression and the decoder's attention
        strides: of the maps the decoder uses, fine to coarse
        frozen_embeddings: the text encoder's embeddings are not trained
    """

    published: ClassVar[str] = "lavt480"

    def __init__(
        self,
        *,
        kv: Literal["ve", "advanced_le", "vanilla_le"] = "ve",
        fusion: Fusion = Fusion(),  # noqa: B008 - read only, and its fields become options
        veg: Veg = Veg(),  # noqa: B008
        decoder: Decoder = Decoder(),  # noqa: B008
        segment: Segment = Segment(),  # noqa: B008
        contrast: Contrast = Contrast(),  # noqa: B008
        nothing: Nothing = Nothing(),  # noqa: B008
        width: int = 512,
        heads: int = 8,
        strides: tuple[int, ...] = (4, 8, 16, 32),
        frozen_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kv, self.strides, self.veg_stride = kv, strides, veg.stride
        self.segment, self.contrast, self.nothing = segment, contrast, nothing
        self.fusion = build_fusion(fusion, self.vision, self.text)
        self.expression: nn.Module = LanguageExpression(self.text.width, width)
        if kv == "ve":
            tokens = self.channels_at(veg.stride)
            self.expression = VisualExpressionGenerator(veg, tokens, self.text.width, self.text.length, width, heads)
        self.decoder = PixelDecoder(decoder, [self.channels_at(stride) for stride in strides], width, heads)
        self.anything = nn.Linear(width, 1) if nothing.enabled else None
        if frozen_embeddings:
            freeze_embeddings(self.text)

    def backbone(self, images: Tensor, valid: Tensor) -> Features:
        """With early fusion the image is language-free up to the first stage's blocks."""
        if not isinstance(self.fusion, EarlyFusion):
            return super().backbone(images, valid)
        x = self.vision.stem(self.normalise(images, valid))
        return Features([self.vision.blocks(0, self.vision.down(0, x))], valid, self.size)

    def decode(self, images: Features, image_index: Tensor, words: Words) -> Output:
        seen = images.per_sentence(image_index)
        maps, met = self.fusion(seen, words, self.vision, self.text)
        grid = self.map_at(maps, self.veg_stride)
        cells = valid_cells(seen.valid, self.size, self.grid_at(self.veg_stride)).flatten(1)  # (N, T)
        made: Expression = self.expression(grid, words if self.kv == "vanilla_le" else met, cells)
        coarse = valid_cells(seen.valid, self.size, self.grid_at(self.strides[-1])).flatten(1)
        logits = self.decoder([self.map_at(maps, stride) for stride in self.strides], coarse, made.states, made.mask)
        evidence, aux = _shown(made, words, grid)
        return Output(logits, evidence, self._anything(made), aux)

    def _anything(self, made: Expression) -> Tensor | None:
        if self.anything is None:
            return None
        mean = (made.states * made.mask[..., None]).sum(1) / made.mask.sum(1, keepdim=True)
        nothing: Tensor = self.anything(mean)[:, 0]
        return nothing

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 6, at the frame's size; the retrieval's own loss where there is a retrieval."""
        assert batch.masks is not None
        logits = F.interpolate(output.logits, size=self.size, mode="bilinear")[:, 0]
        terms = {}
        if "ce" in self.segment.loss:
            terms["mask"] = weighted_cross_entropy(logits, batch.masks, self.segment)
        if "dice" in self.segment.loss:
            terms["dice"] = dice(logits, batch.masks)
        if "alignment" in output.aux and self.contrast.weight:
            measure = pixel_bce if self.contrast.kind == "bce" else pixel_infonce
            terms["contrast"] = self.contrast.weight * measure(output.aux["alignment"], batch.masks)
        if output.no_target is not None:
            ground_truth = batch.no_target.to(output.no_target.dtype)
            says = F.binary_cross_entropy_with_logits(output.no_target, ground_truth, reduction="none")
            terms["nothing"] = self.nothing.weight * says
        return terms


def _shown(made: Expression, words: Words, grid: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Evidence, each (N, L, h, w), and what the loss and reports read: the global cue's relevance, tokens a cue."""
    evidence, aux = {}, {}
    if made.retrieval is not None:
        evidence = {"relevance": made.retrieval.scores.detach(), "retrieved": made.retrieval.mask.float()}
        aux = {
            "alignment": _maps(global_row(made.retrieval.scores, words)[:, None], grid)[:, 0],  # (N, h, w)
            "retrieved": made.retrieval.mask.sum(-1),  # (N, L)
        }
    if made.attention is not None:
        evidence["attention"] = made.attention.detach()
    return {name: _maps(each, grid) for name, each in evidence.items()}, aux


def _maps(tokens: Tensor, grid: Tensor) -> Tensor:
    """(N, L, T) -> (N, L, h, w)"""
    return tokens.reshape(len(tokens), -1, grid.shape[-2], grid.shape[-1])


def weighted_cross_entropy(logits: Tensor, masks: Tensor, options: Segment) -> Tensor:
    """Two-class cross-entropy of the logits' difference, weighted mean over each sentence's pixels: (N,)."""
    weight = torch.where(masks, options.target, options.background).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none")
    return (weight * each).sum((-2, -1)) / weight.sum((-2, -1))


def pixel_bce(alignment: Tensor, masks: Tensor) -> Tensor:
    """Relevance (N, h, w) brought up to the mask's size, each pixel for itself: (N,)."""
    raised = F.interpolate(alignment[:, None], size=masks.shape[-2:], mode="bilinear")[:, 0]
    return F.binary_cross_entropy_with_logits(raised, masks.to(raised.dtype), reduction="none").mean((-2, -1))


def pixel_infonce(alignment: Tensor, masks: Tensor) -> Tensor:
    """-log of the share of exp(relevance) that lies on the target's cells; nothing where no cell is mostly target."""
    positive = shrink_mask(masks, (alignment.shape[-2], alignment.shape[-1])) > 0.5
    of_target = alignment.masked_fill(~positive, -torch.inf).flatten(1)
    some = positive.flatten(1).any(-1)
    of_target = torch.where(some[:, None], of_target, alignment.flatten(1))
    return alignment.flatten(1).logsumexp(-1) - of_target.logsumexp(-1)


def freeze_embeddings(text: nn.Module) -> None:
    embeddings = getattr(getattr(text, "model", None), "embeddings", None)
    if not isinstance(embeddings, nn.Module):
        raise UserError("frozen_embeddings needs a text encoder of transformers with embeddings, such as bert: drop it")
    embeddings.requires_grad_(False)
