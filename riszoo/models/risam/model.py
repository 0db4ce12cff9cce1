"""RISAM, and MARIS, its form with a frozen encoder (Zhang et al., arXiv 2311.15727).

SAM's features of three depths are made one map, cells and words look for each other side by side through one
affinity, and SAM's mask decoder reads both beside a query token. Section numbers are those of docs/models/risam.md,
which says of each choice whether it is the paper's or assumed.

    N sentences   L words   d channels (256)   h x w the grid, n = h w cells   H heads of the affinity
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Span, Words, valid_cells
from riszoo.encoders.sam import LayerNorm2d, SamEncoder
from riszoo.encoders.sam_decoder import FourierPositions, MaskDecoder, load_decoder, load_positions
from riszoo.errors import UserError
from riszoo.layers import sine
from riszoo.losses import dice, focal, majority, mean_within, shrink_mask
from riszoo.model import RISModule
from riszoo.models.risam.options import Align, Decoder, Enhancement, MutualAware, NoTarget, Objective, check


def conv_norm(inside: int, outside: int, kernel: int, norm: str) -> list[nn.Module]:
    layer = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=kernel == 1)
    return [layer, LayerNorm2d(outside) if norm == "ln2d" else nn.BatchNorm2d(outside)]


class FeatureEnhancement(nn.Module):
    """Section 4: shallow and middle maps joined, then with the deep one, to what is added to it; zero at the start."""

    def __init__(self, options: Enhancement, channels: list[int], width: int) -> None:
        super().__init__()
        shallow, middle, deep = channels
        self.deep = nn.Identity() if deep == width else nn.Conv2d(deep, width, 1)
        self.enabled = options.enabled
        if not options.enabled:
            return
        self.shallow = nn.Sequential(*conv_norm(shallow, width, 1, options.norm))
        self.middle = nn.Sequential(*conv_norm(middle, width, 1, options.norm))
        self.early = nn.Sequential(*conv_norm(2 * width, width, 3, options.norm), nn.ReLU())
        self.late = nn.Sequential(*conv_norm(2 * width, width, 3, options.norm), nn.ReLU())
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, shallow: Tensor, middle: Tensor, deep: Tensor) -> Tensor:
        p3: Tensor = self.deep(deep)
        if not self.enabled:
            return p3
        e = self.early(torch.cat([self.shallow(shallow), self.middle(middle)], 1))
        enhanced: Tensor = p3 + self.out(self.late(torch.cat([e, p3], 1)))
        return enhanced


class Film(nn.Module):
    """Section 2, `fe.text` film: the sentence scales and shifts each channel of F_v; nothing at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, grid: Tensor, sentence: Tensor) -> Tensor:
        scale, shift = self.change(sentence)[:, :, None, None].chunk(2, 1)
        changed: Tensor = grid * (1 + scale) + shift
        return changed


