"""LAVT's encoder: language enters a vision encoder after each of its stages. CGFormer's encoder is the same.

Sections 2 to 4 of docs/models/lavt.md.

    I images   N sentences   L tokens   C channels of a stage   h x w its grid   H x W the network's frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from riszoo.batch import Features, Words
from riszoo.errors import UserError
from riszoo.layers import to_grid, to_tokens
from riszoo.model import RISModule
from riszoo.models.lavt.fusion import Fusion, LanguageGate, SentenceFusion, build_fusion


@dataclass
class Pathway:
    """Section 4, the language pathway: what the next stage sees. Without it, that is the stage's own map."""

    enabled: bool = True
    gate: Literal["tanh", "sigmoid", "none"] = "tanh"


class LanguageAwareModel(RISModule):
    """A model whose vision encoder attends to the words after each stage; a decoder reads the maps of all stages.

    Args:
        fusion, pathway: sections 3 and 4
        decoder_input: the maps the decoder reads: the product of pixels and language, the stage's own map, or the
            map with the gated product added
    """

    def __init__(
        self,
        *,
        fusion: Fusion = Fusion(),  # noqa: B008 - read only, and its fields become options
        pathway: Pathway = Pathway(),  # noqa: B008
        decoder_input: Literal["product", "visual", "gated"] = "product",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pathway, self.decoder_input = pathway.enabled, decoder_input
        channels = self.vision.channels
        self.fusion = build_fusion(fusion, channels, self.text.width)
        self.gates = nn.ModuleList(LanguageGate(c, pathway.gate) for c in channels)
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self._freeze_unused()

    def _freeze_unused(self) -> None:
        """Exclude from training what no output depends on: checkpoints contain it, as the published ones do."""
        if self.decoder_input == "visual" and not any(map(self._is_gated, range(len(self.gates)))):
            raise UserError(
                "without pathway.enabled, or with one stage, the decoder must read language: "
                "change decoder_input 'visual'"
            )
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

    # -- from images and sentences to maps ------------------------------------------------------------------------

    def backbone(self, images: Tensor, valid: Tensor) -> Features:
        """The first stage's map V_1: language enters after it."""
        x = self.vision.stem(self.normalise(images, valid))
        return Features([self.vision.blocks(0, self.vision.down(0, x))], valid, self.size)

    def enrich(self, raw: Features) -> Features:
        """V_1, and the parts of the first fusion that do not depend on the sentence."""
        (visual,) = raw.maps
        parts = self._fusion(0).image_parts(to_tokens(visual))
        return Features([visual, *(to_grid(part, visual.shape[-2:]) for part in parts)], raw.valid, raw.size)

    def fused_maps(
        self, features: Features, image_index: Tensor, words: Words
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """F_i of each sentence from fine to coarse, each (N, C, h, w), and maps that explain them."""
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
        return maps, evidence
