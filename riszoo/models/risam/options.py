"""RISAM's options, section by section of docs/models/risam.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from riszoo.errors import UserError


@dataclass
class Enhancement:
    """Section 4, Feature Enhancement.

    enabled  False passes the deepest map on as it is
    taps     three of the encoder's maps, shallow to deep (for SAM, `vision.options.taps` says after which blocks)
    stride   of the common grid, to which other maps are resized
    norm     `ln2d` LayerNorm over channels, `bn` BatchNorm
    """

    enabled: bool = True
    taps: tuple[int, int, int] = (-3, -2, -1)
    stride: int = 16
    norm: Literal["ln2d", "bn"] = "ln2d"


@dataclass
class MutualAware:
    """Section 5, the mutual-aware attention blocks.

    vga, lga         the vision-guided and the language-guided branch
    shared_affinity  whether both branches share one affinity of cells and words
    lga_norm         the transposed affinity normalised over the cells, or A transposed literally
    prune            `mean`: a word attends only to cells whose score is not below its mean
    """

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
    """Section 6, the mask decoder.

    kind     `mutual`, or `sam_sparse`: SAM's own tokens with the sentence as their one sparse prompt
    query    the query token: `learned`, `sentence` (learned plus the mean word) or `none` (the mean word instead)
    words    whether the words are tokens beside the query
    pos_l    whether words carry their position code
    weights  `sam`: starts from the decoder in the weight file of a SAM vision encoder, if it has one
    start    added to every logit, so that a decoder trained from scratch starts with small masks
    """

    kind: Literal["mutual", "sam_sparse"] = "mutual"
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
        """Whether the vision-aware words reach the mask; if not, the last block must not update them."""
        return self.kind == "sam_sparse" or self.words or self.query != "learned"


@dataclass
class Objective:
    """Section 7: the mask's loss terms with their weights; `alpha` and `gamma` are the focal loss's."""

    kind: Literal["focal+dice", "bce+dice", "ce"] = "focal+dice"
    focal_weight: float = 20.0
    bce_weight: float = 1.0
    dice_weight: float = 1.0
    alpha: float = 0.25
    gamma: float = 2.0

    @property
    def terms(self) -> tuple[str, ...]:
        return {"focal+dice": ("focal", "dice"), "bce+dice": ("bce", "dice"), "ce": ("bce",)}[self.kind]


@dataclass
class NoTarget:
    """Section 9: `area`, an empty mask says that a sentence has no target; `head`, a classifier on the query does.

    absent, present  weights of the two classes
    """

    kind: Literal["area", "head"] = "area"
    weight: float = 0.1
    absent: float = 1.1
    present: float = 0.9


def check(width: int, ma: MutualAware, decoder: Decoder) -> None:
    """Raise a UserError for options that cannot be combined."""
    if width % 8 or any((width // 2) % (2 * heads) for heads in (ma.heads, decoder.heads)):
        raise UserError(f"width {width} must be a multiple of 8, and of 4 times ma.heads and decoder.heads")
    if decoder.kind == "sam_sparse" and (decoder.query, decoder.words, decoder.pos_l) != ("learned", True, True):
        raise UserError("decoder.query, words and pos_l are of decoder.kind mutual: leave them out with sam_sparse")
    if decoder.query == "none" and not decoder.words:
        raise UserError("decoder.query none with decoder.words false leaves the decoder no token; switch one on")
    if ma.lga_norm == "literal_transpose" and ma.prune != "off":
        raise UserError("ma.prune is of the scores that pixel_softmax normalises: set ma.lga_norm pixel_softmax")
    if not decoder.reads_words and not (ma.depth and ma.vga):
        raise UserError("the sentence does not reach the mask; switch on ma.vga (and ma.depth) or decoder.words")
