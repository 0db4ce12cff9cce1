"""Small RISAMs, and the inputs of their blocks and decoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from riszoo.encoders.base import TextConfig, VisionConfig
from riszoo.layers import sine
from riszoo.models.risam.attention import Context, MutualAwareBlock
from riszoo.models.risam.model import RISAM
from riszoo.models.risam.options import Decoder, Enhancement, MutualAware
from tests.support.sam_reference import TOY

WORDS = ["the", "red", "blue", "big", "circle", "square", "left"]
BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SMALL: dict[str, Any] = {
    "width": 32,
    "ma": MutualAware(heads=4, hidden=64),
    "decoder": Decoder(heads=4, hidden=64),
    "fe": Enhancement(stride=8),
}


def toy(vision: dict[str, Any] | None = None, weights: str = "none", **options: Any) -> RISAM:
    torch.manual_seed(0)
    over = {"patch": 8, "window": 4, "peft": "adapter", "rank": 4, "out_channels": 32} | (vision or {})
    text = TextConfig("bert", frozen=True, vocabulary=WORDS, options=BERT)
    encoder = VisionConfig("sam_vit_tiny", weights, options=TOY | over)
    return RISAM(size=64, geometry="pad", vision=encoder, text=text, **(SMALL | options))


WORD_MASK = (torch.arange(5) < 3).expand(2, -1)
CELL_MASK = (torch.arange(64) < 32).expand(2, -1)


def inputs() -> dict[str, Any]:
    """A block's arguments: an 8 x 8 grid whose lower half is padding, and five words of which the last two are."""
    generator = torch.Generator().manual_seed(1)
    cell_code = torch.randn(64, 32, generator=generator).double()
    return {
        "cells": torch.randn(2, 64, 32, generator=generator).double(),
        "words": torch.randn(2, 5, 32, generator=generator).double() * WORD_MASK[..., None],
        "context": Context(cell_code, sine(5, 32, torch.zeros(1).double()), CELL_MASK, WORD_MASK),
    }


def block(seed: int = 0, **options: Any) -> MutualAwareBlock:
    torch.manual_seed(seed)
    return MutualAwareBlock(MutualAware(heads=4, hidden=64, **options), 32).double()


def changed(given: dict[str, Any], name: str, where: Tensor) -> dict[str, Any]:
    """The same arguments with noise on the cells or words where `where` is true."""
    noise = torch.randn(given[name].shape, generator=torch.Generator().manual_seed(9)).double()
    return given | {name: torch.where(where[..., None], given[name] + noise, given[name])}


def over_sam(path: str, **options: Any) -> RISAM:
    text = TextConfig("bert", frozen=True, vocabulary=WORDS, options=BERT)
    vision = VisionConfig("sam_vit_tiny", path, options=TOY | {"peft": "adapter", "rank": 4})
    torch.manual_seed(0)
    return RISAM(size=128, geometry="pad", vision=vision, text=text, ma=MutualAware(depth=1), **options)
