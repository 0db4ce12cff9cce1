"""Errors that the user can correct."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from textwrap import shorten

LONGEST_NAME = 80
"""Characters of a name that are repeated in an error."""
NEAR = 0.6
"""The least likeness, from 0 to 1, of a name that an error proposes."""


class UserError(ValueError):
    """A wrong option, value or file. The command line prints its one sentence and exits with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(_without_worker_traceback(message))


def _without_worker_traceback(message: str) -> str:
    """The sentence of an error that torch has raised again, where the message is the traceback of a loading process."""
    if not (message.startswith("Caught ") and "\nOriginal Traceback" in message):
        return message
    return message.rstrip().splitlines()[-1].partition(": ")[2]


def without_controls(text: str) -> str:
    """Text of an untrusted file for a terminal, which would obey its control codes: they are written as \\x1b.

    So are lone surrogates, which no terminal can show and which names of files and JSON may contain.
    """
    return "".join(f"\\x{ord(one):02x}" if _is_unprintable(ord(one)) else one for one in text)


def _is_unprintable(code: int) -> bool:
    return code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000


def reason(error: BaseException, most: int = 150) -> str:
    """What the error of another library says, in one line that is cut between two words."""
    return shorten(str(error), most, placeholder=" ...")


def unknown_name(what: str, name: str, known: Iterable[str], of: str = "") -> UserError:
    """The error for a name that is not one of `known`, with the nearest known name.

    Args:
        what: what the name stands for
        of: what it should be one of, such as a model's name
    """
    known = list(known)
    nearest = nearest_name(name, known)
    hint = f"did you mean '{nearest}'?" if nearest else f"choose from {', '.join(known) or 'none'}"
    subject = f"{of} has no {what}" if of else f"unknown {what}"
    return UserError(f"{subject} '{name[:LONGEST_NAME]}': {hint}")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like another one; None where none is like it."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, NEAR)), None)


def find_user_error(error: BaseException | None) -> UserError | None:
    """The UserError in an error's chain of causes: libraries wrap it in errors of their own."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
