"""CGFormer, "Contrastive Grouping with Transformer for Referring Image Segmentation" (Tang et al., CVPR 2023).

A few query tokens alternately read the words and group the pixels, each of which belongs to exactly one token
(grouping.py). The last token is the referent's, and the weights of the convolution that draws the mask are computed
from it (decoder.py). The encoder is LAVT's. Section numbers are those of docs/models/cgformer.md, which says of each
choice whether it is the paper's, its code's or assumed.

    N sentences   T query tokens   h x w a grid   H x W the network's frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.errors import UserError
from riszoo.losses import bce, dice
from riszoo.models.cgformer.decoder import GroupingDecoder, Head, Query
from riszoo.models.cgformer.grouping import Group
from riszoo.models.lavt.encoder import LanguageAwareModel


@dataclass
class Contrast:
    """Section 7: the loss of the last token's pixels. `weight` at the finest level, `ratio` from a level to the next
    coarser one; weight 0 leaves the loss out."""

    weight: float = 0.1
    ratio: float = 0.1


class CGFormer(LanguageAwareModel):
    """Query tokens group the pixels of a language-aware encoder.

    Args:
        query, group, head, contrast: sections 4 to 7
    """

    published: ClassVar[str] = "cgformer"

    def __init__(
        self,
        *,
        query: Query = Query(),  # noqa: B008 - read only, and its fields become options
        group: Group = Group(),  # noqa: B008
        head: Head = Head(),  # noqa: B008
        contrast: Contrast = Contrast(),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check(query, group, contrast)
        self.contrast = contrast
        grids = [self.grid_at(stride) for stride in self.vision.strides]
        self.decoder = GroupingDecoder(self.vision.channels, grids, self.text.width, query, group, head)

    def _check(self, query: Query, group: Group, contrast: Contrast) -> None:
        """Raise UserError for options that exclude each other."""
        if len(self.vision.channels) < 2:
            raise UserError("CGFormer groups the pixels of at least two maps: choose a vision encoder with two stages")
        if query.tokens < 1 or (query.tokens == 1 and group.kind != "attention"):
            raise UserError(f"query.tokens is {query.tokens}: pixels are grouped among at least two tokens")
        if group.kind == "attention" and contrast.weight:
            raise UserError("group.kind 'attention' assigns no pixels to tokens: set contrast.weight to 0")

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """The published rule: all parameters."""
        return True

    def learning_rate_group(self, name: str) -> str:
        """The published groups: the norms of the stages belong to the encoder, its fusion and gates do not."""
        return "vision" if name.startswith("norms.") else super().learning_rate_group(name)

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        maps, evidence = self.fused_maps(features, image_index, words)
        mask, hits = self.decoder(maps, words)
        logits = F.interpolate(mask, self.size, mode="bilinear", align_corners=True)  # (N, 1, H, W)
        referents = {f"group{level}": hit[:, -1] for level, hit in enumerate(hits, 1)}  # (N, h, w) of the last token
        evidence |= {name: hit.detach()[:, None] for name, hit in referents.items()}
        return Output(logits, evidence, aux=referents)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 7, at the frame's size."""
        assert batch.masks is not None
        logits, masks = output.logits[:, 0], batch.masks
        terms = {"mask": bce(logits, masks), "dice": dice(logits, masks)}
        if self.contrast.weight:
            terms["contrast"] = self._contrast(list(output.aux.values()), masks)
        return terms

    def _contrast(self, referents: list[Tensor], masks: Tensor) -> Tensor:
        """The Dice losses of the last token's pixels, given coarse to fine; as officially, these pass a sigmoid too."""
        targets = (F.interpolate(masks[:, None].float(), hit.shape[-2:])[:, 0] for hit in referents)  # nearest
        losses = [dice(hit, target) for hit, target in zip(referents, targets, strict=True)]
        weights = [self.contrast.weight * self.contrast.ratio**level for level in range(len(losses))]
        return torch.stack([weight * loss for weight, loss in zip(weights, reversed(losses), strict=True)]).sum(0)
