"""The checkpoints of EVF-SAM's authors: how to recognise one, and what its tensors and files are called here.

A folder as on the Hugging Face Hub: `pytorch_model.bin` or `model.safetensors` in half precision, with the tokenizer's
`sentencepiece.bpe.model` beside it. Section 8 of docs/models/evfsam.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from riszoo.encoders.beit3.pieces import SEMANTIC
from riszoo.encoders.beit3.weights import NAMES as BEIT3_NAMES
from riszoo.errors import UserError
from riszoo.recipes import Config
from riszoo.translation import Names, Replacement, State, Translation, without_prefix

IMAGE, PROMPTS, DECODER = (f"visual_model.{part}." for part in ("image_encoder", "prompt_encoder", "mask_decoder"))
BEIT3, PROJECTION = "mm_extractor.beit3.", "text_hidden_fcs.0."
PIECES, ADDED_TOKENS = "sentencepiece.bpe.model", "added_tokens.json"
HEAD_WIDTH = 64
"""Of BEiT-3, base and large; the shapes of the file do not show it."""
LONGEST = 64
"""Tokens of a sentence; the authors' code cuts none."""


def _inside_beit3(replacement: Replacement) -> Callable[[re.Match[str]], str]:
    """A replacement of BEiT-3's own names, for the model that contains it."""
    return lambda m: "beit3." + (m.expand(replacement) if isinstance(replacement, str) else replacement(m))


NAMES = Names(
    rules=(
        (re.escape(IMAGE), "vision.image_encoder."),
        (re.escape(f"{PROMPTS}pe_layer."), "positions."),
        (re.escape(f"{PROMPTS}no_mask_embed."), "decoder.no_mask_embed."),
        (re.escape(DECODER), "decoder."),
        (re.escape(f"{BEIT3}text_embed."), "text.table."),
        *((re.escape(BEIT3) + pattern, _inside_beit3(replacement)) for pattern, replacement in BEIT3_NAMES.rules),
        (re.escape(PROJECTION), "project."),
    ),
    ignored=(
        r"vision_embed\.mask_token$",
        r"prompt_encoder\.(point_embeddings|not_a_point_embed|mask_downscaling)\.",
    ),
)


def recognises(content: dict[str, Any]) -> bool:
    """Whether the content of a file is the state of an EVF-SAM, over any image encoder."""
    if not content or not all(isinstance(name, str) for name in content):
        return False
    state = without_prefix(content)
    return f"{BEIT3}text_embed.weight" in state and any(name.startswith("visual_model.") for name in state)


def variant(_content: dict[str, Any]) -> str:
    return "evfsam"


def translate(content: dict[str, Any]) -> Translation:
    """The tensors under riszoo's names."""
    state: State = without_prefix(content)
    return NAMES.translate({name: value for name, value in state.items() if isinstance(value, Tensor)})


def options(content: dict[str, Any]) -> Config:
    """The options of the model, from the shapes of the file."""
    state: State = without_prefix(content)
    rows, width = state[f"{BEIT3}text_embed.weight"].shape
    patch = state[f"{BEIT3}vision_embed.proj.weight"].shape[-1]
    patches = state[f"{BEIT3}encoder.embed_positions.A.weight"].shape[0] - 3
    vision = image_encoder(state)
    positions = state[f"{IMAGE}pos_embed"].shape
    beit = {
        "width": width,
        "layers": count(state, f"{BEIT3}encoder.layers."),
        "heads": max(1, width // HEAD_WIDTH),
        "side": patch * round(patches**0.5),
        "patch": patch,
        "text_positions": state[f"{BEIT3}encoder.embed_positions.B.weight"].shape[0],
    }
    decoder = {
        "depth": count(state, f"{DECODER}transformer.layers."),
        "hidden": state[f"{DECODER}transformer.layers.0.mlp.lin1.weight"].shape[0],
        "iou_hidden": state[f"{DECODER}iou_prediction_head.layers.0.weight"].shape[0],
    }
    return {
        "size": [vision["patch"] * side for side in positions[1:3]],
        "geometry": "pad",
        "vision": {"name": "sam_vit_b", "options": vision},
        "text": {"name": "beit3.spm", "length": LONGEST, "options": {"width": width, "rows": rows}},
        "width": vision["out_channels"],
        "beit": beit,
        "decoder": decoder,
    }


def image_encoder(state: State) -> Config:
    """The options of SAM's encoder."""
    tables = {
        int(m[1]): table
        for name, table in state.items()
        if (m := re.fullmatch(re.escape(IMAGE) + r"blocks\.(\d+)\.attn\.rel_pos_h", name))
    }
    if not tables:
        raise UserError(
            "an EVF-SAM over SAM-2 or EfficientSAM, which are not supported: get the folder evf-sam or "
            "evf-sam-multitask, over SAM's ViT"
        )
    whole = 2 * state[f"{IMAGE}pos_embed"].shape[1] - 1
    windows = [len(table) for table in tables.values() if len(table) != whole]
    embed_dim, _, patch, _ = state[f"{IMAGE}patch_embed.proj.weight"].shape
    return {
        "embed_dim": embed_dim,
        "depth": len(tables),
        "heads": embed_dim // tables[0].shape[1],
        "window": (windows[0] + 1) // 2 if windows else 0,
        "global_blocks": sorted(index for index, table in tables.items() if len(table) == whole),
        "taps": [],
        "out_channels": state[f"{IMAGE}neck.0.weight"].shape[0],
        "patch": patch,
    }


def count(state: State, prefix: str) -> int:
    """The number of layers whose names begin with `prefix` and a number."""
    return len({name.removeprefix(prefix).split(".", 1)[0] for name in state if name.startswith(prefix)})


def beside(folder: Path) -> Config:
    """The options that come from the files beside the weights: the tokenizer, and whether `[semantic]` is a token."""
    if not (folder / PIECES).is_file():
        return {}
    text: Config = {"name": str((folder / PIECES).resolve())}
    try:
        added = json.loads((folder / ADDED_TOKENS).read_bytes()) if (folder / ADDED_TOKENS).is_file() else {}
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{folder / ADDED_TOKENS} is not valid JSON: download it again") from None
    if isinstance(added, dict) and SEMANTIC in added:
        text["options"] = {"semantic": True}
    return {"text": text}
