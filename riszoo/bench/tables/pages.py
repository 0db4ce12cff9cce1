"""`riszoo tables`: the tables of benchmarks/README.md and of the README, generated from the CSV files.

A page says `<!-- table:refcoco -->` ... `<!-- /table:refcoco -->`; the text between the markers is replaced. Names are
those of data sets, `summary`, `speed` and `ablations`. Claimed and measured numbers have separate lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from riszoo import recipes
from riszoo.bench.plan import ablations
from riszoo.bench.rows import ACCURACY, SPEED, Row, read
from riszoo.bench.tables.entries import MEASURED, ORIGINAL, REPRODUCED, Entry, Number, mean, number, read_entries
from riszoo.bench.tables.formats import Grid, markdown, render
from riszoo.files import write_atomically

MARKED = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- /table:\2 -->)", re.DOTALL)
METRICS = {"grefcoco": ("cIoU", "gIoU", "N-acc")}
DEFAULT_METRICS = ("oIoU", "mIoU")
MARK, LEAKED = "◆", "⚠"
ABOUT = ("method", "encoders", "training", "year")


def render_pages(folder: Path, write: bool = True) -> list[Path]:
    """The pages whose tables changed: the folder's README.md and the README.md of its parent folder."""
    results, changed = Results.read(folder), []
    page = folder / "README.md"
    if write and not page.exists():
        write_atomically(page, _new_page(results))
    for path in (page, folder.resolve().parent / "README.md"):
        old = path.read_text() if path.is_file() else ""
        new = MARKED.sub(lambda found: f"{found[1]}\n{results.table(found[2])}\n{found[3]}", old)
        if new != old:
            changed.append(path)
            if write:
                write_atomically(path, new)
    return changed


def _new_page(results: Results) -> str:
    names = [*dict.fromkeys(entry.data for entry in results.entries if entry.kind == MEASURED), "speed"]
    return "# Benchmarks\n" + "".join(f"\n<!-- table:{name} -->\n<!-- /table:{name} -->\n" for name in names)


@dataclass
class Results:
    """The content of a folder's CSV files and footnotes."""

    entries: list[Entry] = field(default_factory=list)
    accuracy: list[Row] = field(default_factory=list)
    speed: list[Row] = field(default_factory=list)
    method_notes: dict[str, str] = field(default_factory=dict)
    source_notes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Results:
        file = folder / "footnotes.yaml"
        notes = recipes.read_yaml(file) if file.is_file() else {}
        return cls(
            read_entries(folder),
            read(folder / ACCURACY.file),
            read(folder / SPEED.file),
            notes.get("methods", {}),
            notes.get("sources", {}),
        )

    def table(self, name: str) -> str:
        """The Markdown with the name of its markers."""
        if name == "speed":
            return _speed_table(self.speed)
        if name == "ablations":
            return "\n".join(_ablation_tables(self.accuracy, one) for one in recipes.names("ablations"))
        if name == "summary":
            return _summary_table([entry for entry in self.entries if entry.data == "scenes"])
        return DataTable(self, recipes.get("data", name)).render()

    def formatted(self, data: str, form: str) -> str:
        """All lines of a data set in one of `FORMATS`, with columns for what the pages show by marks."""
        table = DataTable(self, recipes.get("data", data))
        heading = ["kind", "protocol", *ABOUT, *(f"{metric} {split}" for metric, split in table.columns), "source"]
        lines = [
            [e.kind, e.protocol, *_about(e), *(_text(e.number(*column)) for column in table.columns), e.source]
            for e in [*table.entries, *table.reproduced]
        ]
        return render([heading, *lines], form, 2 + len(ABOUT))


# -- one data set -----------------------------------------------------------------------------------------------------


