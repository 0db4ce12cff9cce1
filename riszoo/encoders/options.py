"""Checks of the values in a TextConfig that every text encoder shares."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from riszoo.encoders.base import TextConfig
from riszoo.errors import UserError


def required_vocabulary(text: TextConfig) -> list[str]:
    """The words of a word-level encoder."""
    if text.vocabulary is None:
        raise UserError(f"{text.name} is a word-level encoder and needs text.vocabulary, a list of words")
    return list(text.vocabulary)


def checked_length(text: TextConfig, minimum: int) -> int:
    """`text.length`, at least `minimum`."""
    if text.length < minimum:
        raise UserError(f"text.length is {text.length}; {text.name} needs at least {minimum}")
    return text.length


def check_options(options: dict[str, Any], known: Collection[str], name: str) -> None:
    """Raise for the first option that the encoder `name` does not have."""
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"its options are {', '.join(sorted(known)[:12])}"
            raise UserError(f"{name} has no option {option!r} (text.options); {hint}")
