"""The checkpoints of CGFormer's authors: how to recognise one, and what its tensors are called here.

Section 9 of docs/models/cgformer.md.
"""

from __future__ import annotations

import math
from typing import Any

from riszoo.models.lavt.published import IGNORED, encoder_rules, swin_options, with_linear_layers
from riszoo.recipes import Config
from riszoo.translation import Names, State, Translation, state_in

GROUPING = {
    "tau": "tau",
    "norm_t": "norm_tokens",
    "norm_v": "norm_pixels",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "proj": "project",
    "norm": "update.0",
    "mlp.fc1": "update.1",
    "mlp.fc2": "update.4",
}
READER = {
    "loadtoken.normq": "norm_query",
    "loadtoken.normk": "norm_words",
    "loadtoken.cross_attn.q_proj": "query",
    "loadtoken.cross_attn.k_proj": "key",
    "loadtoken.cross_attn.v_proj": "value",
    "loadtoken.cross_attn.proj": "project",
    "norm": "update.0",
    "mlp.fc1": "update.1",
    "mlp.fc2": "update.4",
}
HEAD = {"1.0": "upsample.0.1", "1.1": "upsample.0.2", "3.0": "upsample.1.1", "3.1": "upsample.1.2", "4": "project"}

NAMES = Names(
    rules=(
        *encoder_rules("pwam_fusion", "pwam_gate"),
        (r"decoder\.tokens\.weight$", "decoder.queries"),
        (r"decoder\.fuses\.(\d+)\.fusion\.", r"decoder.fuses.\1.convolutions."),
        (r"decoder\.layers\.(\d+)\.positional_embedding$", r"decoder.position_embeddings.\1"),
        (
            rf"decoder\.layers\.(\d+)\.({'|'.join(READER)})(?=\.)",
            lambda m: f"decoder.readers.{int(m[1]) - 1}.{READER[m[2]]}",
        ),
        (
            rf"decoder\.cgattention([12])\.({'|'.join(GROUPING)})(?=\.|$)",
            lambda m: f"decoder.groupings.{int(m[1]) - 1}.{GROUPING[m[2]]}",
        ),
        (rf"decoder\.proj\.vis\.({'|'.join(HEAD)})(?=\.)", lambda m: f"decoder.head.{HEAD[m[1]]}"),
        (r"decoder\.proj\.txt\.", "decoder.head.dynamic."),
    ),
    ignored=(*IGNORED, r"\.loadtoken\.(norm|mlp)\."),  # the last are in every file, and no output depends on them
)


def recognises(content: dict[str, Any]) -> bool:
    """Whether the content of a file is what the authors' training script writes."""
    return {"decoder.cgattention1.tau", "backbone.layers.0.pwam_gate.0.weight"} <= official_state(content).keys()


def variant(_content: dict[str, Any]) -> str:
    """The only one."""
    return "cgformer"


def official_state(content: dict[str, Any]) -> State:
    """All tensors of a file under the names of the authors' model."""
    return state_in(content, "model_state_dict")


def translate(content: dict[str, Any]) -> Translation:
    """The tensors under riszoo's names."""
    return with_linear_layers(NAMES.translate(official_state(content)))


def options(content: dict[str, Any]) -> Config:
    """The options of the model, from the shapes of the file; the heads of the fusion are 8 in all of them."""
    state = official_state(content)
    tokens, width = state["decoder.tokens.weight"].shape
    positions = state["text_encoder.embeddings.position_embeddings.weight"]
    return {
        "size": frame(state["decoder.layers.2.positional_embedding"].shape[0]),
        "vision": {"name": "swin_base_patch4_window12_384", "options": swin_options(state)},
        "text": {
            "name": "bert-base-uncased",
            "length": min(20, positions.shape[0]),
            "options": {"keep_sep": False},
        },
        "fusion": {"heads": 8},
        "query": {"tokens": tokens, "width": width},
        "group": {"noise": "seeded"},
    }


def frame(cells: int) -> int:
    """The side of the network's frame, from the number of cells of stride 4."""
    side = 4 * math.isqrt(cells)
    if side % 32 or side * side != 16 * cells or not 32 <= side <= 2048:
        raise ValueError(f"the finest position table has {cells} cells")
    return side
