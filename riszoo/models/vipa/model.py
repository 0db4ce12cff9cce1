"""VIPA, "Visual Informative Part Attention for Referring Image Segmentation" (Cho et al., arXiv 2602.14788).

Pixels attend not to words but to a *visual expression*, made of the image's own most relevant tokens. Read
expression.py first: it is the paper's contribution. fusion.py is how image and sentence meet inside the encoders,
decoder.py how pixels attend to the expression. Section numbers are those of docs/models/vipa.md, which says of each
choice whether it is the paper's or assumed.

    N sentences   L cues   T visual tokens on h x w   C channels of a map   d width   H x W the network's frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words, valid_cells
from riszoo.errors import UserError
from riszoo.layers import mean_valid
from riszoo.losses import dice, majority, shrink_mask, weighted_cross_entropy
from riszoo.model import RISModule
from riszoo.models.vipa.decoder import Decoder, PixelDecoder
from riszoo.models.vipa.expression import Expression, Veg, build_expression, global_scores, retrieves
from riszoo.models.vipa.fusion import Fusion, build_fusion


@dataclass
class Segment:
    """Section 6: the mask's loss; `background` and `target` are the classes' weights in the cross-entropy."""

    loss: Literal["ce", "dice", "ce+dice"] = "ce"
    background: float = 0.9
    target: float = 1.1


@dataclass
class Contrast:
    """Section 4.4: supervision of the retrieval.

    cues       whose relevance is supervised: that of the `global` cue, or of `all` cues
    diversity  not the paper's: weight of how similar the relevances of a sentence's cues are
    """

    kind: Literal["bce", "infonce"] = "bce"
    weight: float = 0.5
    cues: Literal["global", "all"] = "global"
    diversity: float = 0.0


@dataclass
class NoTarget:
    """Not the paper's: a head for sentences that name nothing in the image, and the weight of its loss."""

    enabled: bool = False
    weight: float = 0.1


