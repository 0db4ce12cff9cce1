"""RISAM, and MARIS, its form with a frozen encoder (Zhang et al., arXiv 2311.15727).

SAM's features of three depths become one map; cells and words attend to each other side by side through one affinity;
SAM's mask decoder reads both beside a query token. Section numbers are those of docs/models/risam.md, which marks
each choice as the paper's or as assumed.

    I images   N sentences   L words   d channels (256)   h x w the grid, n = h w cells
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Span, Words, valid_cells
from riszoo.encoders.sam import SamEncoder
from riszoo.encoders.sam_decoder import CellPositions, load_decoder, load_positions
from riszoo.errors import UserError
from riszoo.layers import TextToPixel, mean_valid, sine, to_tokens
from riszoo.losses import Align, alignment, dice, focal, mean_within
from riszoo.model import RISModule
from riszoo.models.risam.attention import Context, MutualAwareBlock
from riszoo.models.risam.decoder import build_decoder
from riszoo.models.risam.options import Decoder, Enhancement, MutualAware, NoTarget, Objective, check


class DeepMap(nn.Module):
    """Section 4 without Feature Enhancement: F_v = F_v3."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.deep = nn.Identity() if channels[-1] == width else nn.Conv2d(channels[-1], width, 1)

    def forward(self, shallow: Tensor, middle: Tensor, deep: Tensor) -> Tensor:
        """Three maps (I, C_i, h, w) -> F_v (I, d, h, w)"""
        projected: Tensor = self.deep(deep)
        return projected


class FeatureEnhancement(DeepMap):
    """Section 4: what the shallow and the middle map add to the deep one; zero at initialisation."""

    def __init__(self, channels: list[int], width: int, norm: str) -> None:
        super().__init__(channels, width)
        shallow, middle, _ = channels
        self.shallow = nn.Sequential(*conv_norm(shallow, width, 1, norm))
        self.middle = nn.Sequential(*conv_norm(middle, width, 1, norm))
        self.early = nn.Sequential(*conv_norm(2 * width, width, 3, norm), nn.ReLU())
        self.late = nn.Sequential(*conv_norm(2 * width, width, 3, norm), nn.ReLU())
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, shallow: Tensor, middle: Tensor, deep: Tensor) -> Tensor:
        deep = self.deep(deep)
        early = self.early(torch.cat([self.shallow(shallow), self.middle(middle)], 1))
        late = self.late(torch.cat([early, deep], 1))
        enhanced: Tensor = deep + self.out(late)
        return enhanced


def conv_norm(inside: int, outside: int, kernel: int, norm: str) -> list[nn.Module]:
    layer = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=kernel == 1)
    return [layer, LayerNorm2d(outside) if norm == "ln2d" else nn.BatchNorm2d(outside)]