class DataTable:
    """A line for each method, encoders and training, best first, with the columns that contain a number."""

    def __init__(self, results: Results, data: recipes.Recipe) -> None:
        self.results, self.data = results, data
        splits: list[str] = data.content["common"]["data"]["test_splits"]
        columns = [(metric, split) for metric in METRICS.get(data.name, DEFAULT_METRICS) for split in splits]
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
        parts += [" ".join(self._legend()), self._unmeasured(), reproduced_table(self.reproduced)]
        parts.append("<br>\n".join(f"<sup>{number}</sup> {note}" for note, number in self.notes.items()))
        return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"

    def _table(self, entries: Sequence[Entry]) -> str:
        columns = [column for column in self.columns if any(entry.number(*column) for entry in entries)]
        heading = [*ABOUT, *(f"{metric} {split}" for metric, split in columns), "source"]
        lines = [[*self._names(e), *(_text(e.number(*column)) for column in columns), _linked(e)] for e in entries]
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
            text.append(f"{LEAKED} the checkpoint was trained on images of this split, so the number is not fair.")
        return text

    def _unmeasured(self) -> str:
        """The models without a measured line that have the set's usual scale, and the command that measures them."""
        scale, done = recipes.default_scale(self.data.name), {entry.method for entry in self.measured}
        missing = [n for n in recipes.names("models") if n not in done and scale in recipes.scales(n, self.data.name)]
        if not missing:
            return ""
        names = ", ".join(f"`{name}`" for name in missing)
        return f"Not measured here: {names}; `riszoo bench --data {self.data.name} --models {','.join(missing)}`."


def reproduced_table(entries: Sequence[Entry]) -> str:
    """The authors' checkpoints: each claim, what was measured under the same protocol, and under `original`."""
    lines = [["checkpoint", "protocol", "split", "metric", "claimed", "measured", "difference", ORIGINAL]]
    for entry in entries:
        original = next((e for e in entries if (e.method, e.protocol) == (entry.method, ORIGINAL)), None)
        for (metric, split), claimed in entry.claims.items():
            found = entry.numbers[metric, split]
            other = original.number(metric, split) if original else None
            difference = f"{found.value - float(claimed):+.2f}"
            lines.append([entry.method, entry.protocol, split, metric, claimed, _text(found), difference, _text(other)])
    if len(lines) == 1:
        return ""
    return f"Reproduced, with the checkpoints that the authors have published:\n\n{markdown(lines, 4)}"


def without_empty_columns(grid: Grid) -> list[list[str]]:
    """The grid without the columns that are empty in every line."""
    kept = [i for i in range(len(grid[0])) if any(line[i] for line in grid[1:])]
    return [[line[i] for i in kept] for line in grid]


def _about(entry: Entry) -> list[str]:
    return [entry.method, entry.encoders, entry.training, entry.year]


def _text(found: Number | None) -> str:
    return "" if found is None else found.text + (f" {LEAKED}" if found.leaked else "")


def _linked(entry: Entry) -> str:
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
    commits, devices = (sorted({entry.facts[name] for entry in entries}) for name in ("commit", "device"))
    return f"commit {', '.join(commits)} on {', '.join(devices)}"


# -- the summary ------------------------------------------------------------------------------------------------------

SUMMARY_SPLITS = ("val", "testA", "testB", "unseen")


def _summary_table(entries: Sequence[Entry]) -> str:
    """The measured tiny models: paper, size, mIoU with intervals, language gap and training time."""
    shown = [e for e in entries if e.kind == MEASURED and (e.facts["scale"], e.protocol) == ("tiny", ORIGINAL)]
    shown.sort(key=lambda entry: entry.rank([("mIoU", split) for split in SUMMARY_SPLITS]))
    if not shown:
        return "Nothing is measured yet: `riszoo bench` measures every model.\n"
    heading = ["model", "paper", "parameters", *SUMMARY_SPLITS, "language gap", "minutes"]
    lines = [
        [
            f"**{entry.method}**",
            _paper(entry.method),
            entry.facts.get("parameters", ""),
            *(_with_interval(entry.number("mIoU", split)) for split in SUMMARY_SPLITS),
            entry.facts.get("language gap", ""),
            entry.facts.get("training minutes", ""),
        ]
        for entry in shown
    ]
    legend = (
        "mIoU under the protocol `original`, with 95 % intervals over images. Language gap: the mIoU lost on val "
        f"with the sentences of other images. Minutes: one training. Measured at {origin(shown)}."
    )
    return f"{markdown(without_empty_columns([heading, *lines]), 2)}\n{legend}\n"


