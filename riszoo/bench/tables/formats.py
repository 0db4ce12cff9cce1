"""One grid of strings as Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import groupby

FORMATS = ("latex", "markdown", "csv")
Grid = Sequence[Sequence[str]]
"""The first line is the heading."""
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "⚠": "*"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def markdown(grid: Grid, left: int = 1) -> str:
    """The first `left` columns are aligned left, as is one of sources; the rest right."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in grid]
    rule = "|" + "".join(" --- |" if i < left or title == "source" else " ---: |" for i, title in enumerate(grid[0]))
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def latex(grid: Grid) -> str:
    """A tabular for the package booktabs; neighbours such as `oIoU val` and `oIoU testA` share a heading."""
    lines = [" & ".join(map(_escaped, line)) + r" \\" for line in grid[1:]]
    columns = "".join(_alignment([line[i] for line in grid[1:]]) for i in range(len(grid[0])))
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *_heading(grid[0]), r"\midrule"]
    return "\n".join([*top, *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _alignment(cells: Sequence[str]) -> str:
    return "r" if all(re.match(r"[-+]?\d|$", cell) for cell in cells) else "l"


def _heading(titles: Sequence[str]) -> list[str]:
    """One line, or three where neighbours begin with the same word: the word, a rule below it, and the rest."""
    groups = [(word, len(list(own))) for word, own in groupby(titles, lambda title: title.partition(" ")[0])]
    if all(length == 1 for _, length in groups):
        return [" & ".join(map(_escaped, titles)) + r" \\"]
    above, rules, below, column = [], [], [], 0
    for word, length in groups:
        own = titles[column : column + length]
        above.append(rf"\multicolumn{{{length}}}{{c}}{{{_escaped(word)}}}" if length > 1 else "")
        rules += [rf"\cmidrule(lr){{{column + 1}-{column + length}}}"] if length > 1 else []
        below += [_escaped(title.partition(" ")[2] if length > 1 else title) for title in own]
        column += length
    return [" & ".join(above) + r" \\", " ".join(rules), " & ".join(below) + r" \\"]


def _escaped(cell: str) -> str:
    return re.sub(r"[\\~^±⚠&%$#_{}]", lambda found: LATEX[found[0]], cell)


def comma_separated(grid: Grid) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(grid)
    return file.getvalue()


def render(grid: Grid, form: str, left: int = 1) -> str:
    """The grid in one of `FORMATS`; `left` columns are aligned left in Markdown."""
    if form == "csv":
        return comma_separated(grid)
    return latex(grid) if form == "latex" else markdown(grid, left)
