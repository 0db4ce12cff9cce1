"""`riszoo tables`: the tables of benchmarks/ and of the README, drawn from the CSV files between their markers.

A page says `<!-- table:refcoco -->` ... `<!-- /table:refcoco -->`; what lies between is replaced. Names are those of
data sets, `speed` and `ablations`. Claimed and measured numbers stand side by side and are never mixed.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from riszoo import recipes
from riszoo.bench.claims import Claim, claims
from riszoo.bench.plan import ablations
from riszoo.bench.rows import ACCURACY, SPEED, Row, read
from riszoo.files import write_atomically

MARKED = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- /table:\2 -->)", re.DOTALL)
METRICS = {"grefcoco": ("gIoU", "cIoU", "N-acc")}
USUAL = ("mIoU", "oIoU", "Pr@0.5")
DASH = "-"
SEEN = "⚠"
FIRST = "original"
WAY = ("scale", "trained", "protocol")
Way = tuple[str, ...]
"""How a line was measured: the values of `WAY`."""
USUAL_WAY: Way = ("", "", "")


def render_pages(folder: Path, write: bool = True) -> list[Path]:
    """The pages whose tables changed: the folder's README.md and the one beside the folder."""
    results, changed = Results.read(folder), []
    page = folder / "README.md"
    if write and not page.exists():
        write_atomically(page, _new_page(results))
    for path in (page, folder.resolve().parent / "README.md"):
        old = path.read_text() if path.is_file() else ""
        new = MARKED.sub(lambda found: f"{found[1]}{results.table(found[2])}\n{found[3]}", old)
        if new != old:
            changed.append(path)
            if write:
                write_atomically(path, new)
    return changed


def _new_page(results: Results) -> str:
    names = [*dict.fromkeys(row["data"] for row in results.accuracy), "speed"]
    return "# Benchmarks\n" + "".join(f"\n<!-- table:{name} -->\n<!-- /table:{name} -->\n" for name in names)


@dataclass
class Results:
    """What the CSV files of a folder hold."""

    accuracy: list[Row] = field(default_factory=list)
    speed: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    footnotes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Results:
        notes = folder / "footnotes.yaml"
        return cls(
            read(folder / ACCURACY.file),
            read(folder / SPEED.file),
            claims(folder / "paper.csv"),
            recipes.read_yaml(notes) if notes.is_file() else {},
        )

    def table(self, name: str) -> str:
        """A page's table by the name in its markers."""
        if name == "speed":
            return "\n" + _speed_table(self.speed)
        if name == "ablations":
            names = recipes.names("ablations")
            return "\n" + "\n".join(_ablation_tables(self.accuracy, one) for one in names)
        return "\n" + DataTable(self, recipes.get("data", name)).render()


