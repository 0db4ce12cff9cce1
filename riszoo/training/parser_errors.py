"""User errors from jsonargparse's messages: one sentence, with the nearest option where one was misspelt."""

from __future__ import annotations

import difflib
import re

from riszoo.errors import UserError

UNKNOWN_OPTION = r"(?:[Uu]nrecognized arguments:|Key|Option) '?(-{0,2}[\w.]+)'?"
UNEXPECTED_WORDS = r"[Uu]nrecognized arguments: ([^-].*)"
NOT_A_SUBCLASS = r"Import path (\S+) does not correspond to a subclass of (\w+)"
KEY = r'key "([\w.]+)":'
GIVEN = r"NestedArg\(key='([\w.]+)'"
VALUE = r"(?:Got value: |Given value: (?!NestedArg|\{)|Unable to load config |NestedArg\(key=.*?, val=)'?([^\s')]+)"
TYPE = r"Expected an? (?:typing\.Literal\[(.*?)\]|<class '(?:\w+\.)*(\w+)'>|(dot import path))"
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "NoneType": "null",
}
"""What an option's type is called in a sentence."""


def parser_error(message: str, known: list[str], argv: list[str]) -> UserError:
    """The error for a parser's message, given all known options and the words of the command line."""
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip())
    if unexpected := re.search(UNEXPECTED_WORDS, text):
        return UserError(f"unexpected '{unexpected.group(1)}': options begin with --, such as --model lts")
    if unknown := re.search(UNKNOWN_OPTION, text):
        name = full_name(unknown.group(1).lstrip("-"), argv)
        return unknown_option(f"--{name}", known)
    keys, value = re.findall(KEY, text), re.search(VALUE, text)
    if not keys or value is None:
        return UserError(text)
    given = re.search(GIVEN, text)
    path = [keys[0], given.group(1)] if given else dict.fromkeys([keys[0], keys[-1]])
    name = full_name(keys[-1], argv, default=".".join(path))
    if wrong_class := re.search(NOT_A_SUBCLASS, text):
        return UserError(f"--{name} {wrong_class.group(1)} is not a subclass of {wrong_class.group(2)}")
    return UserError(f"--{name} {value.group(1)}: expected {expected_types(text)}")


def expected_types(text: str) -> str:
    """The types or choices that a message names before the value, in words."""
    if "Unable to load config" in text:
        return "a mapping; its options are given by their full names"
    found: list[str] = []
    for choices, kind, path in re.findall(TYPE, re.split("Got value|Given value", text)[0]):
        found += [choice.strip(" '") for choice in choices.split(",") if choice]
        found += [TYPES.get(kind, kind)] * bool(kind) + ["a class such as my.module.Class"] * bool(path)
    names = [name for name in dict.fromkeys(found) if name != "null"] + ["null"] * ("null" in found)
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names) or "another type"


def unknown_option(name: str, known: list[str]) -> UserError:
    """The error for an option that does not exist."""
    nearest = nearest_option(name, known)
    return UserError(f"unknown option {name}: " + (f"did you mean {nearest}?" if nearest else "see --help-all"))


def nearest_option(name: str, known: list[str]) -> str | None:
    """The known option of that section, if the name has one, that ends like `name`; otherwise the most similar one."""
    section, point, end = name.removeprefix("--").rpartition(".")
    same_end = [o for o in known if o.startswith(f"--{section}{point}") and o.endswith(f".{end}")] if end else []
    nearest = same_end or difflib.get_close_matches(name, known, 1, 0.6)
    return nearest[0] if nearest else None


def full_name(suffix: str, argv: list[str], default: str | None = None) -> str:
    """The option on the command line that ends with `suffix`: the parser reports only the end of some names."""
    options = (word.partition("=")[0].lstrip("-") for word in argv if word.startswith("--"))
    return next((option for option in options if f".{option}".endswith(f".{suffix}")), default or suffix)
