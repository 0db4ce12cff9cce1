"""One grid of strings as Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

FORMATS = ("latex", "markdown", "csv")
Grid = Sequence[Sequence[str]]
"""The first line is the heading."""
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "⚠": "*"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def markdown(grid: Grid, left: int = 1) -> str:
    """The first `left` columns are aligned left, the rest right."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in grid]
    rule = "|" + " --- |" * left + " ---: |" * (len(grid[0]) - left)
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def latex(grid: Grid, left: int = 1) -> str:
    """A tabular for the package booktabs."""
    lines = [" & ".join(_escaped(cell) for cell in line) + r" \\" for line in grid]
    columns = "l" * left + "r" * (len(grid[0]) - left)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([*body, r"\end{tabular}"]) + "\n"


def _escaped(cell: str) -> str:
    return re.sub(r"[\\~^±⚠&%$#_{}]", lambda found: LATEX[found[0]], cell)


def comma_separated(grid: Grid) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(grid)
    return file.getvalue()


def render(grid: Grid, form: str, left: int = 1) -> str:
    """The grid in one of `FORMATS`."""
    if form == "csv":
        return comma_separated(grid)
    return latex(grid, left) if form == "latex" else markdown(grid, left)
