"""LTS, "Locate then Segment: A Strong Pipeline for Referring Image Segmentation" (Jing et al., CVPR 2021).

Two steps with a middle result that can be looked at: fuse image and sentence, *locate* the referent as a coarse
position prior, then *segment* with that prior beside the fused features. Section numbers are those of
docs/models/lts.md, which says of each choice whether it is the paper's or assumed.

    N sentences   L words   d fused channels   h x w the finest fused grid (52 x 52 of 416)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.errors import UserError
from riszoo.layers import RARE, sine, sine_2d
from riszoo.losses import bce, dice, majority, shrink_mask, spatial_cross_entropy
from riszoo.model import RISModule


@dataclass
class Fusion:
    """Section 4. `strides` of the maps that are fused, fine to coarse; `levels` 1 fuses the coarsest alone."""

    width: int = 512
    levels: Literal[1, 3] = 3
    strides: tuple[int, int, int] = (8, 16, 32)
    coords: bool = True
    op: Literal["mul", "add", "concat"] = "mul"


@dataclass
class Locate:
    """Section 5. `size` of the generated filter; `stride` of the grid that the transformer reads: 16 pools it first."""

    kind: Literal["filter", "transformer"] = "filter"
    size: Literal[1, 3] = 1
    stride: Literal[8, 16] = 8
    layers: int = 1
    heads: int = 8


@dataclass
class Prior:
    """Section 5, the middle result: whether it is used, how it is activated, whether it is trained by its own loss."""

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


class SentenceVector(nn.Module):
    """Section 3.2: word states to one vector; `attention` weighs the words of each channel apart."""

    def __init__(self, width: int, pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.attend = nn.Linear(width, width) if pool == "attention" else None

    def forward(self, words: Words) -> Tensor:
        states, mask = words.states, words.mask[..., None]  # (N, L, C), (N, L, 1)
        if self.attend is not None:
            weight = torch.tanh(self.attend(states)).masked_fill(~mask, -math.inf).softmax(1)
            return (weight * states.masked_fill(~mask, 0)).sum(1)  # (N, C)
        if self.pool == "max":
            return states.masked_fill(~mask, -math.inf).amax(1)
        if self.pool == "last":
            return states[torch.arange(len(states), device=states.device), words.mask.sum(1) - 1]
        return states.masked_fill(~mask, 0).sum(1) / mask.sum(1)


class MultiScaleFusion(nn.Module):
    """Section 4: the sentence enters at the coarsest map and is carried down to the finest."""

    def __init__(self, options: Fusion, channels: list[int], text: int) -> None:
        super().__init__()
        c3, c4, c5 = channels
        self.options = options
        self.coarse = CBL(c5, c5)
        self.sentence = nn.Sequential(nn.Linear(text, c5), nn.BatchNorm1d(c5), nn.LeakyReLU(0.1))
        self.join = CBL(2 * c5, c5) if options.op == "concat" else None
        self.lateral4 = CBL(c4, c4) if options.levels == 3 else None
        self.lateral3 = CBL(c3, c3) if options.levels == 3 else None
        self.merge4 = CBL(c5 + c4 * (options.levels == 3), options.width)
        self.merge3 = CBL(options.width + c3 * (options.levels == 3), options.width)
        self.out = CBL(options.width + 8 * options.coords, options.width, 3)

    def image_side(self, v3: Tensor, v4: Tensor, v5: Tensor) -> list[Tensor]:
        """What of the fusion is still without language: computed once an image."""
        sides = zip((self.lateral3, self.lateral4, self.coarse), (v3, v4, v5), strict=True)
        return [v if project is None else project(v) for project, v in sides]

    def forward(self, v3: Tensor, v4: Tensor, v5: Tensor, sentence: Tensor) -> Tensor:
        g = self._combine(v5, self.sentence(sentence)[:, :, None, None])
        g = self.merge4(self._beside(g, v4))  # (N, d, h/2, w/2)
        g = self.merge3(self._beside(g, v3))  # (N, d, h, w)
        if self.options.coords:
            g = torch.cat([g, coordinates(g)], 1)
        fused: Tensor = self.out(g)
        return fused

    def _combine(self, image: Tensor, sentence: Tensor) -> Tensor:
        if self.join is not None:
            joined: Tensor = self.join(torch.cat([image, sentence.expand_as(image)], 1))
            return joined
        return image * sentence if self.options.op == "mul" else image + sentence

    def _beside(self, coarse: Tensor, fine: Tensor) -> Tensor:
        raised = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return raised if self.options.levels == 1 else torch.cat([raised, fine], 1)


def coordinates(grid: Tensor) -> Tensor:
    """(N, 8, h, w): left, top, right, bottom and centre of each cell in -1..1, and the cell's width and height."""
    h, w = grid.shape[-2:]
    x = torch.linspace(-1, 1, w + 1, device=grid.device, dtype=grid.dtype).expand(h, w + 1)
    y = torch.linspace(-1, 1, h + 1, device=grid.device, dtype=grid.dtype)[:, None].expand(h + 1, w)
    left, right, top, bottom = x[:, :-1], x[:, 1:], y[:-1], y[1:]
    size = [torch.full_like(left, 1 / w), torch.full_like(left, 1 / h)]
    maps = [left, top, right, bottom, (left + right) / 2, (top + bottom) / 2, *size]
    return torch.stack(maps).expand(len(grid), -1, -1, -1)


