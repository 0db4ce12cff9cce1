"""Builds the text encoder that a configuration names.

Every encoder tokenizes on the CPU into ids whose valid tokens come first, and makes its mask from lengths, never from
id values. transformers is imported only where one of its encoders is built.
"""

from __future__ import annotations

from pathlib import Path

from riszoo.encoders.base import TextConfig, TextEncoder
from riszoo.encoders.beit3.text import build_table, names_beit3
from riszoo.encoders.bigru import build_bigru
from riszoo.encoders.transformer import build_transformer
from riszoo.errors import UserError


def build_text(text: TextConfig) -> TextEncoder:
    """The encoder that `text` names, frozen where `text.frozen` is set."""
    if text.name == "clip":
        from riszoo.encoders.clip.text import build_clip_text

        clip = build_clip_text(text)
        return clip.freeze() if text.frozen else clip
    if names_beit3(text):
        table = build_table(text)
        return table.freeze() if text.frozen else table
    if text.weights not in ("none", "pretrained"):
        raise UserError(f"text.weights is `none` or `pretrained`, not {text.weights!r}; give a folder as text.name")
    encoder: TextEncoder = build_bigru(text) if text.name == "bigru" else build_transformer(text)
    return encoder.freeze() if text.frozen else encoder


def takes_vocabulary(text: TextConfig) -> bool:
    """Whether the encoder is word-level, so that its vocabulary must come from the training split."""
    if text.name in ("bigru", "beit3"):
        return True
    if text.name == "clip":
        return text.options.get("tokens") == "words"
    if Path(text.name).is_dir():
        return False
    from transformers import CONFIG_MAPPING

    return text.name in CONFIG_MAPPING
