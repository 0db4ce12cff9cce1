"""LTS, "Locate then Segment: A Strong Pipeline for Referring Image Segmentation" (Jing et al., CVPR 2021).

Two steps with an intermediate result that can be inspected: fuse image and sentence, *locate* the referent as a coarse
position prior, then *segment* with that prior beside the fused features. Sections refer to docs/models/lts.md.

    N sentences   L words   S width of the text   d fused channels   h x w the finest fused grid (52 x 52 of 416)
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.errors import UserError
from riszoo.layers import RARE, doubled, mean_valid, sentence_convolution, sine, sine_2d, to_tokens, upsample
from riszoo.losses import bce, dice, majority, shrink_mask, spatial_cross_entropy
from riszoo.model import RISModule


@dataclass
class Fusion:
    """Section 4. `strides` of the fused maps, fine to coarse; `levels` 1 fuses the coarsest map alone."""

    width: int = 512
    levels: Literal[1, 3] = 3
    strides: tuple[int, int, int] = (8, 16, 32)
    coords: bool = True
    op: Literal["mul", "add", "concat"] = "mul"


@dataclass
class Locate:
    """Section 5. `size` of the generated filter; the transformer reads a grid of `stride`, pooled where that is 16."""

    kind: Literal["filter", "transformer"] = "filter"
    size: Literal[1, 3] = 1
    stride: Literal[8, 16] = 8
    layers: int = 1
    heads: int = 8


@dataclass
class Prior:
    """Section 5: whether the prior is used, its activation, whether the mask loss trains it, its own loss's weight."""

    enabled: bool = True
    act: Literal["sigmoid", "spatial_softmax", "raw"] = "sigmoid"
    detach: bool = False
    weight: float = 1.0


@dataclass
class Segment:
    """Sections 6 and 7: the head, the stride of its logits, and their loss."""

    head: Literal["aspp", "conv"] = "aspp"
    width: int = 256
    stride: Literal[2, 4, 8] = 4
    loss: Literal["bce", "bce+dice"] = "bce"


class CBL(nn.Sequential):
    """Convolution without bias, BatchNorm, LeakyReLU(0.1)."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(inside, outside, kernel, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(outside),
            nn.LeakyReLU(0.1),
        )


# -- section 3.2: the sentence vector ---------------------------------------------------------------------------------


class AttentionPool(nn.Module):
    """The mean of the word states, weighted by attention in each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = nn.Linear(width, width)

    def forward(self, words: Words) -> Tensor:
        states, mask = words.states, words.mask[..., None]  # (N, L, S), (N, L, 1)
        weights = torch.tanh(self.attend(states)).masked_fill(~mask, -math.inf).softmax(1)
        return (weights * states.masked_fill(~mask, 0)).sum(1)  # (N, S)


def mean_pool(words: Words) -> Tensor:
    """The mean of the word states (N, S)."""
    return mean_valid(words.states, words.mask)


def max_pool(words: Words) -> Tensor:
    """The maximum of the word states in each channel (N, S)."""
    return words.states.masked_fill(~words.mask[..., None], -math.inf).amax(1)


def last_pool(words: Words) -> Tensor:
    """The state of the last word (N, S)."""
    last = words.mask.sum(1) - 1
    return words.states[torch.arange(last.shape[0], device=last.device), last]


def build_pool(kind: str, width: int) -> Callable[[Words], Tensor]:
    """What turns word states (N, L, S) into one sentence vector (N, S)."""
    if kind == "attention":
        return AttentionPool(width)
    return {"mean": mean_pool, "max": max_pool, "last": last_pool}[kind]


# -- section 4: fusion ------------------------------------------------------------------------------------------------