class FilterLocator(nn.Module):
    """Section 5 (a): a filter generated from the sentence, slid over the fused features."""

    def __init__(self, options: Locate, width: int, sentence: int) -> None:
        super().__init__()
        self.size = options.size
        self.generate = nn.Linear(sentence, width * options.size**2)
        self.bias = nn.Parameter(torch.full((1,), RARE))

    def forward(self, fused: Tensor, sentence: Tensor, words: Words, cells: Tensor) -> Tensor:
        n, d, h, w = fused.shape
        kernel = torch.tanh(self.generate(sentence)) / math.sqrt(d * self.size**2)
        if self.size == 1:
            return torch.einsum("nd,ndhw->nhw", kernel, fused)[:, None] + self.bias
        one_each = kernel.view(n, d, self.size, self.size)
        found = F.conv2d(fused.reshape(1, n * d, h, w), one_each, padding=self.size // 2, groups=n)
        return found.view(n, 1, h, w) + self.bias


class TransformerLocator(nn.Module):
    """Section 5 (b): cells and words attend to each other, each cell is read out."""

    def __init__(self, options: Locate, width: int, word: int, finest: int) -> None:
        super().__init__()
        self.pool = max(1, options.stride // finest)
        self.word = nn.Linear(word, width)
        layer = nn.TransformerEncoderLayer(
            width, options.heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, options.layers, enable_nested_tensor=False)
        self.read = nn.Linear(width, 1)
        self.read.bias.data.fill_(RARE)

    def forward(self, fused: Tensor, sentence: Tensor, words: Words, cells: Tensor) -> Tensor:
        grid = F.avg_pool2d(fused, self.pool) if self.pool > 1 else fused
        n, d, h, w = grid.shape
        hidden = ~F.adaptive_max_pool2d(cells[:, None].to(grid.dtype), (h, w)).bool().flatten(1)  # (N, hw)
        pixels = grid.flatten(2).mT + sine_2d(h, w, d, grid)
        tokens = self.word(words.states) + sine(words.states.shape[1], d, grid)
        joint = self.encoder(
            torch.cat([pixels, tokens], 1), src_key_padding_mask=torch.cat([hidden, ~words.mask], 1)
        )  # (N, hw + L, d)
        prior = self.read(joint[:, : h * w]).mT.reshape(n, 1, h, w)
        return F.interpolate(prior, size=fused.shape[-2:], mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """Section 6, `aspp`: the same features seen at four reaches and as a whole."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.reaches = nn.ModuleList([CBL(inside, width), *(CBL(inside, width, 3, d) for d in (6, 12, 18))])
        self.whole = CBL(inside, width)
        self.project = CBL(5 * width, width)

    def forward(self, z: Tensor) -> Tensor:
        whole = self.whole(z.mean((-2, -1), keepdim=True)).expand(-1, -1, *z.shape[-2:])
        projected: Tensor = self.project(torch.cat([*(reach(z) for reach in self.reaches), whole], 1))
        return projected


class SegmentationHead(nn.Module):
    """Section 6: the fused features with the prior beside them, refined and brought up to the logits' stride."""

    def __init__(self, options: Segment, inside: int, ups: int) -> None:
        super().__init__()
        width, narrow = options.width, options.width // 2
        if options.head == "aspp":
            self.refine: nn.Module = ASPP(inside, width)
        else:
            self.refine = nn.Sequential(CBL(inside, width, 3), CBL(width, width, 3), CBL(width, width, 3))
        self.ups = nn.ModuleList(CBL(width if i == 0 else narrow, narrow, 3) for i in range(max(1, ups)))
        self.scale = 2 if ups else 1
        self.out = nn.Conv2d(narrow, 1, 1)
        self.out.bias.data.fill_(RARE)  # type: ignore[union-attr]

    def forward(self, z: Tensor) -> Tensor:
        y = self.refine(z)
        for up in self.ups:
            y = up(F.interpolate(y, scale_factor=self.scale, mode="bilinear", align_corners=False))
        logits: Tensor = self.out(y)
        return logits


class LTS(RISModule):
    """Locate, then segment.

    Args:
        fusion, locate, prior, segment: sections 4 to 7
        pool: how word states become the sentence vector (section 3.2)
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prior, self.objective, self.strides = prior, segment.loss, fusion.strides
        width, sentence = fusion.width, self.text.width
        self.sentence = SentenceVector(sentence, pool)
        self.fusion = MultiScaleFusion(fusion, [self.channels_at(stride) for stride in fusion.strides], sentence)
        self.locate: nn.Module | None = None
        if prior.enabled:
            self.locate = _locator(locate, width, sentence, fusion.strides[0])
        self.segment = SegmentationHead(segment, width + prior.enabled, _doublings(fusion.strides[0], segment.stride))

    def enrich(self, raw: Features) -> Features:
        """The three maps of section 2 at their strides, as far as the fusion needs no sentence."""
        maps = [self.map_at(raw.maps, stride) for stride in self.strides]
        return Features(self.fusion.image_side(*maps), raw.valid, raw.size)

    def decode(self, images: Features, image_index: Tensor, words: Words) -> Output:
        seen = images.per_sentence(image_index)
        sentence = self.sentence(words)
        fused = self.fusion(*seen.maps, sentence)  # (N, d, h, w)
        if self.locate is None:
            return Output(self.segment(fused))
        located = self.locate(fused, sentence, words, seen.cells(0))  # (N, 1, h, w) logits
        prior = activate(located.detach() if self.prior.detach else located, self.prior.act)
        shown = prior / located[0].numel() if self.prior.act == "spatial_softmax" else prior
        return Output(self.segment(torch.cat([fused, prior], 1)), {"prior": shown.detach()}, aux={"prior": located})

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 7: the mask at the logits' stride, and the prior against the cells that are mostly target."""
        assert batch.masks is not None
        logits = output.logits[:, 0]
        target = shrink_mask(batch.masks, (logits.shape[-2], logits.shape[-1]))
        terms = {"mask": bce(logits, target)}
        if self.objective == "bce+dice":
            terms["dice"] = dice(logits, target)
        if self.locate is not None and self.prior.weight:
            located = output.aux["prior"][:, 0]
            cells = majority(shrink_mask(batch.masks, (located.shape[-2], located.shape[-1])))
            measure = spatial_cross_entropy if self.prior.act == "spatial_softmax" else bce
            terms["prior"] = self.prior.weight * measure(located, cells)
        return terms


def _locator(options: Locate, width: int, sentence: int, finest: int) -> nn.Module:
    if options.kind == "filter":
        return FilterLocator(options, width, sentence)
    if width % options.heads:
        raise UserError(f"fusion.width {width} does not divide into {options.heads} heads: change it or locate.heads")
    return TransformerLocator(options, width, sentence, finest)


def _doublings(finest: int, stride: int) -> int:
    """How often the fused grid is doubled on its way to the logits."""
    if stride > finest:
        raise UserError(f"segment.stride {stride} is coarser than the fused maps, of stride {finest}: lower it")
    return int(math.log2(finest / stride))


def activate(located: Tensor, act: str) -> Tensor:
    """The prior as the head sees it; a spatial softmax is scaled by h w so that its values do not vanish."""
    if act == "sigmoid":
        return located.sigmoid()
    if act == "spatial_softmax":
        return located.flatten(1).softmax(-1).view_as(located) * located[0].numel()
    return located
