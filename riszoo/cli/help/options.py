"""Options of models, data sets and runs: types, values and descriptions, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

ENTRY = re.compile(r"^\s*(\w+(?:, \w+)*)(?::\s+|\s{2,})(\S.*)$")
"""A line of a docstring that describes options: `name: text`, or `name   text` as in a table."""


class Option(NamedTuple):
    name: str
    kind: str
    value: Any
    text: str


def options_of_class(cls: type, prefix: str, given: dict[str, Any]) -> Iterator[Option]:
    """Every option of a class: its own first, then those of its bases. `given` are the values that a recipe sets."""
    known: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base) or not base.__module__.startswith(cls.__module__.partition(".")[0]):
            continue
        constructor = vars(base)["__init__"]
        hints, texts = get_type_hints(constructor), documented(inspect.getdoc(base) or "")
        for name, parameter in inspect.signature(constructor).parameters.items():
            if name in hints and name not in known and parameter.kind is not parameter.VAR_KEYWORD:
                known.add(name)
                yield from _options(f"{prefix}.{name}", hints[name], parameter.default, given.get(name), texts, name)


def options_of_group(group: type, prefix: str, given: dict[str, Any]) -> Iterator[Option]:
    """Every field of a dataclass of options."""
    hints, texts = get_type_hints(group), documented(inspect.getdoc(group) or "")
    for field in dataclasses.fields(group):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield from _options(
            f"{prefix}.{field.name}", hints[field.name], default, given.get(field.name), texts, field.name
        )


def _options(option: str, hint: Any, default: Any, given: Any, texts: dict[str, str], name: str) -> Iterator[Option]:
    """One option, or those of the group that it is."""
    group = next((kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)), None)
    if isinstance(group, type):
        yield from options_of_group(group, option, given if isinstance(given, dict) else {})
    else:
        yield Option(option, type_name(hint), default if given is None else given, texts.get(name, ""))


def documented(text: str) -> dict[str, str]:
    """The description of each name in a docstring."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        match = ENTRY.match(line)
        if match:
            names = match[1].split(", ")
            found |= {name: match[2] for name in names if name not in found}
        elif not line.strip():
            names = []
        elif names and line.startswith("    "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def type_name(hint: Any) -> str:
    """`int | None` -> `INT`, `Literal["a", "b"]` -> `a|b`"""
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_name(kind) for kind in get_args(hint) if kind is not type(None))
    return str(getattr(hint, "__name__", hint)).upper()
