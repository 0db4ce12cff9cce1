"""BEiT-3's token embeddings as word states: the transformer that reads them needs the image, too.

N sentences   L tokens   C channels
"""

from __future__ import annotations

import torch
from torch import nn

from riszoo.batch import Tokens, Words
from riszoo.encoders.base import TextConfig, TextEncoder, check_options, checked_length, required_vocabulary
from riszoo.encoders.beit3.pieces import PieceTokenizer, find_pieces
from riszoo.encoders.beit3.weights import find_beit3, load_table
from riszoo.encoders.transformer import Tokenizer, WordTokenizer
from riszoo.errors import UserError

ROWS = 64_010
"""Of the published table: 64,000 pieces, the special tokens, and rows without a token."""
PIECES = (".spm", ".model")


class TokenTable(TextEncoder):
    """A row of a table for each token; sentences are stripped and put in lower case."""

    def __init__(
        self, tokenizer: Tokenizer, *, rows: int, width: int, length: int, spread: float | None = None
    ) -> None:
        super().__init__()
        self.tokenizer, self.length, self.width, self.fixed_length = tokenizer, length, width, False
        self.table = nn.Embedding(rows, width)
        nn.init.normal_(self.table.weight, std=width**-0.5 if spread is None else spread)

    def tokenize(self, texts: list[str]) -> Tokens:
        rows = self.tokenizer.rows([text.strip().lower() for text in texts], self.length, True)
        return Tokens.from_rows(rows, self.length if self.fixed_length else None, self.tokenizer.pad)

    def forward(self, tokens: Tokens) -> Words:
        first = torch.zeros(tokens.ids.shape[0], dtype=torch.int64, device=tokens.ids.device)
        return Words.from_states(self.table(tokens.ids), tokens, first)

    def freeze_embeddings(self) -> None:
        self.table.requires_grad_(False)


def names_beit3(text: TextConfig) -> bool:
    """Whether a configuration names this encoder: `beit3`, over words, or the file of a sentencepiece model."""
    return text.name == "beit3" or text.name.endswith(PIECES)


def build_table(text: TextConfig) -> TokenTable:
    """The table over the words of `text.vocabulary`, or over the pieces of a file."""
    length, width = checked_length(text, 3), int(text.options.get("width", 1024))
    if text.name == "beit3":
        check_options(text.options, {"width", "spread"}, text.name)
        if text.weights != "none":
            raise UserError("text.name beit3 is built over words and has no weights: name the file beit3.spm instead")
        words = WordTokenizer(required_vocabulary(text))
        spread = text.options.get("spread")
        if spread is not None and not (isinstance(spread, int | float) and spread > 0):
            raise UserError(f"text.options.spread {spread}: give a number above 0")
        return TokenTable(words, rows=len(words.vocabulary), width=width, length=length, spread=spread)
    check_options(text.options, {"width", "rows", "semantic"}, text.name)
    pieces = PieceTokenizer(find_pieces(text.name), bool(text.options.get("semantic", False)))
    rows = int(text.options.get("rows", ROWS))
    if pieces.size > rows:
        raise UserError(
            f"{text.name} has {pieces.size} tokens, more than the {rows} rows of the table: check text.options.rows"
        )
    encoder = TokenTable(pieces, rows=rows, width=width, length=length)
    if text.weights != "none":
        encoder.weight_file = find_beit3(text.weights, width)
        load_table(encoder.table, encoder.weight_file)
    return encoder