class Concatenate(nn.Module):
    """Concatenation and a 1 x 1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = CBL(2 * channels, channels)

    def forward(self, image: Tensor, sentence: Tensor) -> Tensor:
        return self.project(torch.cat([image, sentence.expand_as(image)], 1))  # type: ignore[no-any-return]


def build_combine(op: str, channels: int) -> Callable[[Tensor, Tensor], Tensor]:
    """What joins a map (N, C, h, w) with a sentence (N, C, 1, 1)."""
    if op == "concat":
        return Concatenate(channels)
    return operator.mul if op == "mul" else operator.add


class MultiScaleFusion(nn.Module):
    """Section 4: the sentence enters at the coarsest map, which is then carried to the finest."""

    def __init__(self, options: Fusion, channels: list[int], text: int) -> None:
        super().__init__()
        c3, c4, c5 = channels
        self.multi_scale, self.coords = options.levels == 3, options.coords
        self.coarse = CBL(c5, c5)
        self.sentence = nn.Sequential(nn.Linear(text, c5), nn.BatchNorm1d(c5), nn.LeakyReLU(0.1))
        self.combine = build_combine(options.op, c5)
        self.lateral4 = CBL(c4, c4) if self.multi_scale else nn.Identity()
        self.lateral3 = CBL(c3, c3) if self.multi_scale else nn.Identity()
        self.merge4 = CBL(c5 + c4 if self.multi_scale else c5, options.width)
        self.merge3 = CBL(options.width + c3 if self.multi_scale else options.width, options.width)
        self.out = CBL(options.width + 8 if self.coords else options.width, options.width, 3)

    def image_side(self, v3: Tensor, v4: Tensor, v5: Tensor) -> list[Tensor]:
        """The part of the fusion before language enters, computed once for each image."""
        return [self.lateral3(v3), self.lateral4(v4), self.coarse(v5)]

    def forward(self, v3: Tensor, v4: Tensor, v5: Tensor, sentence: Tensor) -> Tensor:
        """The maps of `image_side` and the sentence (N, S) -> (N, d, h, w)"""
        g = self.combine(v5, self.sentence(sentence)[:, :, None, None])  # (N, C, h/4, w/4)
        g = self.merge4(self._beside(g, v4))  # (N, d, h/2, w/2)
        g = self.merge3(self._beside(g, v3))  # (N, d, h, w)
        if self.coords:
            g = torch.cat([g, coordinates(g)], 1)
        fused: Tensor = self.out(g)
        return fused

    def _beside(self, coarse: Tensor, fine: Tensor) -> Tensor:
        upsampled = upsample(coarse, fine.shape[-2:])
        return torch.cat([upsampled, fine], 1) if self.multi_scale else upsampled


def coordinates(grid: Tensor) -> Tensor:
    """(N, 8, h, w): left, top, right, bottom and centre of each cell in -1..1, and the cell's width and height."""
    h, w = grid.shape[-2:]
    x = torch.linspace(-1, 1, w + 1, device=grid.device, dtype=grid.dtype).expand(h, w + 1)
    y = torch.linspace(-1, 1, h + 1, device=grid.device, dtype=grid.dtype)[:, None].expand(h + 1, w)
    left, right, top, bottom = x[:, :-1], x[:, 1:], y[:-1], y[1:]
    size = [torch.full_like(left, 1 / w), torch.full_like(left, 1 / h)]
    maps = [left, top, right, bottom, (left + right) / 2, (top + bottom) / 2, *size]
    return torch.stack(maps).expand(grid.shape[0], -1, -1, -1)


# -- section 5: locate ------------------------------------------------------------------------------------------------


class FilterLocator(nn.Module):
    """Section 5 (a): correlates the fused features with a filter generated from the sentence."""

    def __init__(self, options: Locate, width: int, sentence: int) -> None:
        super().__init__()
        self.size = options.size
        self.generate = nn.Linear(sentence, width * options.size**2)
        self.bias = nn.Parameter(torch.full((1,), RARE))

    def forward(self, fused: Tensor, sentence: Tensor, words: Words, cells: Tensor) -> Tensor:
        """(N, d, h, w), (N, S), the words and the valid cells (N, h, w) -> logits P (N, 1, h, w)"""
        n, d = fused.shape[:2]
        kernel = torch.tanh(self.generate(sentence)) / math.sqrt(d * self.size**2)
        if self.size == 1:
            return torch.einsum("nd,ndhw->nhw", kernel, fused)[:, None] + self.bias
        return sentence_convolution(fused, kernel.view(n, d, self.size, self.size), self.bias)


