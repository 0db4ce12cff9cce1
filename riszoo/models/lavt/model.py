"""LAVT, "Language-Aware Vision Transformer for Referring Image Segmentation" (Yang et al., CVPR 2022).

Words meet pixels inside the vision encoder (encoder.py): after each stage every pixel attends to the words (fusion.py),
and a gate adds the result to what the next stage sees. The decoder reads the results of all stages. Section numbers are
those of docs/models/lavt.md, which says of each choice whether it is the paper's, its code's or assumed.

    I images   N sentences   H x W the network's frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.losses import dice, weighted_cross_entropy
from riszoo.models.lavt.decoder import TopDownDecoder
from riszoo.models.lavt.encoder import LanguageAwareModel


@dataclass
class Segment:
    """Section 6: the mask's loss; `background` and `target` are the classes' weights in the cross-entropy."""

    loss: Literal["ce", "dice", "ce+dice"] = "ce"
    background: float = 0.9
    target: float = 1.1


class LAVT(LanguageAwareModel):
    """Language enters the vision encoder after each of its stages.

    Args:
        segment: section 6
        decoder_width: channels of the decoder; default: half of the coarsest map's
        frozen_embeddings: the text encoder's embeddings are not trained
        trained_text_layers: number of the text encoder's first layers that are trained; default: all
    """

    published: ClassVar[str] = "lavt480"

    def __init__(
        self,
        *,
        segment: Segment = Segment(),  # noqa: B008 - read only, and its fields become options
        decoder_width: int | None = None,
        frozen_embeddings: bool = False,
        trained_text_layers: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.segment = segment
        channels = self.vision.channels
        self.decoder = TopDownDecoder(channels, decoder_width or channels[-1] // 2)
        if frozen_embeddings:
            self.text.freeze_embeddings()
        if trained_text_layers is not None:
            self.text.freeze_layers(trained_text_layers)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """The published rule: all but the norms and position tables of the encoder and of what is inside its stages."""
        inside = name.startswith(("vision.", "fusion.", "gates.", "norms."))
        return not (inside and ("norm" in name or "relative_position_bias_table" in name))

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        maps, evidence = self.fused_maps(features, image_index, words)
        logits = F.interpolate(self.decoder(maps), self.size, mode="bilinear", align_corners=True)  # (N, 1, H, W)
        return Output(logits, evidence)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 6, at the frame's size; the Dice loss is the mean over the two classes."""
        assert batch.masks is not None
        logits, terms, parts = output.logits[:, 0], {}, self.segment.loss.split("+")
        if "ce" in parts:
            terms["mask"] = weighted_cross_entropy(logits, batch.masks, self.segment.background, self.segment.target)
        if "dice" in parts:
            terms["dice"] = (dice(logits, batch.masks) + dice(-logits, ~batch.masks)) / 2
        return terms
