"""The attention pooling's initial weights, from the same file as the image encoder's."""

from __future__ import annotations

import logging
from pathlib import Path

from riszoo.encoders.weights import fill, read_state
from riszoo.errors import UserError
from riszoo.models.cris.neck import SpatialAttentionPool

log = logging.getLogger(__name__)

POOL = "visual.attnpool."
NAMES = {
    "positional_embedding": "pos_embed",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "c_proj": "out",
    "connect": "shortcut",
}
"""Names of the pooling's parts in CLIP; `connect` is CRIS's own and in no file of CLIP."""


def pooling_name(name: str) -> str:
    """The name here of a tensor of CLIP's attention pooling, without its prefix."""
    first, dot, rest = name.partition(".")
    return NAMES[first] + dot + rest


def load_pooling(pool: SpatialAttentionPool, path: Path) -> None:
    """Fill the pooling from one of OpenAI's files; another file, which has none, leaves it as it is."""
    if path.suffix not in (".pt", ".pth", ".bin", ".safetensors"):
        return
    state = {name.removeprefix(POOL): value for name, value in read_state(path).items() if name.startswith(POOL)}
    if not state:
        log.warning("%s has no attention pooling of CLIP: it is trained from scratch", path)
        return
    loaded = fill(pool, {pooling_name(name): value for name, value in state.items()}, path)
    if missing := [name for name in loaded.missing if not name.startswith("shortcut.")]:
        raise UserError(f"{path} lacks {missing[0]} of CLIP's attention pooling: give one of OpenAI's archives")
