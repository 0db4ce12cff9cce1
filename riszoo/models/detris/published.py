"""The checkpoints of DETRIS's authors: how to recognise one, its variant, and what its tensors are called here.

One dictionary with the state of the whole model under `state_dict`. Section 9 of docs/models/detris.md.
"""

from __future__ import annotations

import math
import re
from typing import Any

from riszoo.encoders.clip.text import translate_text
from riszoo.models.cris.published import HEAD_NAMES, numbered
from riszoo.recipes import Config
from riszoo.translation import Names, Replacement, State, Translation, state_in

ADAPTER: tuple[tuple[str, Replacement], ...] = (
    (r"D_fc1\.", "down."),
    (r"D_fc2\.", "up."),
    (r"dense_branch1\.", "convolutions.branches.0.0."),
    (r"dense_branch([23])\.(\d)\.", lambda m: f"convolutions.branches.{int(m[1]) - 1}.{m[2]}."),
    (r"cross\.multihead_attn\.", "words.attention."),
    (r"cross\.(image|text|back)_proj\.", r"words.\1."),
)
LAYER = {"conv": "0", "bn": "1"}
"""Names in an adapter, and of the parts of its convolutions."""

NAMES = Names(
    rules=(
        (r"dinov2\.blocks\.(\d+)\.adapter\.", r"aligners.\1."),
        (r"dinov2\.register_tokens\Z", "vision.vit.reg_token"),
        (r"dinov2\.", "vision.vit."),
        (r"txt_backbone\.transformer\.resblocks\.(\d+)\.adapter\.", r"text.model.encoder.layers.\1.adapter."),
        (r"neck\.txt_proj\.", "neck.sentence."),
        (r"neck\.f([345])_proj\.", lambda m: f"neck.projections.{int(m[1]) - 3}."),
        (r"neck\.fusion([345])\.multihead_attn\.", lambda m: f"neck.factors.{int(m[1]) - 3}.attention."),
        *HEAD_NAMES.rules,
    ),
    ignored=(r"\Adinov2\.mask_token\Z",),
)


def official_state(content: dict[str, Any]) -> State:
    """The model's tensors under the authors' names, without the prefix of distributed training."""
    return dict(state_in(content, "state_dict"))


def recognises(content: dict[str, Any]) -> bool:
    """Whether the content of a file has the keys of a DETRIS."""
    return {"dinov2.cls_token", "txt_backbone.token_embedding.weight"} <= official_state(content).keys()


def variant(content: dict[str, Any]) -> str:
    """`detris-base`, `detris-large` or `detris-large-mixed`."""
    state = official_state(content)
    if state["dinov2.cls_token"].shape[-1] < 1024:
        return "detris-base"
    widths = {tensor.shape[0] for name, tensor in state.items() if re.match(r"dinov2.*\.D_fc1\.weight", name)}
    return "detris-large-mixed" if max(widths, default=0) > 128 else "detris-large"


def translate(content: dict[str, Any]) -> Translation:
    """The tensors under riszoo's names; f5's transposed convolution of kernel 1 becomes a plain one."""
    state = official_state(content)
    text = {name: state.pop(name) for name in list(state) if is_clip(name)}
    positions = state["dinov2.pos_embed"]
    state["dinov2.cls_token"] = state["dinov2.cls_token"] + positions[:, :1]  # timm stores this sum
    state["dinov2.pos_embed"] = positions[:, 1:]
    state["neck.f5_proj.0.weight"] = state["neck.f5_proj.0.weight"].transpose(0, 1).contiguous()
    result = NAMES.translate({inside_adapters(name): tensor for name, tensor in state.items()})
    words = translate_text({name.removeprefix("txt_backbone."): tensor for name, tensor in text.items()})
    result.add(words, "text.", "txt_backbone.")
    return result


def is_clip(name: str) -> bool:
    """Whether a tensor is of CLIP itself and not of an adapter."""
    return name.startswith("txt_backbone.") and ".adapter." not in name


def inside_adapters(name: str) -> str:
    """The name of a tensor with its part behind `adapter.` translated."""
    before, found, inner = name.partition(".adapter.")
    if not found:
        return name
    inner = re.sub(r"\.(conv|bn)\.", lambda m: f".{LAYER[m[1]]}.", inner)
    return before + found + (Names(ADAPTER).new_name(inner) or inner)


def options(content: dict[str, Any]) -> Config:
    """The options of the model, from the shapes of the file; what shapes do not show is the published setting."""
    state = official_state(content)
    width, patches = state["dinov2.cls_token"].shape[-1], state["dinov2.pos_embed"].shape[1] - 1
    depth = numbered(state, "dinov2.blocks.")
    aligned, adapted = (adapters(state, part) for part in ("dinov2.blocks", "txt_backbone.transformer.resblocks"))
    attention = state[f"dinov2.blocks.{min(aligned)}.adapter.cross.image_proj.weight"].shape[0]
    text_width = state["txt_backbone.ln_final.weight"].shape[0]
    size = "large" if width >= 1024 else "base"
    return {
        "size": 448,
        "geometry": "letterbox",
        "mean": [122.7709383, 116.7460125, 104.09373615],
        "std": [68.5005327, 66.6321579, 70.32316305],
        "vision": {
            "name": f"vit_{size}_patch14_reg4_dinov2",
            "frozen": True,
            "options": {
                "embed_dim": width,
                "depth": depth,
                "num_heads": max(1, width // 64),
                "img_size": 14 * math.isqrt(patches),
                "position_offset": 0.1,
            },
        },
        "text": {
            "name": "clip",
            "frozen": True,
            "length": 17,
            "options": {
                "width": text_width,
                "layers": numbered(state, "txt_backbone.transformer.resblocks."),
                "projection": state["txt_backbone.text_projection"].shape[1],
                "raw_pads": True,
            },
        },
        "width": state["neck.txt_proj.weight"].shape[0],
        "taps": [depth // 3, 2 * depth // 3],
        "decoder": {
            "layers": numbered(state, "decoder.layers."),
            "hidden": state["decoder.layers.0.ffn.0.weight"].shape[0],
        },
        "aligners": {"blocks": list(aligned), "width": max(aligned.values()), "attention": attention},
        "text_adapters": {"layers": list(adapted), "width": max(adapted.values())},
    }


def adapters(state: State, prefix: str) -> dict[int, int]:
    """The width of each adapter, by the number of its block."""
    found = ((re.fullmatch(rf"{re.escape(prefix)}\.(\d+)\.adapter\.D_fc1\.weight", n), t) for n, t in state.items())
    return dict(sorted((int(match[1]), tensor.shape[0]) for match, tensor in found if match))