def _paper(model: str) -> str:
    """A link to the paper that a recipe names."""
    recipe = recipes.find("models", model)
    reference = str(recipe.content.get("reference", "")) if recipe else ""
    found = re.match(r"arXiv (\d{4}\.\d{5})", reference)
    return f"[{found[0]}](https://arxiv.org/abs/{found[1]})" if found else reference


def _with_interval(found: Number | None) -> str:
    interval = f" [{found.interval[0]:.1f}, {found.interval[1]:.1f}]" if found and found.interval else ""
    return _text(found) + interval


# -- speed and ablations ----------------------------------------------------------------------------------------------


def _speed_table(rows: Sequence[Row]) -> str:
    if not rows:
        return "No speed is recorded yet: `riszoo bench` measures it.\n"
    lines = [["model", "scale", "device", "parameters", "trained", "GFLOP, 1 sentence", "GFLOP, 7", "ms, 1 sentence",
              "ms, 7", "training images/s", "peak memory, MiB"]]  # fmt: skip
    for row in rows:
        name = row["model"] + (f" ({row['variant']})" if row["variant"] else "")
        counts = [f"{int(row[key]):,}" for key in ("parameters", "trained_parameters")]
        costs = [f"{float(row[key]):.2f}" for key in ("gflop_1_sentence", "gflop_7_sentences")]
        times = [
            f"{float(row[key]):.1f} ± {float(row[f'{key}_spread']):.1f}" for key in ("ms_1_sentence", "ms_7_sentences")
        ]
        rest = [f"{float(row['train_images_per_s']):.1f}", f"{float(row['peak_memory_mib']):,.0f}"]
        lines.append([f"**{name}**", row["scale"], row["device"], *counts, *costs, *times, *rest])
    legend = (
        "One image, batch 1, after a warm-up: median ± interquartile range. Training: whole optimiser steps on data in "
        "memory. Memory: of the accelerator, or of the whole process on a CPU."
    )
    return f"{markdown(lines)}\n{legend}\n"


def _ablation_tables(rows: Sequence[Row], name: str) -> str:
    """The measured tables of one file, then the commands that measure the others."""
    rows = [row for row in rows if row["control"] == "none" and row["protocol"] == ORIGINAL and row["model"] == name]
    parts, commands = [f"**{name}**"], []
    for table, content in ablations(name).items():
        title = content.get("title", table)
        measured = {variant: [row for row in rows if row["variant"] == f"{table}/{variant}"]
                    for variant in content["rows"]}  # fmt: skip
        if not any(measured.values()):
            commands.append(f"- {title}: `riszoo bench --ablation {name}/{table}`")
            continue
        legend = _ablation_origin([row for found in measured.values() for row in found])
        if content.get("claim"):
            legend = f"The paper's order, on its own data, best last: {', '.join(content['claim'])}. {legend}"
        parts += [_ablation_table(title, measured), legend]
    if commands:
        parts += ["Not measured yet:", "\n".join(commands)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _ablation_origin(rows: Sequence[Row]) -> str:
    commit, device, scale = (", ".join(sorted({row[name] for row in rows})) for name in ("commit", "device", "scale"))
    return f"Measured at commit {commit} on {device}, scale {scale}."


def _ablation_table(title: str, measured: dict[str, list[Row]]) -> str:
    """A line for each measured variant: its numbers on each data set and split, and the length of its training."""
    columns = list(dict.fromkeys((row["data"], row["split"]) for rows in measured.values() for row in rows))
    heading = [f"{data} {split} {metric}" for data, split in columns for metric in ("mIoU", "oIoU")]
    lines = [[title, *heading, "seeds", "training sentences"]]
    for variant, rows in measured.items():
        cells = [
            _text(number([row for row in rows if (row["data"], row["split"]) == column], metric))
            for column in columns
            for metric in ("mIoU", "oIoU")
        ]
        length = mean(rows, "training_sentences")
        seeds = str(len({row["seed"] for row in rows}))
        if rows:
            lines.append([variant, *cells, seeds, "" if length is None else f"{length:,.0f}"])
    return markdown(without_empty_columns(lines))
