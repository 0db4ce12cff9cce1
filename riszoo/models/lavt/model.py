"""LAVT, "Language-Aware Vision Transformer for Referring Image Segmentation" (Yang et al., CVPR 2022).

Words meet pixels inside the vision encoder: after each stage every pixel attends to the words (fusion.py), and a gate
adds the result to what the next stage sees. The decoder reads the results of all stages. Section numbers are those of
docs/models/lavt.md, which says of each choice whether it is the paper's, its code's or assumed.

    I images   N sentences   L tokens   C channels of a stage   h x w its grid   H x W the network's frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.errors import UserError
from riszoo.layers import to_grid, to_tokens
from riszoo.losses import dice, weighted_cross_entropy
from riszoo.model import RISModule
from riszoo.models.lavt.decoder import TopDownDecoder
from riszoo.models.lavt.fusion import Fusion, LanguageGate, SentenceFusion, build_fusion


@dataclass
class Pathway:
    """Section 4, the language pathway: what the next stage sees. Without it, that is the stage's own map."""

    enabled: bool = True
    gate: Literal["tanh", "sigmoid", "none"] = "tanh"


@dataclass
class Segment:
    """Section 6: the mask's loss; `background` and `target` are the classes' weights in the cross-entropy."""

    loss: Literal["ce", "dice", "ce+dice"] = "ce"
    background: float = 0.9
    target: float = 1.1


class LAVT(RISModule):
    """Language enters the vision encoder after each of its stages.

    Args:
        fusion, pathway, segment: sections 3, 4 and 6
        decoder_input: the maps the decoder reads: the product of pixels and language, the stage's own map, or the
            map with the gated product added
        decoder_width: channels of the decoder; default: half of the coarsest map's
        frozen_embeddings: the text encoder's embeddings are not trained
        trained_text_layers: number of the text encoder's first layers that are trained; default: all
    """

    published: ClassVar[str] = "lavt480"

    def __init__(
        self,
        *,
        fusion: Fusion = Fusion(),  # noqa: B008 - read only, and its fields become options
        pathway: Pathway = Pathway(),  # noqa: B008
        segment: Segment = Segment(),  # noqa: B008
        decoder_input: Literal["product", "visual", "gated"] = "product",
        decoder_width: int | None = None,
        frozen_embeddings: bool = False,
        trained_text_layers: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pathway, self.segment, self.decoder_input = pathway.enabled, segment, decoder_input
        channels = self.vision.channels
        self.fusion = build_fusion(fusion, channels, self.text.width)
        self.gates = nn.ModuleList(LanguageGate(c, pathway.gate) for c in channels)
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.decoder = TopDownDecoder(channels, decoder_width or channels[-1] // 2)
        self._freeze_unused()
        if frozen_embeddings:
            self.text.freeze_embeddings()
        if trained_text_layers is not None:
            self.text.freeze_layers(trained_text_layers)

    def _freeze_unused(self) -> None:
        """Exclude from training what no output depends on: checkpoints contain it, as the published ones do."""
        if not self.pathway and self.decoder_input == "visual":
            raise UserError("without pathway.enabled the decoder must read language: change decoder_input 'visual'")
        for stage, (fusion, gate) in enumerate(zip(self.fusion, self.gates, strict=True)):
            gate.requires_grad_(self._is_gated(stage))
            fusion.requires_grad_(self._is_gated(stage) or self.decoder_input != "visual")

    def _fusion(self, stage: int) -> SentenceFusion:
        fusion = self.fusion[stage]
        assert isinstance(fusion, SentenceFusion)
        return fusion

    def _is_gated(self, stage: int) -> bool:
        """Whether anything reads the sum of a stage's map and its gated product."""
        continues = stage < len(self.vision.channels) - 1
        return self.decoder_input == "gated" or (self.pathway and continues)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """The published rule: all but the norms and position tables of the encoder and of what is inside its stages."""
        inside = name.startswith(("vision.", "fusion.", "gates.", "norms."))
        return not (inside and ("norm" in name or "relative_position_bias_table" in name))

    # -- from images and sentences to logits ----------------------------------------------------------------------

    def backbone(self, images: Tensor, valid: Tensor) -> Features:
        """The first stage's map V_1: language enters after it."""
        x = self.vision.stem(self.normalise(images, valid))
        return Features([self.vision.blocks(0, self.vision.down(0, x))], valid, self.size)

    def enrich(self, raw: Features) -> Features:
        """V_1, and the parts of the first fusion that do not depend on the sentence."""
        (visual,) = raw.maps
        parts = self._fusion(0).image_parts(to_tokens(visual))
        return Features([visual, *(to_grid(part, visual.shape[-2:]) for part in parts)], raw.valid, raw.size)

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        x, *first_parts = features.per_sentence(image_index).maps
        parts = [to_tokens(part) for part in first_parts]
        maps: list[Tensor] = []
        evidence: dict[str, Tensor] = {}
        for stage in range(len(self.vision.channels)):
            if stage:
                x = self.vision.blocks(stage, self.vision.down(stage, x))  # V_i (N, C, h, w)
                parts = self._fusion(stage).image_parts(to_tokens(x))
            size = x.shape[-2:]
            visual = to_tokens(x)  # (N, hw, C)
            product, attention = self.fusion[stage](parts, words)  # R_i (N, hw, C), (N, hw, L)
            evidence[f"attention{stage + 1}"] = to_grid(attention.detach(), size)
            gated = visual
            if self._is_gated(stage):
                gate = self.gates[stage](product)
                evidence[f"gate{stage + 1}"] = to_grid(gate.detach().abs().mean(-1, keepdim=True), size)
                gated = visual + gate * product  # E_i
            read = {"product": product, "visual": visual, "gated": gated}[self.decoder_input]
            maps.append(to_grid(self.norms[stage](read), size))  # F_i
            x = to_grid(gated if self.pathway else visual, size)
        logits = F.interpolate(self.decoder(maps), self.size, mode="bilinear", align_corners=True)  # (N, 1, H, W)
        return Output(logits, evidence)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 6, at the frame's size; the Dice loss is the mean over the two classes."""
        assert batch.masks is not None
        logits, terms = output.logits[:, 0], {}
        if "ce" in self.segment.loss:
            terms["mask"] = weighted_cross_entropy(logits, batch.masks, self.segment.background, self.segment.target)
        if "dice" in self.segment.loss:
            terms["dice"] = (dice(logits, batch.masks) + dice(-logits, ~batch.masks)) / 2
        return terms
