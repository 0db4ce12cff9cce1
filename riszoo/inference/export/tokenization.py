"""The tokenizer of a model as plain values and files, for the runner of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riszoo.encoders.base import TextEncoder
from riszoo.encoders.beit3.text import TokenTable
from riszoo.encoders.bigru import BiGRU
from riszoo.encoders.clip.text import ClipText
from riszoo.encoders.clip.tokenizer import END, START, WordTokens
from riszoo.encoders.transformer import HubTokenizer, TransformerText, WordTokenizer
from riszoo.encoders.vocabulary import UNKNOWN, Vocabulary
from riszoo.errors import UserError

FILE = "tokenizer.json"


def write_tokenizer(text: TextEncoder, folder: Path) -> dict[str, Any]:
    """What the runner needs to tokenize, with the tokenizer's file in the folder where there is one.

    A tokenizer over words is a list of tokens; that of a Hugging Face model is its own file.
    """
    if isinstance(text, BiGRU):
        return _words(text, text.vocabulary, [], [], text.length)
    tokenizer = getattr(text, "tokenizer", None)
    if isinstance(text, ClipText) and isinstance(tokenizer, WordTokens):
        return _words(text, tokenizer.vocabulary, [START], [END], text.length - 2)
    if isinstance(text, TransformerText | TokenTable) and isinstance(tokenizer, WordTokenizer):
        keeps_end = getattr(text, "keep_sep", True)
        return _words(text, tokenizer.vocabulary, ["[CLS]"], ["[SEP]"], text.length - 1 - keeps_end)
    if isinstance(text, TransformerText) and isinstance(tokenizer, HubTokenizer):
        return _file(text, tokenizer, folder)
    raise UserError(
        f"the tokenizer {type(tokenizer or text).__name__} of {type(text).__name__} cannot be exported: it is not one "
        "over words, nor one with a tokenizer.json; export a model with another text encoder"
    )


def _words(
    text: TextEncoder, vocabulary: Vocabulary, before: list[str], after: list[str], words: int
) -> dict[str, Any]:
    return {
        "kind": "words",
        "tokens": vocabulary.tokens,
        "unknown": UNKNOWN,
        "before": before,
        "after": after,
        "words": words,
        "length": text.length,
    }


def _file(text: TransformerText, tokenizer: HubTokenizer, folder: Path) -> dict[str, Any]:
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    copy.save(str(folder / FILE))
    return {"kind": "tokenizers", "file": FILE, "keep_end": text.keep_sep, "length": text.length}
