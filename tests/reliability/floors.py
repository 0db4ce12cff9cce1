"""Prints the lowest allowed version of each dependency as pip constraints, for `make test-floors`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
LOWER_BOUND = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?\s*>=\s*([\w.]+)")


def dependencies() -> list[str]:
    """The run-time requirements of pyproject.toml."""
    found: list[str] = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    return found


def floors() -> list[str]:
    """`name==version` for each run-time dependency with a lower bound."""
    found = (LOWER_BOUND.match(requirement) for requirement in dependencies())
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    print("\n".join(floors()))
