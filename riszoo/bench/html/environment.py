"""The environment of the HTML pages' templates."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Templates of `riszoo/bench/templates`; values are escaped, and an unknown name is an error."""
    found = Environment(
        loader=PackageLoader("riszoo.bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {}  # keeps the order of the facts
    return found
