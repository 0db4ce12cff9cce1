"""Sentences as words: how they are split, and the vocabulary made of them. Imports nothing heavy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from riszoo.errors import UserError

WORD = re.compile(r"\w+|[^\w\s]")  # letters and digits together, each punctuation mark alone: as BERT splits


def located(text: str) -> list[tuple[str, int, int]]:
    """Each word in lower case with the half-open range of characters it stands at."""
    return [(match.group().lower(), match.start(), match.end()) for match in WORD.finditer(text)]


def split(text: str) -> list[str]:
    return [word for word, _, _ in located(text)]


def vocabulary_of(texts: Iterable[str], minimum: int = 1) -> list[str]:
    """Every word said at least `minimum` times, the commonest first, equals by alphabet."""
    counts = Counter(word for text in texts for word in split(text))
    kept = [(-count, word) for word, count in counts.items() if count >= minimum]
    return [word for _, word in sorted(kept)]


class Vocabulary:
    """Words as ids: the reserved tokens first, of which `[UNK]` stands for every word that is not listed."""

    def __init__(self, reserved: Sequence[str], words: Sequence[str]) -> None:
        self.tokens = [*reserved, *words]
        self._ids = {token: place for place, token in enumerate(self.tokens)}
        if len(self._ids) < len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise UserError(f"the vocabulary (text.vocabulary) names {twice!r} twice; keep one of the two")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, word: str) -> int:
        return self._ids.get(word, self._ids["[UNK]"])
