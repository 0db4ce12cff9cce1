"""Sentences as words: how they are split, and the vocabulary made of them. Imports nothing heavy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from riszoo.errors import UserError

WORD = re.compile(r"\w+|[^\w\s]")  # a run of letters and digits, or one punctuation mark: as BERT splits
PAD, UNKNOWN = "[PAD]", "[UNK]"


def split_with_ranges(text: str) -> list[tuple[str, int, int]]:
    """Each word in lower case with the half-open range of its characters."""
    return [(match.group().lower(), match.start(), match.end()) for match in WORD.finditer(text)]


def split(text: str) -> list[str]:
    """The words of a sentence in lower case."""
    return [word for word, _, _ in split_with_ranges(text)]


def vocabulary_of(texts: Iterable[str], minimum: int = 1) -> list[str]:
    """Words that occur at least `minimum` times, most frequent first, ties in alphabetical order."""
    counts = Counter(word for text in texts for word in split(text))
    frequent = [(-count, word) for word, count in counts.items() if count >= minimum]
    return [word for _, word in sorted(frequent)]


class Vocabulary:
    """Words as ids: the reserved tokens first, of which `[UNK]` stands for every word that is not listed."""

    def __init__(self, reserved: Sequence[str], words: Sequence[str]) -> None:
        self.tokens = [*reserved, *words]
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self._ids) < len(self.tokens):
            duplicate = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise UserError(f"the vocabulary (text.vocabulary) contains {duplicate!r} twice; remove one of the two")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, word: str) -> int:
        return self._ids.get(word, self._ids[UNKNOWN])
