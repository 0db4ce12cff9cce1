"""The checkpoints of CRIS's authors: how to recognise one, and what its tensors are called here.

Section 8 of docs/models/cris.md.
"""

from __future__ import annotations

import math
from typing import Any

from riszoo.encoders.clip.text import translate_text
from riszoo.models.cris.clip_weights import pooling_name
from riszoo.recipes import Config
from riszoo.translation import Names, State, Translation, state_in

RESNETS: dict[tuple[int, ...], str] = {(3, 4, 6, 3): "resnet50_clip_gap", (3, 4, 23, 3): "resnet101_clip_gap"}
"""timm's names by the number of blocks in each stage."""
CONVOLUTIONS = {"conv1": "conv1_1x1", "conv2": "conv2_kxk", "conv3": "conv3_1x1"}
STAGES = {"1": "vision.stages.0", "2": "vision.stages.1", "3": "vision.stages.2", "4": "vision.stages.3.0"}
"""The last stage of timm's network is followed by an empty module."""
NECK = {
    "f3_v_proj": "project_fine",
    "f2_v_proj": "project_middle",
    "f1_v_proj": "project_coarse",
    "txt_proj": "project_sentence",
    "norm_layer.0": "norm",
    "f2_cat": "merge_middle",
    "f3_cat": "merge_fine",
    "f4_proj3": "smooth_fine",
    "f4_proj4": "smooth_middle",
    "f4_proj5": "smooth_coarse",
    "aggr": "merge",
    "coordconv.0.conv1": "locate.0",
    "coordconv.1": "locate.1",
}
DECODER = {
    "self_attn": "self_attention",
    "self_attn_norm": "norm_self_out",
    "multihead_attn": "cross_attention",
    "cross_attn_norm": "norm_cross_out",
    "norm1": "norm_self",
    "norm2": "norm_cross",
    "norm3": "norm_feed_forward",
    "ffn": "feed_forward",
}


def any_of(table: dict[str, str]) -> str:
    """A pattern of one of the names in a table."""
    return "(" + "|".join(name.replace(".", r"\.") for name in table) + ")"


HEAD_NAMES = Names(
    rules=(
        (rf"neck\.{any_of(NECK)}\.", lambda m: f"neck.{NECK[m[1]]}."),
        (rf"decoder\.layers\.(\d+)\.{any_of(DECODER)}\.", lambda m: f"decoder.layers.{m[1]}.{DECODER[m[2]]}."),
        (r"decoder\.norm\.", "decoder.norm."),
        (r"proj\.vis\.", "head.upscale."),
        (r"proj\.txt\.", "head.kernel."),
    )
)
"""The neck, the decoder and the head; DETRIS has the same decoder and head."""
NAMES = Names(
    rules=(
        (r"backbone\.visual\.conv(\d)\.", r"vision.first.0.conv\1.conv."),
        (r"backbone\.visual\.bn(\d)\.", r"vision.first.0.conv\1.bn."),
        (
            r"backbone\.visual\.layer(\d)\.(\d+)\.downsample\.([01])\.",
            lambda m: f"{STAGES[m[1]]}.{m[2]}.shortcut.conv.{('conv', 'bn')[int(m[3])]}.",
        ),
        (
            r"backbone\.visual\.layer(\d)\.(\d+)\.(conv|bn)(\d)\.",
            lambda m: f"{STAGES[m[1]]}.{m[2]}.{CONVOLUTIONS['conv' + m[4]]}.{m[3]}.",
        ),
        (r"backbone\.visual\.attnpool\.(.+)", lambda m: f"pool.{pooling_name(m[1])}"),
        *HEAD_NAMES.rules,
    ),
)


def official_state(content: dict[str, Any]) -> State:
    """All tensors of a file under the names of the authors' model."""
    return state_in(content, "state_dict")


def recognises(content: dict[str, Any]) -> bool:
    """Whether the content of a file is a checkpoint of CRIS."""
    return {"backbone.visual.attnpool.connect.0.weight", "neck.txt_proj.0.weight"} <= official_state(content).keys()


def variant(content: dict[str, Any]) -> str:
    """The published size by its image encoder, or `cris` for any other."""
    blocks = numbered(official_state(content), "backbone.visual.layer3.")
    return {6: "cris_r50", 23: "cris_r101"}.get(blocks, "cris")


def translate(content: dict[str, Any]) -> Translation:
    """The tensors under riszoo's names."""
    state = official_state(content)
    inner = {
        name.removeprefix("backbone."): tensor
        for name, tensor in state.items()
        if name.startswith("backbone.") and not name.startswith("backbone.visual.")
    }
    result = NAMES.translate({n: t for n, t in state.items() if n.removeprefix("backbone.") not in inner})
    result.add(translate_text(inner), "text.", "backbone.")
    return result


def options(content: dict[str, Any]) -> Config:
    """The options of the model, from the shapes of the file; frame and length of sentences are those of RefCOCO."""
    state = official_state(content)
    stages = [f"backbone.visual.layer{index}." for index in range(1, 5)]
    depths = [numbered(state, stage) for stage in stages]
    width = state["backbone.visual.conv3.weight"].shape[0]
    embedding, projection = state["backbone.token_embedding.weight"], state["backbone.text_projection"]
    return {
        "size": 416,
        "geometry": "letterbox",
        "mean": [122.7709383, 116.7460125, 104.09373615],
        "std": [68.5005327, 66.6321579, 70.32316305],
        "vision": resnet(depths, width),
        "text": {
            "name": "clip",
            "length": 17,
            "options": {
                "width": embedding.shape[1],
                "layers": numbered(state, "backbone.transformer.resblocks."),
                "projection": projection.shape[1],
                "positions": state["backbone.positional_embedding"].shape[0],
            },
        },
        "neck": {
            "widths": [state[f"neck.{name}.0.weight"].shape[0] for name in ("f3_v_proj", "f2_v_proj", "f1_v_proj")],
            "grid": math.isqrt(state["backbone.visual.attnpool.positional_embedding"].shape[0] - 1),
        },
        "decoder": {
            "layers": numbered(state, "decoder.layers."),
            "hidden": state["decoder.layers.0.ffn.0.weight"].shape[0],
        },
    }


def resnet(depths: list[int], width: int) -> Config:
    """The image encoder: one that timm names, or one of the same kind in another size."""
    if width == 64 and tuple(depths) in RESNETS:
        return {"name": RESNETS[tuple(depths)]}
    return {"name": "resnet50_clip_gap", "options": {"layers": depths, "width": width}}


def numbered(state: State, prefix: str) -> int:
    """How many modules are numbered below a prefix."""
    return len({name.removeprefix(prefix).split(".", 1)[0] for name in state if name.startswith(prefix)})
