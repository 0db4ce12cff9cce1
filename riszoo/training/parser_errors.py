"""User errors from jsonargparse's messages: one sentence, with the nearest option where one was misspelt."""

from __future__ import annotations

import difflib
import re

from riszoo.errors import UserError

UNKNOWN_OPTION = r"(?:[Uu]nrecognized arguments:|Key|Option) '?(-{0,2}[\w.]+)'?"
ONE_TYPE = r"Expected (.*?)\. Got value: (\S+)"
UNION_OF_TYPES = r"Does not validate.*?Errors: Expected (.*?) Given value type: .*?Given value: (\S+)"
INVALID_VALUE = rf'key "(model|data)":.*key "([\w.]+)": (?:{ONE_TYPE}|{UNION_OF_TYPES})'


def parser_error(message: str, known: list[str], argv: list[str]) -> UserError:
    """The error for a parser's message, given all known options and the words of the command line."""
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip())
    if unknown := re.search(UNKNOWN_OPTION, text):
        name = full_name(unknown.group(1).lstrip("-"), argv)
        return unknown_option(f"--{name}", known)
    if invalid := re.search(INVALID_VALUE, text):
        section, key, *types = invalid.groups()
        expected, value = [group for group in types if group]
        name = full_name(key, argv, default=f"{section}.{key}")
        return UserError(f"--{name} {value}: expected {readable_type(expected)}")
    return UserError(text)


def unknown_option(name: str, known: list[str]) -> UserError:
    """The error for an option that does not exist."""
    nearest = nearest_option(name, known)
    return UserError(f"unknown option {name}: " + (f"did you mean {nearest}?" if nearest else "see --help-all"))


def nearest_option(name: str, known: list[str]) -> str | None:
    """The known option that ends like `name`, otherwise the most similar one."""
    section, _, end = name.rpartition(".")
    same_end = [option for option in known if option.startswith(f"{section}.") and option.endswith(f".{end}")]
    nearest = same_end if end and section else []
    nearest = nearest or difflib.get_close_matches(name, known, 1, 0.6)
    return nearest[0] if nearest else None


def full_name(suffix: str, argv: list[str], default: str | None = None) -> str:
    """The option on the command line that ends with `suffix`: the parser reports only the end of some names."""
    options = (word.partition("=")[0].lstrip("-") for word in argv if word.startswith("--"))
    return next((option for option in options if f".{option}".endswith(f".{suffix}")), default or suffix)


def readable_type(text: str) -> str:
    """`a typing.Literal['a'] Expected a <class 'NoneType'>` -> `a Literal['a'] or null`"""
    text = re.sub(r"<class '(\w+)'>", r"\1", text.replace("typing.", ""))
    return re.sub(r"\ba int\b", "an int", text.replace(" Expected a ", " or ").replace("NoneType", "null"))