@dataclass
class DataTable:
    """One data set: a table for each metric, rows the models, columns the splits, claimed beside measured."""

    results: Results
    data: recipes.Recipe

    def __post_init__(self) -> None:
        everything = [row for row in self.results.accuracy if row["data"] == self.data.name and not row["variant"]]
        self.measured = [row for row in everything if row["control"] == "none"]
        self.controls = [row for row in everything if row["control"] != "none"]
        self.claimed = [claim for claim in self.results.claims if claim.data == self.data.name]
        self.splits: list[str] = self.data.content["common"]["data"]["test_splits"]
        self.notes: dict[str, str] = {}

    def render(self) -> str:
        metrics = METRICS.get(self.data.name, USUAL)
        parts = [part for metric in metrics for part in (f"**{metric}**", self._metric(metric))]
        if self.controls:
            parts += ["**Does it read the sentence?** (mIoU on val)", self._language()]
        if self.measured:
            parts += ["**What the training took**", self._training()]
        return "\n\n".join([*parts, *self._below()]) + "\n"

    def _metric(self, metric: str) -> str:
        kinds = ("claimed", "measured") if self.claimed else ("measured",)
        heading = ["model"] + [
            f"{split} {kind}" if len(kinds) > 1 else split for split in self.splits for kind in kinds
        ]
        lines = [heading]
        for name in recipes.names("models"):
            (way, rows), *others = self._ways(name).items()
            for label, claim in self._settings(name, metric):
                lines.append([label + self._about(way), *self._cells(metric, claim, rows, kinds)])
                way, rows = USUAL_WAY, []  # what is measured stands once, beside the first claim
            for way, rows in others:
                lines.append([f"**{name}**{self._about(way)}", *self._cells(metric, None, rows, kinds)])
        ours = set(recipes.names("models"))
        for claim in self.claimed:
            if claim.method.lower() not in ours and claim.has(metric, self.splits):
                lines.append([self._label(claim), *self._cells(metric, claim, [], kinds)])
        return markdown(lines)

    def _ways(self, name: str) -> dict[Way, list[Row]]:
        """A model's rows by scale, training set and protocol; an empty list where nothing is measured."""
        found: dict[Way, list[Row]] = {}
        for row in self.measured:
            if row["model"] == name:
                found.setdefault(tuple(row[column] for column in WAY), []).append(row)
        usual = (recipes.default_scale(self.data.name), self.data.name, FIRST)
        return dict(sorted(found.items(), key=lambda one: (one[0] != usual, one[0]))) or {USUAL_WAY: []}

    def _about(self, way: Way) -> str:
        """What is unusual about how a line was measured."""
        scale, trained, protocol = way
        unusual = [f"scale {scale}"] * (scale not in ("", recipes.default_scale(self.data.name)))
        unusual += [f"trained on {trained}"] * (trained not in ("", self.data.name))
        unusual += [f"protocol {protocol}"] * (protocol not in ("", FIRST))
        return f" ({', '.join(unusual)})" if unusual else ""

    def _settings(self, name: str, metric: str) -> list[tuple[str, Claim | None]]:
        """A model's lines: one for each setting its paper reports, at least one."""
        shown = [claim for claim in self.claimed if claim.method.lower() == name and claim.has(metric, self.splits)]
        return [(self._label(claim, name), claim) for claim in shown] or [(self._marked(name), None)]

    def _marked(self, name: str) -> str:
        note = self.results.footnotes.get(name)
        return f"**{name}**" + (self._note(" ".join(note.split())) if note and self.claimed else "")

    def _label(self, claim: Claim, name: str | None = None) -> str:
        known = f"{self._marked(name)}" if name else claim.method
        return (
            f"{known} ({claim.backbone})" * bool(claim.backbone)
            + known * (not claim.backbone)
            + self._note(claim.about)
        )

    def _note(self, text: str) -> str:
        self.notes.setdefault(text, str(len(self.notes) + 1))
        return f" <sup>{self.notes[text]}</sup>"

    def _cells(self, metric: str, claim: Claim | None, rows: list[Row], kinds: Sequence[str]) -> list[str]:
        cells = []
        for split in self.splits:
            found = {"claimed": claim.value(metric, split) if claim else DASH}
            found["measured"] = measured_cell([row for row in rows if row["split"] == split], metric)
            cells += [found[kind] for kind in kinds]
        return cells

    def _language(self) -> str:
        lines = [["model", "asked as written", "another image's sentence", "no sentence", "language gap"]]
        for name in recipes.names("models"):
            for way in [way for way in self._ways(name) if way[-1] == FIRST] or [USUAL_WAY]:
                asked = {c: self._control(name, way, c) for c in ("none", "shuffled", "blank")}
                gap = None if asked["none"] is None or asked["shuffled"] is None else asked["none"] - asked["shuffled"]
                values = [*asked.values(), gap]
                shown = (DASH if value is None else f"{value:.2f}" for value in values)
                lines.append([f"**{name}**{self._about(way)}", *shown])
        return markdown(lines)

    def _training(self) -> str:
        lines = [["model", "sentences", "minutes", "seeds", "device"]]
        for name in recipes.names("models"):
            for way, rows in self._ways(name).items():
                if rows and way[-1] == FIRST:
                    lines.append([f"**{name}**{self._about(way)}", *training_cells(rows)])
        return markdown(lines)

    def _control(self, name: str, way: Way, control: str) -> float | None:
        """Mean over seeds, on val."""
        rows = self.measured if control == "none" else [row for row in self.controls if row["control"] == control]
        wanted = (name, "val", *way)
        chosen = [row for row in rows if tuple(row[column] for column in ("model", "split", *WAY)) == wanted]
        return _mean(chosen, "mIoU")

    def _below(self) -> list[str]:
        protocols = sorted({row["protocol"] for row in self.measured}) or [FIRST]
        text = [
            f"Measured under protocol {', '.join(protocols)} (docs/protocols.md), every expression; in brackets the "
            "95 % interval over images, after ± the standard deviation over seeds."
        ]
        if any(int(row["images_trained_on"] or 0) for row in self.measured):
            text.append(f"{SEEN}: the checkpoint was trained on images of this split: no fair measure.")
        unmeasured = [n for n in recipes.names("models") if n not in {row["model"] for row in self.measured}]
        if unmeasured:
            command = f"riszoo bench --data {self.data.name} --models {','.join(unmeasured)}"
            text.append(f"`{DASH}` for measured: no run of {', '.join(unmeasured)} is recorded; `{command}` makes one.")
        if self.claimed:
            text.append(f"`{DASH}` for claimed: no source that could be read gives the number under this metric.")
        text.append(made_by(self.measured))
        notes = [f"<sup>{number}</sup> {note}" for note, number in self.notes.items()]
        return [" ".join(filter(None, text)), "<br>\n".join(notes)] if notes else [" ".join(filter(None, text))]


