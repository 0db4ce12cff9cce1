"""The official EVF-SAM at a small size, with the tensors that its authors' code gave for it."""

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
from riszoo.models.evfsam.published import translate
from riszoo.translation import State

FIXTURES = Path(__file__).parents[1] / "models" / "fixtures"
PAD = 1


@dataclass
class Reference:
    """`state` and `gradients` by official name, `inputs`, `outputs`, and the json beside them."""

    about: dict[str, Any]
    state: State
    gradients: State
    inputs: State
    outputs: State

    @property
    def pieces(self) -> bytes:
        """The toy tokenizer's file."""
        return bytes(self.inputs["spm"].tolist())


def reference() -> Reference:
    content = load_file(FIXTURES / "evfsam_small.safetensors")
    parts = [
        {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}
        for prefix in ("state.", "grad.", "in.", "out.")
    ]
    return Reference(json.loads((FIXTURES / "evfsam_small.json").read_text()), *parts)


def section(about: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the fixture's model; the words of its vocabulary stand for the pieces."""
    beit, sam = about["config"]["beit3"], about["config"]["sam"]
    return {
        "class_path": "riszoo.models.evfsam.model.EVFSAM",
        "init_args": {
            "size": sam["img_size"],
            "geometry": "pad",
            "vision": {
                "name": "sam_vit_b",
                "options": {
                    "embed_dim": sam["embed_dim"],
                    "depth": sam["depth"],
                    "heads": sam["num_heads"],
                    "window": sam["window_size"],
                    "global_blocks": sam["global_attn_indexes"],
                    "taps": [],
                    "out_channels": sam["out_chans"],
                },
            },
            "text": {
                "name": "beit3",
                "length": 64,
                "vocabulary": [f"w{index}" for index in range(beit["vocab_size"] - 4)],
                "options": {"width": beit["encoder_embed_dim"]},
            },
            "width": sam["out_chans"],
            "beit": {
                "width": beit["encoder_embed_dim"],
                "layers": beit["encoder_layers"],
                "heads": beit["encoder_attention_heads"],
                "side": beit["img_size"],
                "patch": beit["patch_size"],
            },
            "decoder": {
                "heads": sam["decoder_heads"],
                "hidden": sam["mlp_dim"],
                "iou_hidden": sam["iou_head_hidden_dim"],
            },
        },
    }


def build(source: Reference, state: State | None = None, **over: Any) -> RISModule:
    """The fixture's model with its weights, or others under official names, in evaluation mode."""
    described = section(source.about)
    described["init_args"] |= over
    model = instantiate(RISModule, described)  # type: ignore[type-abstract]
    model.load_state_dict(translate(state or source.state).state)
    return model.eval()


def pictures(source: Reference) -> list[Tensor]:
    return [source.inputs["picture_0"], source.inputs["picture_1"]]


def batch(source: Reference) -> Batch:
    """Two images with three sentences; frames and squares are made by riszoo, tokens are the fixture's."""
    from riszoo.data.images import place_image, view_of

    model_views, frame = build(source).views, source.about["config"]["sam"]["img_size"]
    pixels = [picture.numpy() for picture in pictures(source)]
    geometry = [Geometry.fit("pad", each.shape[:2], (frame, frame)) for each in pixels]
    image_index = source.inputs["image_index"].long()
    return Batch(
        images=torch.stack([place_image(each, fit) for each, fit in zip(pixels, geometry, strict=True)]),
        valid=torch.tensor([each.valid for each in geometry]),
        image_ids=["0", "1"],
        geometry=geometry,
        texts=source.about["sentences"],
        image_index=image_index,
        samples=[Sample(str(i), i, "own", "own", "image", "", "") for i in range(len(image_index))],
        no_target=torch.zeros(len(image_index), dtype=torch.bool),
        tokens=Tokens(source.inputs["ids"].long(), source.inputs["mask"].bool(), [[] for _ in image_index]),
        views=[torch.stack([view_of(each, view) for each in pixels]) for view in model_views],
    )