class VIPA(RISModule):
    """Pixels attend to the image's own informative parts.

    Args:
        kv: the decoder's keys and values: the visual expression, words fused with the image, or plain words
        fusion, veg, decoder, segment, contrast: sections 3.3 to 6
        no_target: a no-target head, for data with sentences that name nothing
        width, heads: of the expression and the decoder's attention
        strides: of the maps the decoder uses, fine to coarse
        frozen_embeddings: the text encoder's embeddings are not trained
    """

    published: ClassVar[str] = "lavt480"
    has_context: ClassVar[bool] = True

    def __init__(
        self,
        *,
        kv: Literal["ve", "advanced_le", "vanilla_le"] = "ve",
        fusion: Fusion = Fusion(),  # noqa: B008 - read only, and its fields become options
        veg: Veg = Veg(),  # noqa: B008
        decoder: Decoder = Decoder(),  # noqa: B008
        segment: Segment = Segment(),  # noqa: B008
        contrast: Contrast = Contrast(),  # noqa: B008
        no_target: NoTarget = NoTarget(),  # noqa: B008
        width: int = 512,
        heads: int = 8,
        strides: tuple[int, ...] = (4, 8, 16, 32),
        frozen_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.strides, self.veg_stride = strides, veg.stride
        self.segment, self.contrast, self.no_target_weight = segment, contrast, no_target.weight
        reads_words = kv == "advanced_le" or (kv == "ve" and retrieves(veg))
        if fusion.kind == "none" and kv == "ve" and not reads_words:
            raise UserError(
                "nothing reads the sentence: without fusion (fusion.kind none) that takes the retrieval of the "
                "expression (veg.step1 true and veg.cues other than none), or words as kv"
            )
        if kv == "ve" and retrieves(veg) and veg.sampling == "hard" and not contrast.weight:
            raise UserError("nothing trains the retrieval: veg.sampling hard needs a contrast.weight above 0")
        self.fusion = build_fusion(fusion, self.vision, self.text, reads_words)
        self.expression = build_expression(
            kv,
            veg,
            channels=self.channels_at(veg.stride),
            words=self.text.width,
            length=self.text.length,
            width=width,
            heads=heads,
        )
        self.decoder = PixelDecoder(decoder, [self.channels_at(stride) for stride in strides], width, heads)
        # levels from this one on are changed by language: without early fusion, only the last one
        self.first_fused = fusion.start if fusion.kind == "early" else len(self.vision.channels) - 1
        used = (*strides, veg.stride) if kv == "ve" else strides
        if fusion.kind == "early" and max(map(self.level_at, used)) < fusion.start:
            raise UserError(
                f"fusion.start is {fusion.start}, but the maps of strides {', '.join(map(str, used))} (strides, "
                "veg.stride) are of earlier stages, which see no language: lower fusion.start"
            )
        self.no_target_head = nn.Linear(width, 1) if no_target.enabled else None
        if frozen_embeddings:
            self.text.freeze_embeddings()

    def backbone(self, images: Tensor, valid: Tensor) -> Features:
        """The maps that fusion allows to be computed before language enters: all, or those up to `fusion.start`."""
        return Features(self.fusion.language_free_maps(self.normalise(images, valid), self.vision), valid, self.size)

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        visual = features.per_sentence(image_index)
        maps, fused_words = self.fusion(visual, words, self.vision, self.text)  # each (N, C, h, w); (N, L, C)
        grid = self.map_at(maps, self.veg_stride)  # F_v (N, C, h, w)
        expression = self.expression(grid, words, fused_words, self._cells(visual, self.veg_stride))  # E_V (N, L, d)
        of_image = [self.level_at(stride) < self.first_fused for stride in self.strides[:-1]]
        pyramid = [
            self.map_at(features.maps if shared else maps, stride)
            for stride, shared in zip(self.strides, [*of_image, False], strict=True)
        ]
        rows, mask = self.context(expression.states, expression.mask, image_index)
        cells = self._cells(visual, self.strides[-1])
        index = [image_index if shared else None for shared in of_image]
        logits = self.decoder(pyramid, cells, rows, mask, index)  # (N, 1, h, w)
        evidence, aux = explain(expression, words, (grid.shape[-2], grid.shape[-1]))
        return Output(logits, evidence, self._no_target(expression), aux)

    def _cells(self, visual: Features, stride: int) -> Tensor:
        """(N, hw) bool: the valid cells of the grid at a stride."""
        return valid_cells(visual.valid, self.size, self.grid_at(stride)).flatten(1)

    def _no_target(self, expression: Expression) -> Tensor | None:
        """(N,) no-target logits from the mean of the expression."""
        if self.no_target_head is None:
            return None
        logits: Tensor = self.no_target_head(mean_valid(expression.states, expression.mask))[:, 0]
        return logits

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 6, at the frame's size; the retrieval's own loss where there is a retrieval."""
        assert batch.masks is not None
        logits = F.interpolate(output.logits, size=self.size, mode="bilinear")[:, 0]  # (N, H, W)
        terms, parts = {}, self.segment.loss.split("+")
        if "ce" in parts:
            terms["mask"] = weighted_cross_entropy(logits, batch.masks, self.segment.background, self.segment.target)
        if "dice" in parts:
            terms["dice"] = dice(logits, batch.masks)
        terms |= self._retrieval_terms(output.aux, batch.masks) if "alignment" in output.aux else {}
        if output.no_target is not None:
            ground_truth = batch.no_target.to(output.no_target.dtype)
            cross_entropy = F.binary_cross_entropy_with_logits(output.no_target, ground_truth, reduction="none")
            terms["no_target"] = self.no_target_weight * cross_entropy
        return terms

    def _retrieval_terms(self, aux: dict[str, Tensor], masks: Tensor) -> dict[str, Tensor]:
        """Section 4.4, and the diversity of the cues: (N,) each."""
        options, terms = self.contrast, {}
        if options.weight:
            contrast = CONTRASTS[options.kind]
            if options.cues == "global":
                value = contrast(aux["alignment"], masks)
            else:
                sentence, cue = aux["cues"].nonzero(as_tuple=True)
                each = contrast(aux["relevance"][sentence, cue], masks[sentence])  # one value a cue
                value = mean_of_rows(each, sentence, len(masks))
            terms["contrast"] = options.weight * value
        if options.diversity:
            terms["diversity"] = options.diversity * similarity(aux["relevance"].flatten(2), aux["cues"])
        return terms


def mean_of_rows(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """The mean of the values (K,) of each of so many rows, where `row` (K,) says whose each is: (rows,)."""
    total = values.new_zeros(rows).index_add(0, row, values)
    return total / torch.bincount(row, minlength=rows).clamp(min=1)


def similarity(relevance: Tensor, cues: Tensor) -> Tensor:
    """The mean cosine of the softmax relevances (N, L, T) of two of the valid cues (N, L): (N,), 0 for one cue."""
    unit = F.normalize(relevance.softmax(-1), dim=-1)
    pairs = cues[:, :, None] & cues[:, None] & ~torch.eye(cues.shape[1], dtype=torch.bool, device=cues.device)
    return (unit @ unit.mT * pairs).sum((-2, -1)) / pairs.sum((-2, -1)).clamp(min=1)


def explain(expression: Expression, words: Words, size: tuple[int, int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Evidence maps, (N, L, h, w) or for the global cue (N, 1, h, w), and what the loss reads: the relevance of the
    global cue `alignment` (N, h, w), that of every cue (N, L, h, w), which `cues` (N, L) are valid, and the number of
    tokens `retrieved` for each (N, L)."""
    evidence, aux = {}, {}
    if expression.scores is not None and expression.retrieved is not None:
        of_sentence = global_scores(expression.scores, words)  # (N, T)
        evidence = {
            "global_relevance": of_sentence.detach()[:, None],
            "relevance": expression.scores.detach(),
            "retrieved": expression.retrieved.float(),
        }
        aux = {
            "alignment": as_maps(of_sentence, size),
            "relevance": as_maps(expression.scores, size),
            "cues": expression.mask,
            "retrieved": expression.retrieved.sum(-1),
        }
    if expression.attention is not None:
        evidence["attention"] = expression.attention.detach()
    return {name: as_maps(values, size) for name, values in evidence.items()}, aux


def as_maps(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., T) -> (..., h, w)"""
    return values.reshape(*values.shape[:-1], *size)


def pixel_bce(alignment: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy of the relevance (N, h, w), upsampled to the masks (N, H, W): (N,)."""
    upsampled = F.interpolate(alignment[:, None], size=masks.shape[-2:], mode="bilinear")[:, 0]
    return F.binary_cross_entropy_with_logits(upsampled, masks.to(upsampled.dtype), reduction="none").mean((-2, -1))


def pixel_infonce(alignment: Tensor, masks: Tensor) -> Tensor:
    """-log of the share of exp(relevance) on the target's cells, (N,): 0 for a sentence without target.

    The target's cells are those that it covers for the most part; a small one keeps its fullest cell.
    """
    positive = majority(shrink_mask(masks, (alignment.shape[-2], alignment.shape[-1]))).bool().flatten(1)
    alignment = alignment.flatten(1)
    of_target = torch.where(positive.any(-1, keepdim=True), alignment.masked_fill(~positive, -torch.inf), alignment)
    return alignment.logsumexp(-1) - of_target.logsumexp(-1)


CONTRASTS = {"bce": pixel_bce, "infonce": pixel_infonce}