def measured_cell(rows: Sequence[Row], metric: str) -> str:
    """One seed: the number and its interval. Several: their mean and standard deviation."""
    rows = [row for row in rows if row.get(metric)]
    if not rows:
        return DASH
    values = [float(row[metric]) for row in rows]
    seen = f" {SEEN}" if any(int(row["images_trained_on"] or 0) for row in rows) else ""
    if len(values) > 1:
        return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} ({len(values)} seeds){seen}"
    low, high = (rows[0].get(f"{metric}_{end}", "") for end in ("low", "high"))
    interval = f" [{float(low):.1f}, {float(high):.1f}]" if low and high else ""
    return f"{values[0]:.2f}{interval}{seen}"


def training_cells(rows: Sequence[Row]) -> list[str]:
    """Sentences and minutes of one training (the mean over seeds), how many seeds, and where."""
    runs = list({row["weights"]: row for row in rows}.values())
    sentences, seconds = (_mean(runs, column) for column in ("training_sentences", "training_seconds"))
    return [
        DASH if sentences is None else f"{sentences:,.0f}",
        DASH if seconds is None else f"{seconds / 60:.1f}",
        str(len(runs)),
        ", ".join(sorted({row["device"] for row in runs})),
    ]


def _mean(rows: Sequence[Row], column: str) -> float | None:
    values = [float(row[column]) for row in rows if row[column]]
    return statistics.fmean(values) if values else None


def made_by(rows: Sequence[Row]) -> str:
    """What made the numbers, in one sentence; each row of the CSV file has it in full."""
    if not rows:
        return ""
    facts = {name: ", ".join(sorted({row[name] for row in rows})) for name in ("commit", "device", "scale")}
    return f"Made at commit {facts['commit']} on {facts['device']}, scale {facts['scale']}."


def _speed_table(rows: Sequence[Row]) -> str:
    lines = [["model", "scale", "device", "parameters", "trained", "GFLOP, 1 sentence", "GFLOP, 7", "ms, 1 sentence",
              "ms, 7", "training images/s", "peak memory, MiB"]]  # fmt: skip
    for row in rows:
        name = row["model"] + (f" ({row['variant']})" if row["variant"] else "")
        counts = [f"{int(row[key]):,}" for key in ("parameters", "trained_parameters")]
        costs = [f"{float(row[key]):.2f}" for key in ("gflop_1_sentence", "gflop_7_sentences")]
        waits = [
            f"{float(row[f'ms_{n}']):.1f} ± {float(row[f'ms_{n}_spread']):.1f}" for n in ("1_sentence", "7_sentences")
        ]
        rest = [f"{float(row['train_images_per_s']):.1f}", f"{float(row['peak_memory_mib']):,.0f}"]
        lines.append([f"**{name}**", row["scale"], row["device"], *counts, *costs, *waits, *rest])
    if len(lines) == 1:
        return "No speed is recorded yet: `riszoo bench` measures it.\n"
    how = (
        "One image, batch 1, after a warm-up: median ± distance of the quartiles. Training: whole optimiser steps on "
        "data at hand. Memory: of the accelerator, or of the whole process on a CPU."
    )
    return f"{markdown(lines)}\n\n{how}\n"


def _ablation_tables(rows: Sequence[Row], name: str) -> str:
    rows = [row for row in rows if row["control"] == "none" and row["protocol"] == FIRST]
    parts = [f"**{name}**"]
    for table, content in ablations(name).items():
        own = {row: [r for r in rows if r["variant"] == f"{table}/{row}"] for row in content["rows"]}
        made = made_by([r for found in own.values() for r in found])
        claim = f"The paper's order, on its own data, best last: {', '.join(content.get('claim', []))}."
        missing = f"Not measured yet: `riszoo bench --ablation {name}/{table}`."
        below = [claim] * bool(content.get("claim")) + [made or missing]
        parts += [_ablation_table(content.get("title", table), own), " ".join(below)]
    return "\n\n".join(parts) + "\n"


def _ablation_table(title: str, own: dict[str, list[Row]]) -> str:
    """What was measured of each row on each set and split, and the length of its training."""
    columns = list(dict.fromkeys((r["data"], r["split"]) for found in own.values() for r in found))
    heading = [f"{data} {split} {metric}" for data, split in columns for metric in ("mIoU", "oIoU")]
    lines = [[title, *heading, *["training sentences"] * bool(columns)]]
    for row, found in own.items():
        at = [[r for r in found if (r["data"], r["split"]) == column] for column in columns]
        cells = [measured_cell(here, metric) for here in at for metric in ("mIoU", "oIoU")]
        lines.append([row, *cells, *training_cells(found)[:1] * bool(columns)])
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the heading; the first column is aligned left, the rest right."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + " --- |" + " ---: |" * (len(lines[0]) - 1), *rows[1:]])
