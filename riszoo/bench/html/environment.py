"""The environment of the HTML pages' templates."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Templates of `riszoo/bench/templates`; values are escaped, and an unknown name is an error."""
    return Environment(
        loader=PackageLoader("riszoo.bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
