"""The table of one data set: claimed, measured and reproduced results."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from riszoo import recipes
from riszoo.bench.tables.claims import UNSTATED
from riszoo.bench.tables.entries import MEASURED, ORIGINAL, REPRODUCED, Entry, Number
from riszoo.bench.tables.formats import Grid, markdown, render
from riszoo.bench.tables.matrix import matrix_section
from riszoo.bench.tables.results import Results

METRICS = {"grefcoco": ("cIoU", "gIoU", "N-acc")}
DEFAULT_METRICS = ("oIoU", "mIoU")
MARK, LEAKED = "◆", "⚠"
LEAKED_LEGEND = f"{LEAKED} the checkpoint was trained on images of this split, so the number is not fair."
ABOUT = ("method", "encoders", "training", "year")


class DataTable:
    """A line for each method, encoders and training, best first, with the columns that contain a number."""

    def __init__(self, results: Results, data: recipes.Recipe) -> None:
        self.results, self.data = results, data
        self.splits: list[str] = data.content["common"]["data"]["test_splits"]
        metrics = METRICS.get(data.name, DEFAULT_METRICS)
        columns = [(metric, split) for metric in metrics for split in (*self.splits, UNSTATED)]
        everything = [entry for entry in results.entries if entry.data == data.name]
        own = [entry for entry in everything if entry.kind != REPRODUCED]
        self.reproduced = [entry for entry in everything if entry.kind == REPRODUCED]
        self.columns = [column for column in columns if any(entry.number(*column) for entry in own)]
        shown = [entry for entry in own if any(entry.number(*column) for column in self.columns)]
        self.entries = sorted(shown, key=lambda entry: entry.rank(self.columns))
        self.measured = [entry for entry in shown if entry.kind == MEASURED]
        self.notes: dict[str, str] = {}  # note -> its number

    def render(self) -> str:
        """One table; results under other protocols have tables of their own."""
        main = [entry for entry in self.entries if entry.protocol in ("", ORIGINAL)]
        parts = [self._table(main)] if main else []
        for protocol in sorted({entry.protocol for entry in self.entries} - {"", ORIGINAL}):
            own = [entry for entry in self.entries if entry.protocol == protocol]
            parts += [f"Measured under the protocol `{protocol}`:", self._table(own)]
        unmeasured = unmeasured_models(self.data.name, {entry.method for entry in self.measured})
        parts += [" ".join(self._legend()), unmeasured, reproduced_table(self.reproduced)]
        parts.append(matrix_section(self.results, self.data.name, self.splits))
        parts.append("<br>\n".join(f"<sup>{number}</sup> {note}" for note, number in self.notes.items()))
        return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"

    def _table(self, entries: Sequence[Entry]) -> str:
        columns = [column for column in self.columns if any(entry.number(*column) for entry in entries)]
        heading = [*ABOUT, *map(_column_title, columns), "source"]
        lines = [
            [*self._names(e), *(shown_text(e.number(*column)) for column in columns), linked_source(e)] for e in entries
        ]
        return markdown(without_empty_columns([heading, *lines]), sum(any(line[i] for line in lines) for i in range(4)))

    def _names(self, entry: Entry) -> list[str]:
        method, *rest = _about(entry)
        if entry.kind == MEASURED:
            return [f"{MARK} **{method}**", *rest]
        notes = [self.results.method_notes.get(method.lower(), ""), self.results.source_notes.get(entry.source, "")]
        return [method + "".join(self._note(" ".join(note.split())) for note in notes if note), *rest]

    def _note(self, text: str) -> str:
        self.notes.setdefault(text, str(len(self.notes) + 1))
        return f" <sup>{self.notes[text]}</sup>"

    def _legend(self) -> list[str]:
        text = []
        if self.measured:
            uncertainty = _uncertainty(self.measured, self.columns)
            text.append(f"{MARK} measured by riszoo, {origin(self.measured)}. {uncertainty}")
        if len(self.measured) < len(self.entries):
            text.append("Lines without a mark are claims of the linked source, whose protocol is seldom stated.")
        if any(number.leaked for entry in self.measured for number in entry.numbers.values()):
            text.append(LEAKED_LEGEND)
        return text


def unmeasured_models(data: str, measured: Collection[str]) -> str:
    """The models that have the set's usual scale and are not measured, with the command that measures them."""
    scale = recipes.default_scale(data)
    missing = [name for name in recipes.names("models") if name not in measured and scale in recipes.scales(name, data)]
    if not missing:
        return ""
    names = ", ".join(f"`{name}`" for name in missing)
    return f"Not measured here: {names}; `riszoo bench --data {data} --models {','.join(missing)}`."


