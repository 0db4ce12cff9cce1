"""The official CRIS at a small size, with the tensors that its authors' code gave for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from riszoo.batch import Batch, Geometry, Sample, Tokens
from riszoo.build import instantiate
from riszoo.model import RISModule
from riszoo.models.cris.published import translate
from tests.support.clip_small import FIXTURES


@dataclass
class Reference:
    """`weights` by official name, `tensors` (inputs and outputs), and the float32 rounding of the logits."""

    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    rounding: float

    def output(self, name: str) -> Tensor:
        return self.tensors[f"out.{name}"]


def reference() -> Reference:
    described = json.loads((FIXTURES / "cris_small.json").read_text())
    content = load_file(FIXTURES / "cris_small.safetensors")
    weights = {n.removeprefix("state."): tensor for n, tensor in content.items() if n.startswith("state.")}
    tensors = {name: tensor for name, tensor in content.items() if not name.startswith("state.")}
    return Reference(weights, tensors, described["logits_float32_minus_float64"])


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
            "vocabulary": [f"w{index}" for index in range(196)],  # ids of start and end: 198 and 199
            "options": {"tokens": "words", "width": 32, "layers": 2, "heads": 2, "projection": 48},
        },
        "neck": {"widths": [16, 32, 64]},
        "decoder": {"layers": 2, "heads": 4, "hidden": 48},
    },
}


def build(source: Reference, **over: Any) -> RISModule:
    """The fixture's model with its weights, in evaluation mode."""
    section = {**SECTION, "init_args": {**SECTION["init_args"], **over}}
    model = instantiate(RISModule, section)  # type: ignore[type-abstract]
    model.load_state_dict(translate({"state_dict": source.weights}).state)
    return model.eval()


def tokens(source: Reference) -> Tokens:
    """The ids of both sentences; the first fills its eight positions, the second has three pads."""
    ids = source.tensors["in.tokens"]
    return Tokens(ids, torch.arange(ids.shape[1]) <= ids.argmax(1)[:, None], [[], []])


def batch(source: Reference) -> Batch:
    """Both sentences, each about its own image."""
    images = source.tensors["in.image"]
    size = (images.shape[2], images.shape[3])
    return Batch(
        images=images,
        valid=torch.tensor([[0, 0, *size]] * 2),
        image_ids=["first", "second"],
        geometry=[Geometry.fit("squeeze", size, size)] * 2,
        texts=["", ""],
        image_index=torch.arange(2),
        samples=[Sample(str(i), i, "own", "own", "image", "", "") for i in range(2)],
        no_target=torch.zeros(2, dtype=torch.bool),
        masks=torch.zeros(2, *size, dtype=torch.bool),
        tokens=tokens(source),
    )
