"""BEiT-3's own weight files, and the names of its tensors here.

A file has the state under `model`; its names begin with `beit3.`, and all others are heads, which are ignored.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from riszoo.encoders.beit3.transformer import UNUSED_ROWS, Beit3
from riszoo.encoders.weights import load_file
from riszoo.errors import UserError
from riszoo.translation import Names, State

FILES = {768: "beit3_base_patch16_224.pth", 1024: "beit3_large_patch16_224.pth"}
URL = "https://github.com/addf400/files/releases/download/beit3"
PREFIX = "beit3."
TABLE = "text_embed.weight"

EXPERTS = {"A": "image", "B": "text"}
PARTS = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.out_proj": "out",
    "self_attn.inner_attn_ln": "attended_norm",
    "self_attn_layer_norm": "attention_norm",
    "final_layer_norm": "feed_forward_norm",
}
FEED_FORWARD = {"fc1": "expand", "ffn_layernorm": "expanded_norm", "fc2": "contract"}
LAYER = r"encoder\.layers\.(\d+)\."

NAMES = Names(
    rules=(
        (rf"{LAYER}ffn\.([AB])\.(\w+)\.", lambda m: f"layers.{m[1]}.{EXPERTS[m[2]]}.{FEED_FORWARD.get(m[3], m[3])}."),
        (
            rf"{LAYER}({'|'.join(map(str, PARTS))})\.([AB])\.",
            lambda m: f"layers.{m[1]}.{EXPERTS[m[3]]}.{PARTS[m[2]]}.",
        ),
        (r"encoder\.layer_norm\.([AB])\.", lambda m: f"{EXPERTS[m[1]]}_norm."),
        (r"encoder\.embed_positions\.([AB])\.weight$", lambda m: f"{EXPERTS[m[1]]}_position_embeddings"),
        (r"vision_embed\.proj\.", "patches."),
        (r"vision_embed\.cls_token$", "cls_token"),
    ),
    ignored=(r"^vision_embed\.mask_token$", r"^text_embed\.weight$"),
)
"""The names behind the prefix; the table of the tokens is the text encoder's."""


def find_beit3(weights: str, width: int) -> Path:
    """The file given, or for `pretrained` the official one in torch's cache; never downloads."""
    path = Path(weights).expanduser()
    if weights == "pretrained":
        if width not in FILES:
            raise UserError(f"BEiT-3 has no pretrained weights of width {width}: set text.weights to none or to a file")
        path = Path(torch.hub.get_dir()) / "checkpoints" / FILES[width]
    if not path.is_file():
        advice = (
            f"download {URL}/{path.name} to there, or give its path" if weights == "pretrained" else "give a .pth file"
        )
        raise UserError(f"no BEiT-3 weights at {path} (--model.text.weights): {advice}")
    return path


def read_beit3(path: Path) -> State:
    """The tensors of a file whose names begin with `beit3.`, without that prefix."""
    try:
        content = load_file(path)
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} cannot be read ({type(error).__name__}): download BEiT-3's weights again") from None
    state = content.get("model", content) if isinstance(content, dict) else {}
    state = {str(n): t for n, t in state.items() if isinstance(t, Tensor)} if isinstance(state, dict) else {}
    state = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    if not state:
        raise UserError(f"{path} contains no {PREFIX}* weights: give an official BEiT-3 .pth file")
    return state


def load_table(table: nn.Embedding, path: Path) -> None:
    """Load the embeddings of the tokens."""
    state = read_beit3(path)
    _load(table, {"weight": state[TABLE]} if TABLE in state else {}, path)


def load_beit3(beit3: Beit3, path: Path) -> None:
    """Load all but the embeddings of the tokens; the image's positions are resized to the square's patches."""
    translation = NAMES.translate(read_beit3(path))
    if translation.unknown:
        raise UserError(f"{path} has {translation.unknown[0]:.80}, unknown to BEiT-3: give an official .pth file")
    name, own = "image_position_embeddings", beit3.image_position_embeddings
    if name in translation.state:
        translation.state[name] = resize_positions(translation.state[name], len(own))
    _load(beit3, translation.state, path)


def resize_positions(table: Tensor, rows: int) -> Tensor:
    """(rows0, C) -> (rows, C): the patches' rows are resized as an image, those before them are kept."""
    kept, grid = table[: UNUSED_ROWS + 1], table[UNUSED_ROWS + 1 :]
    old, new = (round(count**0.5) for count in (len(grid), rows - len(kept)))
    if old == new or old**2 != len(grid):
        return table
    image = grid.T.reshape(1, -1, old, old)
    resized = F.interpolate(image.float(), (new, new), mode="bicubic", align_corners=False).to(table.dtype)
    return torch.cat([kept, resized[0].flatten(1).T])


def _load(module: nn.Module, state: State, path: Path) -> None:
    own = module.state_dict()
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        raise UserError(
            f"{path} does not fit this BEiT-3: {len(wrong)} tensors are missing or of another shape, as {wrong[0]}: "
            "give the width, layers and heads of the file in --model.beit and --model.text.options"
        )
    module.load_state_dict(state)