class RISAM(RISModule):
    """Mutual-aware attention features into SAM's mask decoder.

    Args:
        width: d, the channels of cells, words and query
        fe, ma, decoder: sections 4 to 6
        objective, align: section 7
        no_target: how a sentence without a target is recognised (section 9)
    """

    published: ClassVar[str] = "original"
    has_context: ClassVar[bool] = True

    def __init__(
        self,
        *,
        width: int = 256,
        fe: Enhancement = Enhancement(),  # noqa: B008 - read only, and its fields become options
        ma: MutualAware = MutualAware(),  # noqa: B008
        decoder: Decoder = Decoder(),  # noqa: B008
        objective: Objective = Objective(),  # noqa: B008
        align: Align = Align(),  # noqa: B008
        no_target: NoTarget = NoTarget(),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check(width, ma, decoder)
        self.objective, self.align, self.no_target = objective, align, no_target
        self.levels, self.stride = [self.level_of(tap) for tap in fe.taps], fe.stride
        channels = [self.vision.channels[level] for level in self.levels]
        self.enhance = FeatureEnhancement(channels, width, fe.norm) if fe.enabled else DeepMap(channels, width)
        self.language = nn.Sequential(nn.Linear(self.text.width, width), nn.LayerNorm(width))
        self.positions = CellPositions(width)
        updates = [True] * (ma.depth - 1) + [decoder.reads_words] * min(ma.depth, 1)
        self.blocks = nn.ModuleList(MutualAwareBlock(ma, width, updates_words) for updates_words in updates)
        self.decoder = build_decoder(decoder, width)
        self.no_target_head = nn.Linear(width, 1) if no_target.kind == "head" else None
        self.alignment = TextToPixel(width, align.start) if align.weight else None
        if decoder.weights == "sam" and isinstance(self.vision, SamEncoder) and self.vision.weight_file:
            load_decoder(self.decoder, self.vision.weight_file)
            load_positions(self.positions, self.vision.weight_file)

    def level_of(self, tap: int) -> int:
        """The encoder's map of a tap; counted from the deepest, an encoder with fewer maps repeats its finest."""
        maps = len(self.vision.channels)
        if tap >= maps:
            raise UserError(f"fe.taps {tap} is out of range: the encoder has {maps} maps, counted from 0")
        return tap if tap >= 0 else max(0, maps + tap)

    def enrich(self, raw: Features) -> Features:
        """The maps of three depths, on one grid, as F_v."""
        grid = self.grid_at(self.stride)
        maps = [raw.maps[level] for level in self.levels]
        maps = [m if m.shape[-2:] == grid else F.interpolate(m, grid, mode="bilinear") for m in maps]
        return Features([self.enhance(*maps)], raw.valid, raw.size)

    def decode(self, images: Features, image_index: Tensor, words: Words) -> Output:
        visual = images.per_sentence(image_index)
        grid = (visual.maps[0].shape[-2], visual.maps[0].shape[-1])
        cells = to_tokens(visual.maps[0])  # F_v (N, n, d)
        language = self.language(words.states) * words.mask[..., None]  # F_l (N, L, d)
        context = Context(
            cell_code=self.positions(*grid).to(cells.dtype),  # (n, d)
            word_code=sine(language.shape[1], language.shape[2], language),  # (L, d)
            cell_mask=visual.cells().flatten(1),  # (N, n)
            word_mask=words.mask,  # (N, L)
        )
        aware = language
        attention: dict[str, Tensor] = {}
        for block in self.blocks:
            cells, aware, attention = block(cells, aware, context)  # F_lav (N, n, d), F_val (N, L, d)
        tokens, mask = self.context(aware, words.mask, image_index)  # (N, L, d), (N, L)
        logits, query = self.decoder(cells, tokens, replace(context, word_mask=mask), grid)  # (N, 1, 4 h, 4 w), (N, d)
        no_target = None if self.no_target_head is None else self.no_target_head(query)[:, 0]  # (N,)
        output = Output(logits, evidence_maps(attention, grid), no_target)
        if self.alignment is not None:
            similarity = self.alignment(cells, mean_valid(language, words.mask))
            output.aux["align"] = similarity.unflatten(1, grid)  # (N, h, w)
        return output

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 7: on logits resized to the frame, in full precision, without the padding."""
        assert batch.masks is not None
        exact = torch.promote_types(output.logits.dtype, torch.float32)
        logits = F.interpolate(output.logits.to(exact), self.size, mode="bilinear")[:, 0]
        inside = valid_cells(batch.valid, self.size, self.size)[batch.image_index]  # (N, H, W)
        target = batch.masks.to(exact)
        terms = {name: MASK_TERMS[name](self.objective, logits, target, inside) for name in self.objective.terms}
        if self.alignment is not None:
            terms["align"] = self.align.weight * alignment(output.aux["align"].to(exact), batch, self.size)
        if output.no_target is not None:
            terms["no_target"] = self.no_target_term(output.no_target, batch.no_target)
        return terms

    def no_target_term(self, logits: Tensor, no_target: Tensor) -> Tensor:
        """(N,) -> (N,), two weighted classes, of which the logit is the difference."""
        cross = F.binary_cross_entropy_with_logits(logits, no_target.to(logits.dtype), reduction="none")
        return self.no_target.weight * cross * torch.where(no_target, self.no_target.absent, self.no_target.present)


def focal_term(options: Objective, logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    return options.focal_weight * mean_within(focal(logits, target, options.alpha, options.gamma), inside)


def bce_term(options: Objective, logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return options.bce_weight * mean_within(cross, inside)


def dice_term(options: Objective, logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    return options.dice_weight * dice(logits.masked_fill(~inside, -100.0), target * inside)


MASK_TERMS: dict[str, Callable[[Objective, Tensor, Tensor, Tensor], Tensor]] = {
    "focal": focal_term,
    "bce": bce_term,
    "dice": dice_term,
}


def evidence_maps(attention: dict[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """The last block's attention, mean over heads, as a map for each token (N, L, h, w).

    word_attention    A: how much each cell attends to the token
    region_attention  A^T: how much the token attends to each cell
    """
    by_token = {name: a if name == "region_attention" else a.mT for name, a in attention.items()}  # (N, H, L, n)
    return {name: a.mean(1).reshape(a.shape[0], a.shape[2], *grid).detach() for name, a in by_token.items()}


def informative_words(
    word_attention: Tensor, spans: list[Span], region: Tensor, most: int = 3
) -> list[tuple[str, float]]:
    """The words that a region attends to most (Fig. 1), with their shares, the largest first.

    word_attention  one sentence's evidence (L, h, w)
    spans           of its words
    region          (h, w) bool
    """
    if not bool(region.any()):
        raise UserError("the region is empty; select at least one cell of the grid")
    share = word_attention[:, region].mean(-1)  # (L,)
    words = [(word, float(share[first:last].sum())) for word, first, last in spans]
    return sorted(words, key=lambda pair: -pair[1])[:most]
