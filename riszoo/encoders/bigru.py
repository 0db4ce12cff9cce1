"""A bidirectional GRU over word vectors.

N sentences   L tokens   E width of a word vector   C width of a state
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from riszoo.batch import TokenRow, Tokens, Words
from riszoo.encoders.base import TextConfig, TextEncoder, check_options, checked_length, required_vocabulary
from riszoo.encoders.vocabulary import PAD, UNKNOWN, Vocabulary, split
from riszoo.errors import UserError


class BiGRU(TextEncoder):
    """One GRU in each direction over word vectors; the two states of a word are summed or concatenated.

    The backward GRU reads the valid tokens in reverse order through a gather, so there is no packing and no host
    synchronisation. `embedding_file` has a word and its numbers on each line, in GloVe's format; words that it lacks
    keep random vectors.
    """

    def __init__(
        self,
        vocabulary: list[str],
        width: int = 1024,
        *,
        embedding: int = 300,
        length: int = 20,
        fixed_length: bool = False,
        combine: Literal["sum", "concat"] = "sum",
        embedding_file: str | None = None,
        embedding_frozen: bool = False,
    ) -> None:
        super().__init__()
        if combine not in ("sum", "concat"):
            raise UserError(f"text.options.combine is `sum` or `concat`, not {combine!r}")
        self.vocabulary = Vocabulary((PAD, UNKNOWN), vocabulary)
        self.length, self.fixed_length, self.combine = length, fixed_length, combine
        self.width = width if combine == "sum" else 2 * width
        self.embedding = nn.Embedding(len(self.vocabulary), embedding, padding_idx=0)
        self.forward_gru = nn.GRU(embedding, width, batch_first=True)
        self.backward_gru = nn.GRU(embedding, width, batch_first=True)
        if embedding_file is not None:
            load_vectors(self.embedding, self.vocabulary, Path(embedding_file).expanduser())
        if embedding_frozen:
            self.freeze_embeddings()

    def tokenize(self, texts: list[str]) -> Tokens:
        rows = [self._row(split(text)[: self.length]) for text in texts]
        return Tokens.from_rows(rows, self.length if self.fixed_length else None, self.vocabulary[PAD])

    def _row(self, words: list[str]) -> TokenRow:
        """An empty sentence becomes one unknown word without a span."""
        ids = [self.vocabulary[word] for word in words] or [self.vocabulary[UNKNOWN]]
        return ids, [(word, index, index + 1) for index, word in enumerate(words)]

    def forward(self, tokens: Tokens) -> Words:
        vectors = self.embedding(tokens.ids)  # (N, L, E)
        order = reversed_positions(tokens.mask)[:, :, None]  # (N, L, 1)
        ahead, _ = self.forward_gru(vectors)  # (N, L, C)
        back, _ = self.backward_gru(vectors.gather(1, order.expand_as(vectors)))
        back = back.gather(1, order.expand_as(back))  # (N, L, C)
        states = ahead + back if self.combine == "sum" else torch.cat([ahead, back], -1)
        return Words.from_states(states, tokens, global_index=None)

    def freeze_embeddings(self) -> None:
        self.embedding.requires_grad_(False)


def reversed_positions(mask: Tensor) -> Tensor:
    """(N, L) the position of each token when the valid ones are read in reverse order; pad tokens keep theirs."""
    position = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - position, position)


def load_vectors(embedding: nn.Embedding, vocabulary: Vocabulary, path: Path) -> None:
    """Overwrite the vectors of the words that the file contains; at least one word must be in both."""
    if not path.is_file():
        raise UserError(f"no word vectors at {path}; text.options.embedding_file is a file in GloVe's format")
    known, found = set(vocabulary.tokens), 0
    with path.open(encoding="utf-8") as lines, torch.no_grad():
        for number, line in enumerate(lines, 1):
            word, *values = line.rstrip().split(" ")
            if word in known and not (number == 1 and len(values) == 1):  # word2vec's files begin with two counts
                embedding.weight[vocabulary[word]] = _vector(values, embedding.embedding_dim, f"{path}:{number}")
                found += 1
    if not found:
        raise UserError(f"{path} contains no word of the vocabulary; check its language and that it has word vectors")


def _vector(values: list[str], width: int, where: str) -> Tensor:
    try:
        vector = torch.tensor([float(value) for value in values])
    except ValueError as error:
        raise UserError(
            f"{where} is not a word followed by numbers; text.options.embedding_file is a file in GloVe's format"
        ) from error
    if len(vector) != width:
        raise UserError(f"{where} has {len(vector)} numbers, text.options.embedding is {width}; make the two equal")
    return vector


def build_bigru(text: TextConfig) -> BiGRU:
    """A bi-GRU over the words of `text.vocabulary`."""
    if text.weights != "none":
        raise UserError("the bi-GRU has no pretrained weights; load word vectors with text.options.embedding_file")
    check_options(text.options, inspect.signature(BiGRU).parameters.keys() - {"vocabulary", "length"}, "bigru")
    return BiGRU(required_vocabulary(text), length=checked_length(text, 1), **text.options)
