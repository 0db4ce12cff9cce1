"""CLIP's byte-pair tokenizer, and one over a vocabulary of words with the same special tokens.

The word pieces follow from OpenAI's list of merges, which riszoo does not contain: it comes with packages such as
open_clip_torch, or as a file of OpenAI's repository.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import json
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch

from riszoo.batch import TokenRow
from riszoo.encoders.transformer import word_spans
from riszoo.encoders.vocabulary import PAD, UNKNOWN, Vocabulary, split
from riszoo.errors import UserError

MERGES = "bpe_simple_vocab_16e6.txt.gz"
MERGES_USED = 49152 - 256 - 2
"""The file has more merges than CLIP uses."""
PACKAGES = ("open_clip", "clip")
"""Packages that contain the file of merges."""
REPOSITORIES = ("openai/clip-vit-base-patch16", "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14")
"""Hugging Face repositories whose tokenizer.json lists the same merges."""
PIECE = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CURLED = {"'": "\u2018\u2019\u201a\u201b\u02bc", '"': "\u201c\u201d\u201e\u201f"}
STRAIGHT = str.maketrans({curled: quote for quote, group in CURLED.items() for curled in group})
START, END = "<|startoftext|>", "<|endoftext|>"


class ClipTokenizer(Protocol):
    """Sentences as rows of ids between a start and an end token; the end token has the largest id, a pad is 0."""

    size: int

    def rows(self, texts: list[str], length: int) -> list[TokenRow]:
        """Ids of at most `length` tokens, the end token included, and the words."""


class WordTokens:
    """One token for each word of a vocabulary."""

    def __init__(self, words: list[str]) -> None:
        self.vocabulary = Vocabulary((PAD, UNKNOWN), [*words, START, END])
        self.size = len(self.vocabulary)

    def rows(self, texts: list[str], length: int) -> list[TokenRow]:
        return [self._row(split(text)[: length - 2]) for text in texts]

    def _row(self, words: list[str]) -> TokenRow:
        ids = [self.vocabulary[word] for word in (START, *words, END)]
        return ids, [(word, index, index + 1) for index, word in enumerate(words, 1)]


class WordPieces:
    """OpenAI's word pieces: 256 bytes, the same at the end of a word, one for each merge, start and end."""

    def __init__(self, merges: list[tuple[str, str]]) -> None:
        letters = byte_letters()
        pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges)]
        self.start, self.end = len(pieces), len(pieces) + 1
        self.size = len(pieces) + 2
        self._encode = _encoder({piece: index for index, piece in enumerate(pieces)}, merges)

    def rows(self, texts: list[str], length: int) -> list[TokenRow]:
        return [self._row(cleaned(text), length) for text in texts]

    def _row(self, text: str, length: int) -> TokenRow:
        encoding = self._encode(text)
        ids, offsets = encoding.ids[: length - 2], encoding.offsets[: length - 2]
        return [self.start, *ids, self.end], word_spans(text, [(0, 0), *offsets])


def cleaned(text: str) -> str:
    """A sentence as OpenAI cleans it: Unicode repaired, HTML entities replaced twice, single spaces, lower case."""
    text = html.unescape(html.unescape(_repaired(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def _repaired(text: str) -> str:
    """Broken Unicode repaired by ftfy; where it is not installed, only quotes are straightened and accents composed."""
    if importlib.util.find_spec("ftfy") is None:
        return unicodedata.normalize("NFC", text.translate(STRAIGHT))
    from ftfy import fix_text

    repaired: str = fix_text(text)
    return repaired


def byte_letters() -> list[str]:
    """The printable character that stands for each byte, in OpenAI's order: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [*map(chr, printable), *(chr(256 + index) for index in range(others))]


def _encoder(pieces: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(pieces, merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False),
        ]
    )
    return tokenizer.encode


# -- the list of merges -----------------------------------------------------------------------------------------------


def published_pieces() -> WordPieces:
    """The tokenizer over the first list of merges that is found."""
    for path in _candidates():
        if path.is_file():
            return _pieces_of(path)
    raise UserError(
        f"CLIP's tokenizer needs OpenAI's list of merges: install open_clip_torch, which contains it, or copy {MERGES} "
        f"of the repository openai/CLIP to {_cache_folder()}"
    )


@cache
def _pieces_of(path: Path) -> WordPieces:
    return WordPieces(read_merges(path))


def _cache_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _candidates() -> Iterator[Path]:
    """Where a list of merges may be: torch's cache, installed packages, the cache of the Hugging Face Hub."""
    from huggingface_hub import try_to_load_from_cache

    yield _cache_folder() / MERGES
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        yield from (Path(folder) / MERGES for folder in (spec and spec.submodule_search_locations) or ())
    for repository in REPOSITORIES:
        cached = try_to_load_from_cache(repository, "tokenizer.json")
        if isinstance(cached, str):
            yield Path(cached)


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges of OpenAI's compressed list or of a tokenizer.json."""
    try:
        if path.suffix == ".json":
            listed = json.loads(path.read_text(encoding="utf-8"))["model"]["merges"]
        else:
            listed = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGES_USED + 1]
        merges = [tuple(merge.split() if isinstance(merge, str) else merge) for merge in listed if merge]
        return [(first, second) for first, second in merges]
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a list of merges ({type(error).__name__}): copy {MERGES} again") from None
