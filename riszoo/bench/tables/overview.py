"""The table of all data sets: for each split the best claims and the best measured result."""

from __future__ import annotations

import re
from collections.abc import Iterable

from riszoo import recipes
from riszoo.bench.tables.claims import UNSTATED
from riszoo.bench.tables.data_table import LEAKED, LEAKED_LEGEND, MARK, DataTable, shown_text
from riszoo.bench.tables.entries import CLAIMED, ORIGINAL, Entry
from riszoo.bench.tables.formats import markdown
from riszoo.bench.tables.results import Results


def overview_table(results: Results) -> str:
    """A line for each data set and split with a number, by the first metric of the data set."""
    lines = [["data set", "split", "metric", "best claim, trained on this set", "best claim, any training", "measured"]]
    tables = [DataTable(results, recipes.get("data", name)) for name in recipes.names("data")]
    for table in sorted(tables, key=lambda table: not table.measured):
        for metric, split in table.columns:
            if metric == table.columns[0][0]:
                title = f"[{_short_title(table.data)}]({table.data.name}.md)"
                shown = "not stated" if split == UNSTATED else split
                lines.append([title, shown, metric, *_best(table, (metric, split))])
    leaked = f" {LEAKED_LEGEND}" if any(LEAKED in cell for line in lines for cell in line) else ""
    legend = f"{MARK} measured by riszoo.{leaked} Each page has every method, its sources and its notes."
    return f"{markdown(lines, 6)}\n{legend}\n"


def _short_title(data: recipes.Recipe) -> str:
    """The name that papers print, with the partition."""
    name = re.split(r"[:,]| in ", data.title)[0].replace(" partition", "")
    return name + ")" * (name.count("(") - name.count(")"))


def _best(table: DataTable, column: tuple[str, str]) -> list[str]:
    """The best claims and the best measured result of a column; empty where no number exists."""
    claimed = [entry for entry in table.entries if entry.kind == CLAIMED]
    alone = _first((entry for entry in claimed if entry.training == "single"), column)
    anything = _first(claimed, column)
    measured = _first((entry for entry in table.measured if entry.protocol == ORIGINAL), column)
    return [_claim(alone, column), _claim(anything, column), _cell(measured, column, f"{MARK} ")]


def _first(entries: Iterable[Entry], column: tuple[str, str]) -> Entry | None:
    """The entry with the highest number in a column; one that was trained on the split only where there is no other."""
    found = [((not number.leaked, number.value), entry) for entry in entries if (number := entry.number(*column))]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _claim(entry: Entry | None, column: tuple[str, str]) -> str:
    if entry is None:
        return ""
    return f"{_cell(entry, column)} ({f'[source]({entry.link})' if entry.link else entry.source})"


def _cell(entry: Entry | None, column: tuple[str, str], mark: str = "") -> str:
    return f"{mark}**{shown_text(entry.number(*column))}** {entry.method}" if entry else ""
