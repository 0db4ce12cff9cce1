"""RISAM's options, section by section of docs/models/risam.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from riszoo.errors import UserError


@dataclass
class Enhancement:
    """Section 4. `taps` picks three of the encoder's maps, shallow to deep (SAM: after which blocks they come is
    `vision.options.taps`); maps of another stride are brought to `stride`. `text` film lets the sentence scale F_v."""

    enabled: bool = True
    taps: tuple[int, int, int] = (-3, -2, -1)
    stride: int = 16
    norm: Literal["ln2d", "bn"] = "ln2d"
    text: Literal["none", "film"] = "none"


@dataclass
class MutualAware:
    """Section 5. `vga` and `lga` are the two branches; `prune` mean lets a word see only cells above its mean."""

    depth: int = 2
    heads: int = 8
    hidden: int = 1024
    vga: bool = True
    lga: bool = True
    shared_affinity: bool = True
    lga_norm: Literal["pixel_softmax", "literal_transpose"] = "pixel_softmax"
    prune: Literal["off", "mean"] = "off"


@dataclass
class Decoder:
    """Section 6. `weights` sam starts from the decoder in the file of `vision.weights`, where that names one; `start`
    is added to every logit, so that a decoder trained from scratch begins where a target is rare."""

    kind: Literal["mutual", "sam_sparse", "fpn"] = "mutual"
    query: Literal["learned", "sentence", "none"] = "learned"
    words: bool = True
    pos_l: bool = True
    depth: int = 2
    heads: int = 8
    hidden: int = 2048
    weights: Literal["sam", "none"] = "sam"
    start: float = 0.0

    @property
    def reads_words(self) -> bool:
        """Whether vision-aware words reach the mask; without, the last block's language side would never train."""
        return self.kind == "sam_sparse" or (self.kind == "mutual" and (self.words or self.query != "learned"))


@dataclass
class Objective:
    """Section 7: the terms, each with its factor, and what stands for a target in the focal one."""

    kind: Literal["focal+dice", "bce+dice", "ce"] = "focal+dice"
    focal_weight: float = 20.0
    bce_weight: float = 1.0
    dice_weight: float = 1.0
    alpha: float = 0.25
    gamma: float = 2.0


@dataclass
class Align:
    """Section 7, text to pixel: cells near the sentence's vector should be target's. A weight of 0 leaves it out;
    `start` is added to its logits, as in the decoder."""

    weight: float = 0.0
    start: float = 0.0


@dataclass
class NoTarget:
    """Section 9. `area`: an (almost) empty mask says it, as the protocol counts; `head`: a classifier on the query."""

    kind: Literal["area", "head"] = "area"
    weight: float = 0.1
    absent: float = 1.1
    present: float = 0.9


def check(width: int, ma: MutualAware, decoder: Decoder, nt: NoTarget) -> None:
    """What the options cannot mean together."""
    if width % 8 or any((width // 2) % (2 * heads) for heads in (ma.heads, decoder.heads)):
        raise UserError(f"width {width} must be a multiple of 8, and of 4 times ma.heads and decoder.heads")
    if decoder.query == "none" and decoder.kind == "mutual" and not decoder.words:
        raise UserError("decoder.query none with decoder.words false leaves no token to ask with; switch one on")
    if not decoder.reads_words and not (ma.depth and ma.vga):
        raise UserError("nothing brings the sentence to the mask: switch on ma.vga (and ma.depth) or decoder.words")
    if nt.kind == "head" and decoder.kind == "fpn":
        raise UserError("nt.kind head classifies the query token, which decoder.kind fpn lacks; choose nt.kind area")
