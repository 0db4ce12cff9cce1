"""The official DETRIS at a small size, with the tensors that its authors' code gave for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from riszoo.batch import Batch, Tokens
from riszoo.model import RISModule
from riszoo.models.detris.published import translate
from tests.support import official


@dataclass
class Reference:
    """`weights` by official name, `inputs` and `outputs`, and the sizes that the authors' code fixes at full size."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def reference() -> Reference:
    about, tensors = official.stored("detris_small")
    return Reference(about["config"], *(official.with_prefix(tensors, prefix) for prefix in ("state.", "in.", "out.")))


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
                "vocabulary": official.vocabulary(200),
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
    return official.build(section(source.config), translate({"state_dict": source.weights}).state, **over)


def batch(source: Reference) -> Batch:
    """The fixture's two images, already normalised, with a sentence each."""
    images, ids = source.inputs["image"], source.inputs["tokens"].long()
    masks = torch.rand(len(ids), *images.shape[2:]) > 0.5
    return official.make_batch(images, Tokens(ids, ids > 0, [[] for _ in ids]), list(range(len(ids))), masks)
