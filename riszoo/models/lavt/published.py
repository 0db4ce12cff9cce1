"""The checkpoints of LAVT's authors: how to recognise one, which model it is of, and what its tensors are called here.

Two layouts exist, with equal numbers: `lavt` keeps BERT beside the model, `lavt_one` inside it. Section 8 of
docs/models/lavt.md.
"""

from __future__ import annotations

import math
import re
from typing import Any

from riszoo.recipes import Config
from riszoo.translation import Names, Replacement, State, Translation, state_in

FUSION = {
    "vis_project.0": "visual",
    "image_lang_att.f_query.0": "query",
    "image_lang_att.f_key.0": "key",
    "image_lang_att.f_value.0": "value",
    "image_lang_att.W.0": "project",
    "project_mm.0": "merge",
}
DECODER = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4}
"""Layers of a top-down block by their name in the file; the blocks are numbered 4, 3, 2 from the coarsest map on."""

IGNORED = (r"\.relative_position_index$", r"\.attn_mask$", r"embeddings\.position_ids$", r"\bpooler\.")
"""Constants that follow from the window, and parts without effect."""


def encoder_rules(fusion: str, gate: str) -> tuple[tuple[str, Replacement], ...]:
    """The names of the encoders, whose fusion and gate CGFormer's authors call otherwise."""
    return (
        (r"backbone\.patch_embed\.", "vision.first.0."),
        (r"backbone\.layers\.(\d+)\.blocks\.", r"vision.stages.\1.blocks."),
        (r"backbone\.layers\.(\d+)\.downsample\.", lambda m: f"vision.downs.{int(m[1]) + 1}."),
        (rf"backbone\.layers\.(\d+)\.{fusion}\.({'|'.join(FUSION)})\.", lambda m: f"fusion.{m[1]}.{FUSION[m[2]]}."),
        (rf"backbone\.layers\.(\d+)\.{gate}\.", r"gates.\1."),
        (r"backbone\.norm(\d+)\.", r"norms.\1."),
        (r"text_encoder\.", "text.model."),
    )


NAMES = Names(
    rules=(
        *encoder_rules("fusion", "res_gate"),
        (r"classifier\.conv1_1\.", "decoder.classify."),
        (
            r"classifier\.((?:conv|bn)[12])_([234])\.",
            lambda m: f"decoder.blocks.{4 - int(m[2])}.convolutions.{DECODER[m[1]]}.",
        ),
    ),
    ignored=IGNORED,
)


def recognises(content: dict[str, Any]) -> bool:
    """Whether the content of a file is one of the two layouts."""
    pair = {"backbone.layers.0.fusion.image_lang_att.W.0.weight", "backbone.layers.0.res_gate.0.weight"}
    return pair <= state_in(content, "model").keys()


def variant(content: dict[str, Any]) -> str:
    """`lavt` or `lavt_one`."""
    return "lavt" if "bert_model" in content else "lavt_one"


def official_state(content: dict[str, Any]) -> State:
    """All tensors of a file under the names of `lavt_one`."""
    bert = state_in(content, "bert_model")
    return state_in(content, "model") | {f"text_encoder.{name}": tensor for name, tensor in bert.items()}


def translate(content: dict[str, Any]) -> Translation:
    """The tensors under riszoo's names; a convolution over single tokens becomes a linear layer."""
    return with_linear_layers(NAMES.translate(official_state(content)))


def with_linear_layers(result: Translation) -> Translation:
    """The translation with the weights of convolutions over single tokens, (C', C, 1), as those of linear layers."""
    result.state = {name: t.squeeze(-1) if t.ndim == 3 else t for name, t in result.state.items()}
    return result


def options(content: dict[str, Any]) -> Config:
    """The options of the model, from the shapes of the file and the few of its arguments that shapes do not show."""
    state, args = official_state(content), vars(content["args"]) if "args" in content else {}
    text_layers = len({name.split(".")[3] for name in state if name.startswith("text_encoder.encoder.layer.")})
    positions = state["text_encoder.embeddings.position_embeddings.weight"]
    dropout = 0.0 if variant(content) == "lavt" else 0.1
    bert = {"keep_sep": False, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    heads = [int(number) for number in str(args.get("mha") or "").split("-") if number.isdigit()]
    return {
        "size": frame(args.get("img_size", 480)),
        "vision": {"name": "swin_base_patch4_window12_384", "options": swin_options(state)},
        "text": {"name": "bert-base-uncased", "length": min(20, positions.shape[0]), "options": bert},
        "fusion": {"heads": heads or 1},
        "segment": {"loss": "ce" if variant(content) == "lavt" else "dice"},
        "decoder_width": state["classifier.conv1_1.weight"].shape[1],
        "frozen_embeddings": True,
        "trained_text_layers": min(10, text_layers),
    }


def swin_options(state: State) -> Config:
    """The options of timm's Swin, from the shapes of the backbone."""
    tables = {
        int(m[1]): table
        for name, table in state.items()
        if (m := re.fullmatch(r"backbone\.layers\.(\d+)\.blocks\.0\.attn\.relative_position_bias_table", name))
    }
    stages = sorted(tables)
    depths = [len({n.split(".")[4] for n in state if n.startswith(f"backbone.layers.{i}.blocks.")}) for i in stages]
    return {
        "embed_dim": state["backbone.patch_embed.proj.weight"].shape[0],
        "depths": depths,
        "num_heads": [tables[i].shape[1] for i in stages],
        "window_size": (math.isqrt(tables[0].shape[0]) + 1) // 2,
        "drop_path_rate": 0.3,
        "pad_before_shift": True,
    }


def frame(size: object) -> int:
    """The side of the network's frame."""
    if not isinstance(size, int) or not 32 <= size <= 2048:
        raise ValueError(f"img_size is {size}")
    return size