class TransformerLocator(nn.Module):
    """Section 5 (b): self-attention over cells and words together, then a logit for each cell."""

    def __init__(self, options: Locate, width: int, text: int, finest: int) -> None:
        super().__init__()
        self.pool = max(1, options.stride // finest)
        self.project_words = nn.Linear(text, width)
        layer = nn.TransformerEncoderLayer(
            width, options.heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, options.layers, enable_nested_tensor=False)
        self.classify = nn.Linear(width, 1)
        self.classify.bias.data.fill_(RARE)

    def forward(self, fused: Tensor, sentence: Tensor, words: Words, cells: Tensor) -> Tensor:
        """(N, d, h, w), (N, S), the words and the valid cells (N, h, w) -> logits P (N, 1, h, w)"""
        h, w = (math.ceil(side / self.pool) for side in fused.shape[-2:])
        grid = F.adaptive_avg_pool2d(fused, (h, w)) if self.pool > 1 else fused
        n, d = grid.shape[:2]
        valid = F.adaptive_max_pool2d(cells[:, None].to(grid.dtype), (h, w)).bool().flatten(1)  # (N, hw)
        pixels = to_tokens(grid) + sine_2d(h, w, d, grid)  # (N, hw, d)
        tokens = self.project_words(words.states) + sine(words.states.shape[1], d, grid)  # (N, L, d)
        padding = ~torch.cat([valid, words.mask], 1)  # (N, hw + L)
        joint = self.encoder(torch.cat([pixels, tokens], 1), src_key_padding_mask=padding)
        logits = self.classify(joint[:, : h * w]).mT.reshape(n, 1, h, w)
        return upsample(logits, fused.shape[-2:])


def build_locator(options: Locate, width: int, text: int, finest: int) -> nn.Module:
    """The locator that `options.kind` names, for fused maps of stride `finest`."""
    if options.kind == "filter":
        return FilterLocator(options, width, text)
    if width % options.heads:
        raise UserError(f"fusion.width {width} is not divisible by locate.heads {options.heads}: change one of the two")
    return TransformerLocator(options, width, text, finest)


class SigmoidPrior:
    """The prior as a probability for each cell, trained by binary cross-entropy."""

    def activate(self, logits: Tensor) -> Tensor:
        """Logits P (N, 1, h, w) -> the prior p that the segmentation head reads."""
        return logits.sigmoid()

    def evidence(self, prior: Tensor) -> Tensor:
        """The prior as it is shown."""
        return prior

    def loss(self, logits: Tensor, cells: Tensor) -> Tensor:
        """(N, h, w) twice -> (N,)"""
        return bce(logits, cells)


class RawPrior(SigmoidPrior):
    """The logits themselves."""

    def activate(self, logits: Tensor) -> Tensor:
        return logits


class SpatialSoftmaxPrior(SigmoidPrior):
    """A distribution over the cells, scaled by h w for the head so that its values do not vanish."""

    def activate(self, logits: Tensor) -> Tensor:
        return logits.flatten(1).softmax(-1).view_as(logits) * logits[0].numel()

    def evidence(self, prior: Tensor) -> Tensor:
        return prior / prior[0].numel()

    def loss(self, logits: Tensor, cells: Tensor) -> Tensor:
        return spatial_cross_entropy(logits, cells)


PRIORS = {"sigmoid": SigmoidPrior(), "spatial_softmax": SpatialSoftmaxPrior(), "raw": RawPrior()}


# -- section 6: segment -----------------------------------------------------------------------------------------------


class ASPP(nn.Module):
    """Section 6, `aspp`: parallel convolutions of four dilations and a global branch."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([CBL(channels, width), *(CBL(channels, width, 3, d) for d in (6, 12, 18))])
        self.whole = CBL(channels, width)
        self.project = CBL(5 * width, width)

    def forward(self, z: Tensor) -> Tensor:
        whole = self.whole(z.mean((-2, -1), keepdim=True)).expand(-1, -1, *z.shape[-2:])
        projected: Tensor = self.project(torch.cat([*(branch(z) for branch in self.branches), whole], 1))
        return projected


def convolutions(channels: int, width: int) -> nn.Module:
    """Section 6, `conv`: three 3 x 3 convolutions."""
    return nn.Sequential(CBL(channels, width, 3), CBL(width, width, 3), CBL(width, width, 3))


class SegmentationHead(nn.Module):
    """Section 6: refines the fused features with the prior beside them, and upsamples them to the logits' stride."""

    def __init__(self, options: Segment, channels: int, finest: int) -> None:
        super().__init__()
        width, narrow, steps = options.width, options.width // 2, upsampling_steps(finest, options.stride)
        self.refine = ASPP(channels, width) if options.head == "aspp" else convolutions(channels, width)
        self.ups = nn.ModuleList(CBL(width if i == 0 else narrow, narrow, 3) for i in range(max(1, steps)))
        self.doubles = steps > 0
        self.classify = nn.Conv2d(narrow, 1, 1)
        self.classify.bias.data.fill_(RARE)  # type: ignore[union-attr]

    def forward(self, z: Tensor) -> Tensor:
        y = self.refine(z)
        for up in self.ups:
            y = doubled(up.children(), y) if self.doubles else up(y)
        logits: Tensor = self.classify(y)
        return logits


def upsampling_steps(finest: int, stride: int) -> int:
    """How often the fused grid of stride `finest` is doubled to reach the logits' stride."""
    if stride > finest:
        raise UserError(f"segment.stride {stride} is coarser than the fused maps, of stride {finest}: lower it")
    return int(math.log2(finest / stride))


class LTS(RISModule):
    """Locate, then segment.

    Args:
        fusion, locate, prior, segment: sections 4 to 7
        pool: how word states become the sentence vector (section 3.2)
        frozen_embeddings: the text encoder's embeddings are not trained
    """

    published: ClassVar[str] = "mcn"

    def __init__(
        self,
        *,
        fusion: Fusion = Fusion(),  # noqa: B008 - read only, and its fields become options
        locate: Locate = Locate(),  # noqa: B008
        prior: Prior = Prior(),  # noqa: B008
        segment: Segment = Segment(),  # noqa: B008
        pool: Literal["attention", "last", "max", "mean"] = "attention",
        frozen_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if prior.enabled and prior.detach and not prior.weight:
            raise UserError("nothing trains the prior: prior.detach true needs a prior.weight above 0")
        self.strides, self.prior, self.mask_loss = fusion.strides, prior, segment.loss
        width, text, finest = fusion.width, self.text.width, fusion.strides[0]
        self.pool = build_pool(pool, text)
        self.fusion = MultiScaleFusion(fusion, [self.channels_at(stride) for stride in fusion.strides], text)
        self.locate = build_locator(locate, width, text, finest) if prior.enabled else None
        self.activation = PRIORS[prior.act]
        self.segment = SegmentationHead(segment, width + 1 if prior.enabled else width, finest)
        if frozen_embeddings:
            self.text.freeze_embeddings()

    def enrich(self, raw: Features) -> Features:
        """The three maps of section 2 at their strides, fused as far as no sentence is needed."""
        maps = [self.map_at(raw.maps, stride) for stride in self.strides]
        return Features(self.fusion.image_side(*maps), raw.valid, raw.size)

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        visual = features.per_sentence(image_index)
        sentence = self.pool(words)  # f_t (N, S)
        fused = self.fusion(*visual.maps, sentence)  # F_m (N, d, h, w)
        if self.locate is None:
            return Output(self.segment(fused))
        located = self.locate(fused, sentence, words, visual.cells(0))  # P (N, 1, h, w)
        prior = self.activation.activate(located.detach() if self.prior.detach else located)  # p (N, 1, h, w)
        logits = self.segment(torch.cat([fused, prior], 1))
        return Output(logits, {"prior": self.activation.evidence(prior).detach()}, aux={"prior": located})

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 7: the mask at the logits' stride, and the prior against the cells that are mostly target."""
        assert batch.masks is not None
        logits = output.logits[:, 0]
        target = shrink_mask(batch.masks, (logits.shape[-2], logits.shape[-1]))
        terms = {"mask": bce(logits, target)}
        if self.mask_loss == "bce+dice":
            terms["dice"] = dice(logits, target)
        if self.locate is not None and self.prior.weight:
            located = output.aux["prior"][:, 0]
            cells = majority(shrink_mask(batch.masks, (located.shape[-2], located.shape[-1])))
            terms["prior"] = self.prior.weight * self.activation.loss(located, cells)
        return terms