class Affinity(nn.Module):
    """Section 5: how much each cell and each word have to do with one another, (N, H, n, L)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.cell = nn.Linear(width, width)
        self.word = nn.Linear(width, width)

    def forward(self, cells: Tensor, words: Tensor) -> Tensor:
        q, k = split_heads(self.cell(cells), self.heads), split_heads(self.word(words), self.heads)
        return q @ k.mT / math.sqrt(q.shape[-1])


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(N, k, d) -> (N, H, k, d / H)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


class MutualAwareAttention(nn.Module):
    """Section 5: both branches read the block's inputs; one affinity is normalised over the words for the vision-
    guided branch (A) and over the cells for the language-guided one (A^T)."""

    def __init__(self, options: MutualAware, width: int, speaks: bool) -> None:
        super().__init__()
        self.options = options
        self.vga, self.lga = options.vga, options.lga and speaks
        if self.vga:
            self.word_value, self.cell_out = nn.Linear(width, width), nn.Linear(width, width)
        if self.lga:
            self.cell_value, self.word_out = nn.Linear(width, width), nn.Linear(width, width)
        if self.vga or self.lga:
            self.affinity = Affinity(width, options.heads)
        own = self.vga and self.lga and not options.shared_affinity
        self.own_affinity = Affinity(width, options.heads) if own else None

    def forward(
        self, v: Tensor, w: Tensor, pv: Tensor, pl: Tensor, words: Tensor, cells: Tensor
    ) -> tuple[Tensor | float, Tensor | float, dict[str, Tensor]]:
        """Cells (N, n, d), words (N, L, d), their position codes and masks -> what each gains, and A, A^T."""
        seen: dict[str, Tensor] = {}
        more_v: Tensor | float = 0.0
        more_w: Tensor | float = 0.0
        if self.vga or self.lga:
            a = self.affinity(v + pv, w + pl)
            guided = over_words(a, words)
        if self.vga:
            seen["words"] = guided
            more_v = self._carry(guided, self.word_value(w), self.cell_out)
        if self.lga:
            if self.own_affinity is not None:
                a = self.own_affinity(v + pv, w + pl)
                guided = over_words(a, words)
            seen["regions"] = self._transposed(a, guided, cells)
            more_w = self._carry(seen["regions"], self.cell_value(v), self.word_out)
        return more_v, more_w, seen

    def _transposed(self, a: Tensor, guided: Tensor, cells: Tensor) -> Tensor:
        """(N, H, L, n)."""
        if self.options.lga_norm == "literal_transpose":
            return guided.mT * cells[:, None, None]
        return over_cells(a.mT, cells, self.options.prune == "mean")

    def _carry(self, weights: Tensor, values: Tensor, out: nn.Module) -> Tensor:
        gained: Tensor = out((weights @ split_heads(values, self.options.heads)).transpose(1, 2).flatten(2))
        return gained


def over_words(a: Tensor, words: Tensor) -> Tensor:
    """A: (N, H, n, L), each cell's row a distribution over the sentence's words."""
    return a.masked_fill(~words[:, None, None], -math.inf).softmax(-1)


def over_cells(a: Tensor, cells: Tensor, prune: bool) -> Tensor:
    """A^T: (N, H, L, n), each word's row a distribution over the image's cells."""
    hidden = ~cells[:, None, None]
    if prune:
        mean = a.masked_fill(hidden, 0).sum(-1, keepdim=True) / cells.sum(-1)[:, None, None, None]
        largest = a.masked_fill(hidden, -math.inf).amax(-1, keepdim=True)
        hidden = hidden | (a < torch.minimum(mean, largest))  # rounding may lift the mean of equals above them
    return a.masked_fill(hidden, -math.inf).softmax(-1)


def feed_forward(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class MutualAwareBlock(nn.Module):
    """Section 5: V becomes F_lav, W becomes F_val. Of a block that does not speak, only V is read on."""

    def __init__(self, options: MutualAware, width: int, speaks: bool = True) -> None:
        super().__init__()
        self.norm_v, self.norm_w = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MutualAwareAttention(options, width, speaks)
        self.think_v = nn.Sequential(nn.LayerNorm(width), *feed_forward(width, options.hidden))
        self.think_w = nn.Sequential(nn.LayerNorm(width), *feed_forward(width, options.hidden)) if speaks else None

    def forward(
        self, v: Tensor, w: Tensor, pv: Tensor, pl: Tensor, words: Tensor, cells: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        more_v, more_w, seen = self.attention(self.norm_v(v), self.norm_w(w), pv, pl, words, cells)
        v, w = v + more_v, w + more_w
        v = v + self.think_v(v)
        if self.think_w is not None:
            w = w + self.think_w(w)
        return v, w * words[..., None], seen


class MutualAwareMaskDecoder(MaskDecoder):
    """Section 6: the query token and the words talk to the image through SAM's decoder; the query names the mask."""

    def __init__(self, options: Decoder, width: int) -> None:
        super().__init__(width=width, heads=options.heads, hidden=options.hidden, depth=options.depth)
        self.options = options
        if options.kind == "sam_sparse":
            self.iou_token, self.mask_tokens = nn.Embedding(1, width), nn.Embedding(4, width)
            self.no_mask_embed = nn.Embedding(1, width)
        elif options.kind == "fpn":
            del self.transformer, self.output_hypernetworks_mlps
            self.head = nn.Conv2d(width // 8, 1, 1)
        elif options.query != "none":
            self.query = nn.Parameter(nn.init.normal_(torch.empty(width)))

    def forward(
        self, v: Tensor, w: Tensor, pv: Tensor, pl: Tensor, words: Tensor, cells: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None]:
        """-> logits (N, 1, 4 h, 4 w), and the query after the decoder (N, d) where there is one."""
        if self.options.kind == "fpn":
            return self.head(self.output_upscaling(as_grid(v, grid))) + self.options.start, None
        t, pt, real = self._sparse(w, words) if self.options.kind == "sam_sparse" else self._tokens(w, pl, words)
        if self.options.kind == "sam_sparse":
            v = v + self.no_mask_embed.weight
        t, v = self.transformer(t, v, pt, pv, real, cells)
        asks = self._asking(t, words)
        return self.mask(as_grid(v, grid), asks) + self.options.start, asks

    def _tokens(self, w: Tensor, pl: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[q ; W], its position code [q ; P_l], and which are real; either part may be switched off."""
        pl = pl.expand_as(w) if self.options.pos_l else torch.zeros_like(w)
        parts, codes, real = [w], [pl], [words]
        if self.options.query != "none":
            query = self.query.to(w.dtype).expand(len(w), 1, -1)
            asks = query + pooled(w, words)[:, None] if self.options.query == "sentence" else query
            always = words.new_ones(len(w), 1)
            keep = 1 if self.options.words else 0
            parts, codes, real = [asks, *parts[:keep]], [query, *codes[:keep]], [always, *real[:keep]]
        return torch.cat(parts, 1), torch.cat(codes, 1), torch.cat(real, 1)

    def _sparse(self, w: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """SAM's own tokens and the sentence as its one sparse prompt; SAM re-adds the tokens themselves."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).to(w.dtype).expand(len(w), -1, -1)
        tokens = torch.cat([own, pooled(w, words)[:, None]], 1)
        return tokens, tokens, words.new_ones(tokens.shape[:2])

    def _asking(self, t: Tensor, words: Tensor) -> Tensor:
        if self.options.kind == "sam_sparse":
            return t[:, 1]
        return pooled(t, words) if self.options.query == "none" else t[:, 0]


def as_grid(v: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, n, d) -> (N, d, h, w)."""
    return v.mT.reshape(len(v), -1, *grid)


def pooled(w: Tensor, words: Tensor) -> Tensor:
    """(N, L, d) -> (N, d), the mean over the sentence's words."""
    return w.masked_fill(~words[..., None], 0).sum(1) / words.sum(1, keepdim=True)


class RISAM(RISModule):
    """Mutual-aware attention features into SAM's mask decoder.

    Args:
        width: d, the channels of cells, words and query
        fe, ma, decoder: sections 4 to 6
        objective, align: section 7
        nt: how it says that nothing is meant (section 9)
    """

    published: ClassVar[str] = "original"

    def __init__(
        self,
        *,
        width: int = 256,
        fe: Enhancement = Enhancement(),  # noqa: B008 - read only, and its fields become options
        ma: MutualAware = MutualAware(),  # noqa: B008
        decoder: Decoder = Decoder(),  # noqa: B008
        objective: Objective = Objective(),  # noqa: B008
        align: Align = Align(),  # noqa: B008
        nt: NoTarget = NoTarget(),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check(width, ma, decoder, nt)
        self.objective, self.align, self.nt = objective, align, nt
        self.levels, self.stride = [self._level(tap) for tap in fe.taps], fe.stride
        self.enhance = FeatureEnhancement(fe, [self.vision.channels[level] for level in self.levels], width)
        self.language = nn.Sequential(nn.Linear(self.text.width, width), nn.LayerNorm(width))
        self.film = Film(width) if fe.text == "film" else None
        self.positions = FourierPositions(width)
        last = decoder.reads_words
        self.blocks = nn.ModuleList(MutualAwareBlock(ma, width, last or i < ma.depth - 1) for i in range(ma.depth))
        self.decoder = MutualAwareMaskDecoder(decoder, width)
        self.nothing = nn.Linear(width, 1) if nt.kind == "head" else None
        self.aligned = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)]) if align.weight else None
        if decoder.weights == "sam" and isinstance(self.vision, SamEncoder) and self.vision.weight_file:
            load_decoder(self.decoder, self.vision.weight_file)
            load_positions(self.positions, self.vision.weight_file)

    def _level(self, tap: int) -> int:
        """The encoder's map that a tap means; counted from the deepest, an encoder of fewer maps repeats its finest."""
        maps = len(self.vision.channels)
        if tap >= maps:
            raise UserError(f"fe.taps {tap} is no map of an encoder that has {maps}, counted from 0")
        return tap if tap >= 0 else max(0, maps + tap)

    def enrich(self, raw: Features) -> Features:
        """The maps of three depths as one, F_v."""
        grid = (-(-self.size[0] // self.stride), -(-self.size[1] // self.stride))
        maps = [raw.maps[level] for level in self.levels]
        maps = [m if m.shape[-2:] == grid else F.interpolate(m, grid, mode="bilinear") for m in maps]
        return Features([self.enhance(*maps)], raw.valid, raw.size)

    def decode(self, images: Features, image_index: Tensor, words: Words) -> Output:
        seen = images.per_sentence(image_index)
        cells, grid = seen.cells().flatten(1), (seen.maps[0].shape[-2], seen.maps[0].shape[-1])
        w = self.language(words.states) * words.mask[..., None]  # F_l (N, L, d)
        sentence = pooled(w, words.mask)
        fv = seen.maps[0] if self.film is None else self.film(seen.maps[0], sentence)
        v = fv.flatten(2).mT  # (N, n, d)
        pv, pl = self.positions(*grid).to(v.dtype), sine(w.shape[1], w.shape[2], w)
        found: dict[str, Tensor] = {}
        for block in self.blocks:
            v, w, found = block(v, w, pv, pl, words.mask, cells)
        logits, asks = self.decoder(v, w, pv, pl, words.mask, cells, grid)
        nothing = None if self.nothing is None or asks is None else self.nothing(asks)[:, 0]
        return Output(logits, evidence(found, grid), nothing, self._aligned(v, sentence, grid))

    def _aligned(self, v: Tensor, sentence: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Section 7: how near each cell of F_lav is to the sentence."""
        if self.aligned is None:
            return {}
        cell, whole = self.aligned
        near = torch.einsum("nkd,nd->nk", cell(v), whole(sentence)) / math.sqrt(v.shape[-1]) + self.align.start
        return {"align": near.view(len(near), *grid)}

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 7: on the logits at the frame's size, padding excluded; half precision is left here."""
        assert batch.masks is not None
        exact = torch.promote_types(output.logits.dtype, torch.float32)
        logits = F.interpolate(output.logits.to(exact), self.size, mode="bilinear")[:, 0]
        where = valid_cells(batch.valid, self.size, self.size)[batch.image_index]
        terms = self._mask_terms(logits, batch.masks.to(exact), where)
        if self.align.weight:
            near = output.aux["align"].to(exact)
            cells = valid_cells(batch.valid, self.size, (near.shape[-2], near.shape[-1]))[batch.image_index]
            target = majority(shrink_mask(batch.masks, (near.shape[-2], near.shape[-1])))
            cross = F.binary_cross_entropy_with_logits(near, target.to(exact), reduction="none")
            terms["align"] = self.align.weight * mean_within(cross, cells)
        if output.no_target is not None:
            terms["nothing"] = self._nothing_term(output.no_target, batch.no_target)
        return terms

    def _mask_terms(self, logits: Tensor, target: Tensor, where: Tensor) -> dict[str, Tensor]:
        o = self.objective
        if o.kind == "focal+dice":
            terms = {"focal": o.focal_weight * mean_within(focal(logits, target, o.alpha, o.gamma), where)}
        else:
            cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            terms = {"bce": o.bce_weight * mean_within(cross, where)}
        if o.kind != "ce":
            terms["dice"] = o.dice_weight * dice(logits.masked_fill(~where, -100.0), target * where)
        return terms

    def _nothing_term(self, says: Tensor, no_target: Tensor) -> Tensor:
        """Two classes with a weight each, as one logit, the classes' difference."""
        target = no_target.to(says.dtype)
        cross = F.binary_cross_entropy_with_logits(says, target, reduction="none")
        return self.nt.weight * cross * torch.where(no_target, self.nt.absent, self.nt.present)


def evidence(found: dict[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """The last block's A and A^T, mean over heads, as maps of each token (N, L, h, w): `words`, how much a cell heeds
    the token; `regions`, where the token looks."""
    by_token = {name: a if name == "regions" else a.mT for name, a in found.items()}  # (N, H, L, n)
    return {name: a.mean(1).reshape(len(a), a.shape[2], *grid).detach() for name, a in by_token.items()}


def informative_words(heeded: Tensor, spans: list[Span], region: Tensor, most: int = 3) -> list[tuple[str, float]]:
    """The words that a picked region heeds most (Fig. 1): one sentence's `words` evidence (L, h, w), the spans of its
    words and a (h, w) bool region -> words with their shares, the largest first."""
    if not bool(region.any()):
        raise UserError("the picked region is empty; pick at least one cell of the grid")
    share = heeded[:, region].mean(-1)  # (L,)
    words = [(word, float(share[first:last].sum())) for word, first, last in spans]
    return sorted(words, key=lambda pair: -pair[1])[:most]
