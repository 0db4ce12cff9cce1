"""The official DETRIS at a small size, with the tensors that its authors' code gave for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from riszoo.batch import Batch, Geometry, Sample, Tokens
from riszoo.build import instantiate
from riszoo.model import RISModule
from riszoo.models.detris.published import translate

FIXTURES = Path(__file__).parents[1] / "models" / "fixtures"
WORDS = 200 - 4
"""Words of the fixture's vocabulary: pad and unknown come before them, start and end after."""


@dataclass
class Reference:
    """`weights` by official name, `inputs` and `outputs`, and the sizes that the authors' code fixes at full size."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def reference() -> Reference:
    described = json.loads((FIXTURES / "detris_small.json").read_text())
    content = load_file(FIXTURES / "detris_small.safetensors")
    weights, inputs, outputs = (
        {name.removeprefix(prefix): tensor for name, tensor in content.items() if name.startswith(prefix)}
        for prefix in ("state.", "in.", "out.")
    )
    return Reference(described["config"], weights, inputs, outputs)


def section(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the fixture's model."""
    detris, clip, dino, fixed = (config[part] for part in ("detris", "clip", "dino", "fixed"))
    vision = {"embed_dim": dino["embed_dim"], "depth": dino["depth"], "num_heads": dino["num_heads"]}
    return {
        "class_path": "riszoo.models.detris.model.DETRIS",
        "init_args": {
            "size": detris["input_size"],
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "vision": {
                "name": "vit_base_patch14_reg4_dinov2",
                "frozen": True,
                "options": {**vision, "init_values": dino["init_values"], "position_offset": 0.1},
            },
            "text": {
                "name": "clip",
                "frozen": True,
                "length": clip["txt_length"],
                "vocabulary": [f"w{index}" for index in range(WORDS)],
                "options": {
                    "tokens": "words",
                    "width": clip["transformer_width"],
                    "heads": clip["transformer_heads"],
                    "layers": clip["transformer_layers"],
                    "projection": clip["embed_dim"],
                    "raw_pads": True,
                },
            },
            "text_adapters": {"layers": clip["add_adapter_layer"], "width": clip["txt_adapter_dim"]},
            "aligners": {
                "blocks": detris["visual_adapter_layer"],
                "width": detris["visual_adapter_dim"],
                "attention": fixed["aligner_embed_dim"],
                "heads": fixed["aligner_num_heads"],
            },
            "width": detris["vis_dim"],
            "taps": detris["output_dinov2"],
            "decoder": {"layers": detris["num_layers"], "heads": detris["num_head"], "hidden": detris["dim_ffn"]},
        },
    }


def build(source: Reference, **over: Any) -> RISModule:
    """The fixture's model with its weights, in evaluation mode."""
    described = section(source.config)
    described["init_args"] |= over
    model = instantiate(RISModule, described)  # type: ignore[type-abstract]
    model.load_state_dict(translate({"state_dict": source.weights}).state)
    return model.eval()


def batch(source: Reference) -> Batch:
    """The fixture's two images, already normalised, with a sentence each."""
    images, ids = source.inputs["image"], source.inputs["tokens"].long()
    size = images.shape[2], images.shape[3]
    count = len(ids)
    return Batch(
        images=images,
        valid=torch.tensor([[0, 0, *size]] * count),
        image_ids=[f"image{i}" for i in range(count)],
        geometry=[Geometry.fit("squeeze", size, size)] * count,
        texts=[""] * count,
        image_index=torch.arange(count),
        samples=[Sample(str(i), i, "own", "own", f"image{i}", "", "") for i in range(count)],
        no_target=torch.zeros(count, dtype=torch.bool),
        masks=torch.rand(count, *size) > 0.5,
        tokens=Tokens(ids, ids > 0, [[] for _ in range(count)]),
    )
