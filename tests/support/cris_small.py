"""The official CRIS at a small size, with the tensors that its authors' code gave for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from riszoo.batch import Batch, Tokens
from riszoo.model import RISModule
from riszoo.models.cris.published import translate
from tests.support import official


@dataclass
class Reference:
    """`weights` by official name, `tensors` (inputs and outputs), and the float32 rounding of the logits."""

    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    rounding: float

    def output(self, name: str) -> Tensor:
        return self.tensors[f"out.{name}"]


def reference() -> Reference:
    about, tensors = official.stored("cris_small")
    return Reference(official.with_prefix(tensors, "state."), tensors, about["logits_float32_minus_float64"])


SECTION: dict[str, Any] = {
    "class_path": "riszoo.models.cris.model.CRIS",
    "init_args": {
        "size": [96, 128],
        "mean": [0.0, 0.0, 0.0],  # the images are normalised
        "std": [1.0, 1.0, 1.0],
        "vision": {"name": "resnet50_clip_gap", "options": {"layers": [1, 2, 2, 1], "width": 8}},
        "text": {
            "name": "clip",
            "length": 8,
            "vocabulary": official.vocabulary(200),  # ids of start and end: 198 and 199
            "options": {"tokens": "words", "width": 32, "layers": 2, "heads": 2, "projection": 48},
        },
        "neck": {"widths": [16, 32, 64]},
        "decoder": {"layers": 2, "heads": 4, "hidden": 48},
    },
}


def build(source: Reference, **over: Any) -> RISModule:
    """The fixture's model with its weights, in evaluation mode."""
    return official.build(SECTION, translate({"state_dict": source.weights}).state, **over)


def tokens(source: Reference) -> Tokens:
    """The ids of both sentences; the first fills its eight positions, the second has three pads."""
    ids = source.tensors["in.tokens"]
    return Tokens(ids, torch.arange(ids.shape[1]) <= ids.argmax(1)[:, None], [[], []])


def batch(source: Reference) -> Batch:
    """Both sentences, each about its own image."""
    images = source.tensors["in.image"]
    masks = torch.zeros(2, *images.shape[2:], dtype=torch.bool)
    return official.make_batch(images, tokens(source), [0, 1], masks)
