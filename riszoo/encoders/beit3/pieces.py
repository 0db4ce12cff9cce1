"""BEiT-3's tokenizer: a sentencepiece model under the ids of XLM-RoBERTa's tokenizer class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from riszoo.batch import TokenRow
from riszoo.encoders.transformer import word_spans
from riszoo.errors import UserError

BEGIN, PAD, END, UNKNOWN = 0, 1, 2, 3
SHIFT = 1
"""A piece's id is its number in the file plus this; the file's number 0 is the unknown piece."""
SPACE = "▁"
SEMANTIC = "[semantic]"
"""The added token of multitask checkpoints, written before the name of a whole category."""


class PieceTokenizer:
    """<s> pieces </s>, cut on the right before the end token; nothing is put in lower case here.

    semantic  `[semantic]` is one token, and the text after it is tokenized as a text of its own
    """

    pad = PAD
    global_first = True

    def __init__(self, path: Path, semantic: bool = False) -> None:
        self.model = read_pieces(path)
        mask = len(self.model) + SHIFT
        self.semantic = mask + 1 if semantic else None
        self.size = mask + 1 + semantic

    def rows(self, texts: list[str], length: int, keep_sep: bool = True) -> list[TokenRow]:
        return [self._row(text, length, keep_sep) for text in texts]

    def _row(self, text: str, length: int, keep_sep: bool) -> TokenRow:
        parts = text.split(SEMANTIC) if self.semantic is not None else [text]
        ids, surfaces = [BEGIN], [" "]
        for index, part in enumerate(parts):
            if index and self.semantic is not None:
                ids.append(self.semantic)
                surfaces.append(" ")
            pieces = self.model.encode_as_pieces(part)
            ids += [self._id(piece) for piece in pieces]
            surfaces += [piece.replace(SPACE, " ") for piece in pieces]
        kept = length - 1 if keep_sep else length
        ids, surfaces = [*ids[:kept], END][:length], surfaces[:kept]
        ends = [len("".join(surfaces[: index + 1])) for index in range(len(surfaces))]
        return ids, word_spans("".join(surfaces), list(zip([0, *ends], ends, strict=False)))

    def _id(self, piece: str) -> int:
        number: int = self.model.piece_to_id(piece)
        return number + SHIFT if number else UNKNOWN


def find_pieces(name: str) -> Path:
    """The file of a sentencepiece model: the path itself, or a file of that name in torch's cache."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(name).name
    for path in (Path(name).expanduser(), cached):
        if path.is_file():
            return path
    raise UserError(
        f"{name} is not a file, and {cached} does not exist: give --model.text.name the path of BEiT-3's beit3.spm or "
        "of an EVF-SAM folder's sentencepiece.bpe.model"
    )


def read_pieces(path: Path) -> Any:
    """The sentencepiece model of a file."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise UserError(
            f"{path} needs the package sentencepiece: install it with `pip install 'riszoo[evfsam]'`"
        ) from None
    try:
        return SentencePieceProcessor(model_proto=path.read_bytes())
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged or of another format"
        raise UserError(f"{path} is not a sentencepiece model ({reason}): copy the file again") from None
