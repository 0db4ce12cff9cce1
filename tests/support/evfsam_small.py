"""The official EVF-SAM at a small size, with the tensors that its authors' code gave for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from riszoo.batch import Batch, Geometry, Sample, Tokens
from riszoo.data.images import place_image, view_of
from riszoo.model import RISModule
from riszoo.models.evfsam.published import translate
from riszoo.translation import State
from tests.support import official


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
    about, tensors = official.stored("evfsam_small")
    return Reference(about, *(official.with_prefix(tensors, prefix) for prefix in ("state.", "grad.", "in.", "out.")))


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
                "vocabulary": official.vocabulary(beit["vocab_size"]),
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
    return official.build(section(source.about), translate(state or source.state).state, **over)


def batch(source: Reference) -> Batch:
    """Two images with three sentences; frames and squares are made by riszoo, tokens are the fixture's."""
    model_views, frame = build(source).views, source.about["config"]["sam"]["img_size"]
    pixels = [source.inputs[f"picture_{image}"].numpy() for image in (0, 1)]
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
