"""The text encoders' builder, and the bidirectional GRU over words.

Every encoder tokenizes on the CPU into ids whose valid tokens come first, with the mask made of lengths, never of
id values. transformers is imported only where one of its encoders is built.
"""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from riszoo.batch import Span, Tokens, Words
from riszoo.encoders.base import TextConfig, TextEncoder
from riszoo.encoders.vocabulary import Vocabulary, split
from riszoo.errors import UserError

Row = tuple[list[int], list[Span]]
PAD, UNKNOWN = "[PAD]", "[UNK]"


def build_text(text: TextConfig) -> TextEncoder:
    """The encoder that `text` names."""
    if text.weights not in ("none", "pretrained"):
        raise UserError(f"text.weights is `none` or `pretrained`, not {text.weights!r}; give a folder as text.name")
    encoder = _build_bigru(text) if text.name == "bigru" else _build_transformer(text)
    return encoder.freeze() if text.frozen else encoder


def _build_transformer(text: TextConfig) -> TextEncoder:
    from riszoo.encoders.transformer import build_transformer

    return build_transformer(text)


def padded(rows: list[Row], width: int | None, pad: int) -> Tokens:
    """Rows of ids as one block, as wide as `width` or as the longest."""
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    width = width or int(lengths.max())
    ids = torch.full((len(rows), width), pad, dtype=torch.int64)
    for place, (row, _) in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    mask = torch.arange(width) < lengths[:, None]  # (N, L)
    return Tokens(ids, mask, [spans for _, spans in rows])


class BiGRU(TextEncoder):
    """Word vectors through one GRU in each direction; the states of both are summed, or set side by side.

    The backward GRU reads the valid tokens reversed by a gather, so nothing is packed and nothing waits for the CPU.
    `embedding_file` holds a word and its numbers on each line, as GloVe's files do; words it lacks stay random.
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
        self.ahead = nn.GRU(embedding, width, batch_first=True)
        self.back = nn.GRU(embedding, width, batch_first=True)
        if embedding_file is not None:
            load_vectors(self.embedding, self.vocabulary, Path(embedding_file).expanduser())
        self.embedding.requires_grad_(not embedding_frozen)

    def tokenize(self, texts: list[str]) -> Tokens:
        rows = [self._row(split(text)[: self.length]) for text in texts]
        return padded(rows, self.length if self.fixed_length else None, self.vocabulary[PAD])

    def _row(self, words: list[str]) -> Row:
        """An empty sentence is one unknown word, which no span names."""
        ids = [self.vocabulary[word] for word in words] or [self.vocabulary[UNKNOWN]]
        return ids, [(word, place, place + 1) for place, word in enumerate(words)]

    def forward(self, tokens: Tokens) -> Words:
        vectors = self.embedding(tokens.ids)  # (N, L, E)
        reverse = _reversed(tokens.mask)[:, :, None]  # (N, L, 1)
        ahead, _ = self.ahead(vectors)
        back, _ = self.back(vectors.gather(1, reverse.expand_as(vectors)))
        back = back.gather(1, reverse.expand_as(back))
        states = ahead + back if self.combine == "sum" else torch.cat([ahead, back], -1)
        return Words(valid_only(states, tokens.mask), tokens.mask, None, tokens.spans)


def _reversed(mask: Tensor) -> Tensor:
    """(N, L) the place each token has when the valid ones are read backwards; pads keep theirs."""
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - place, place)


def valid_only(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(~mask[:, :, None], 0)


def load_vectors(embedding: nn.Embedding, vocabulary: Vocabulary, path: Path) -> None:
    """Overwrite the rows of the words that the file knows; at least one must be among them."""
    if not path.is_file():
        raise UserError(f"no word vectors at {path}; text.options.embedding_file takes a file as GloVe's")
    known, found = set(vocabulary.tokens), 0
    with path.open(encoding="utf-8") as lines, torch.no_grad():
        for number, line in enumerate(lines, 1):
            word, *values = line.rstrip().split(" ")
            if word in known and not (number == 1 and len(values) == 1):  # word2vec's files begin with two counts
                embedding.weight[vocabulary[word]] = _vector(values, embedding.embedding_dim, f"{path}:{number}")
                found += 1
    if not found:
        raise UserError(f"{path} knows no word of the vocabulary; is it of another language, or no vector file?")


def _vector(values: list[str], width: int, where: str) -> Tensor:
    try:
        vector = torch.tensor([float(value) for value in values])
    except ValueError as error:
        raise UserError(f"{where} is not a word and its numbers; text.options.embedding_file is as GloVe's") from error
    if len(vector) != width:
        raise UserError(f"{where} has {len(vector)} numbers, text.options.embedding is {width}; make the two equal")
    return vector


def _build_bigru(text: TextConfig) -> TextEncoder:
    if text.weights != "none":
        raise UserError("the bi-GRU has no pretrained weights; word vectors come by text.options.embedding_file")
    known = inspect.signature(BiGRU).parameters.keys() - {"vocabulary", "length"}
    check_options(text.options, known, "bigru")
    return BiGRU(words_of(text), length=at_least(text, 1), **text.options)


def words_of(text: TextConfig) -> list[str]:
    if text.vocabulary is None:
        raise UserError(f"{text.name} reads words and has no vocabulary; give text.vocabulary a list of words")
    return list(text.vocabulary)


def at_least(text: TextConfig, minimum: int) -> int:
    if text.length < minimum:
        raise UserError(f"text.length is {text.length}; {text.name} needs at least {minimum}")
    return text.length


def check_options(options: dict[str, Any], known: Any, name: str) -> None:
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(known)[:12])}"
            raise UserError(f"{name} knows no option {option!r} (text.options); {hint}")


def takes_vocabulary(text: TextConfig) -> bool:
    """Whether the encoder reads words that a training split must name first."""
    if text.name == "bigru":
        return True
    if Path(text.name).is_dir():
        return False
    from transformers import CONFIG_MAPPING

    return text.name in CONFIG_MAPPING