def formatted(results: Results, data: str, form: str) -> str:
    """All lines of a data set in one of `FORMATS`, with columns for what the pages show by marks."""
    table = DataTable(results, recipes.get("data", data))
    heading = ["kind", "protocol", *ABOUT, *map(_column_title, table.columns), "source"]
    lines = [
        [e.kind, e.protocol, *_about(e), *(shown_text(e.number(*column)) for column in table.columns), e.source]
        for e in [*table.entries, *table.reproduced]
    ]
    if form == "latex":
        return render(without_empty_columns([heading, *lines]), form)
    return render([heading, *lines], form, 2 + len(ABOUT))


def _column_title(column: tuple[str, str]) -> str:
    metric, split = column
    return f"{metric}, split not stated" if split == UNSTATED else f"{metric} {split}"


def reproduced_table(entries: Sequence[Entry]) -> str:
    """The authors' checkpoints: each claim, what was measured under the same protocol, and under `original`."""
    lines = [["checkpoint", "protocol", "split", "metric", "claimed", "measured", "difference", ORIGINAL]]
    for entry in entries:
        original = next((e for e in entries if (e.method, e.protocol) == (entry.method, ORIGINAL)), None)
        for (metric, split), claimed in entry.claims.items():
            found = entry.numbers[metric, split]
            other = original.number(metric, split) if original else None
            difference = f"{found.value - float(claimed):+.2f}"
            texts = [claimed, shown_text(found), difference, shown_text(other)]
            lines.append([entry.method, entry.protocol, split, metric, *texts])
    if len(lines) == 1:
        return ""
    return f"Reproduced, with the checkpoints that the authors have published:\n\n{markdown(lines, 4)}"


def without_empty_columns(grid: Grid) -> list[list[str]]:
    """The grid without the columns that are empty in every line."""
    kept = [i for i in range(len(grid[0])) if any(line[i] for line in grid[1:])]
    return [[line[i] for i in kept] for line in grid]


def _about(entry: Entry) -> list[str]:
    return [entry.method, entry.encoders, entry.training, entry.year]


def shown_text(found: Number | None) -> str:
    """A cell: the number, marked if the split was trained on."""
    return "" if found is None else found.text + (f" {LEAKED}" if found.leaked else "")


def linked_source(entry: Entry) -> str:
    """The source, as a link where its address is known."""
    if not entry.link:
        return entry.source
    name = re.sub(r"https?://(www\.)?(github\.com/)?", "", entry.source).rstrip("/")
    return f"[{name}]({entry.link})"


def _uncertainty(entries: Sequence[Entry], columns: Sequence[tuple[str, str]]) -> str:
    """How far the intervals of the numbers shown reach."""
    numbers = [number for entry in entries for column in columns if (number := entry.number(*column))]
    half = [(number.interval[1] - number.interval[0]) / 2 for number in numbers if number.interval]
    text = f"95 % intervals over images: ± {min(half):.1f} to {max(half):.1f}, each in accuracy.csv." if half else ""
    return text + (" ±: standard deviation over seeds." if any("±" in number.text for number in numbers) else "")


def origin(entries: Sequence[Entry]) -> str:
    """Commit and device of measured entries; each row of the CSV file has the full record."""
    commits = sorted({commit for entry in entries for commit in entry.facts["commit"].split(", ")})
    devices = sorted({entry.facts["device"] for entry in entries})
    return f"commit {', '.join(commits)} on {', '.join(devices)}"
