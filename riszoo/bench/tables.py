"""`riszoo tables`: the Markdown tables of benchmarks/README.md and of the README, generated from the CSV files.

A page says `<!-- table:refcoco -->` ... `<!-- /table:refcoco -->`; the text between the markers is replaced. Names are
those of data sets, `speed` and `ablations`. Claimed and measured numbers have separate columns.
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
DEFAULT_METRICS = ("mIoU", "oIoU", "Pr@0.5")
CONTROLS = {
    "none": "own sentence",
    "shuffled": "sentence of another image",
    "blank": "empty sentence",
}
DASH = "-"
LEAKED = "⚠"
ORIGINAL = "original"
SETTING = ("scale", "trained", "protocol")
Setting = tuple[str, ...]
"""How a line was measured: the values of the columns `SETTING`."""
UNMEASURED: Setting = ("", "", "")


def render_pages(folder: Path, write: bool = True) -> list[Path]:
    """The pages whose tables changed: the folder's README.md and the README.md of its parent folder."""
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
    """The content of a folder's CSV files and footnotes."""

    accuracy: list[Row] = field(default_factory=list)
    speed: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    footnotes: dict[str, str] = field(default_factory=dict)  # by model

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
        """The table with the name of its markers."""
        if name == "speed":
            return "\n" + _speed_table(self.speed)
        if name == "ablations":
            names = recipes.names("ablations")
            return "\n" + "\n".join(_ablation_tables(self.accuracy, one) for one in names)
        return "\n" + DataTable(self, recipes.get("data", name)).render()


@dataclass
class DataTable:
    """One data set: a table per metric with a row per model and columns for each split, then language gap and cost."""

    results: Results
    data: recipes.Recipe

    def __post_init__(self) -> None:
        plain = [row for row in self.results.accuracy if row["data"] == self.data.name and not row["variant"]]
        self.measured = [row for row in plain if row["control"] == "none"]
        self.controls = [row for row in plain if row["control"] != "none"]
        self.claimed = [claim for claim in self.results.claims if claim.data == self.data.name]
        self.splits: list[str] = self.data.content["common"]["data"]["test_splits"]
        self.models = recipes.names("models")
        self.notes: dict[str, str] = {}  # footnote -> its number

    def render(self) -> str:
        metrics = METRICS.get(self.data.name, DEFAULT_METRICS)
        parts = [part for metric in metrics for part in (f"**{metric}**", self._metric_table(metric))]
        if self.controls:
            parts += ["**Language gap** (mIoU on val)", self._language_table()]
        if self.measured:
            parts += ["**Training cost**", self._training_table()]
        parts.append(" ".join(filter(None, self._legend())))
        if self.notes:
            parts.append("<br>\n".join(f"<sup>{number}</sup> {note}" for note, number in self.notes.items()))
        return "\n\n".join(parts) + "\n"

    # -- tables -------------------------------------------------------------------------------------------------------

    def _metric_table(self, metric: str) -> str:
        columns = [f"{split} {kind}" for split in self.splits for kind in ("claimed", "measured")]
        lines = [["model", *(columns if self.claimed else self.splits)]]
        for name in self.models:
            (setting, rows), *others = self._settings(name).items()
            for claim in self._claims(name, metric) or [None]:
                label = self._claim_label(self._model_label(name), claim) + self._describe(setting)
                lines.append([label, *self._cells(metric, claim, rows)])
                setting, rows = UNMEASURED, []  # the measured numbers stand once, beside the first claim
            for setting, rows in others:
                lines.append([f"**{name}**{self._describe(setting)}", *self._cells(metric, None, rows)])
        for claim in self.claimed:
            if claim.method.lower() not in self.models and claim.has(metric, self.splits):
                lines.append([self._claim_label(claim.method, claim), *self._cells(metric, claim, [])])
        return markdown(lines)

    def _cells(self, metric: str, claim: Claim | None, rows: list[Row]) -> list[str]:
        cells = []
        for split in self.splits:
            if self.claimed:
                cells.append(claim.value(metric, split) if claim else DASH)
            cells.append(measured_cell([row for row in rows if row["split"] == split], metric))
        return cells

    def _language_table(self) -> str:
        lines = [["model", *CONTROLS.values(), "language gap"]]
        for name in self.models:
            for setting in [setting for setting in self._settings(name) if setting[-1] == ORIGINAL] or [UNMEASURED]:
                own, shuffled, blank = (self._val_miou(name, setting, control) for control in CONTROLS)
                gap = None if own is None or shuffled is None else own - shuffled
                cells = (DASH if value is None else f"{value:.2f}" for value in (own, shuffled, blank, gap))
                lines.append([f"**{name}**{self._describe(setting)}", *cells])
        return markdown(lines)

    def _val_miou(self, name: str, setting: Setting, control: str) -> float | None:
        """Mean over seeds."""
        wanted = (name, "val", control, *setting)
        rows = [
            row
            for row in self.measured + self.controls
            if tuple(row[column] for column in ("model", "split", "control", *SETTING)) == wanted
        ]
        return _mean(rows, "mIoU")

    def _training_table(self) -> str:
        lines = [["model", "sentences", "minutes", "seeds", "device"]]
        for name in self.models:
            for setting, rows in self._settings(name).items():
                if rows and setting[-1] == ORIGINAL:
                    lines.append([f"**{name}**{self._describe(setting)}", *training_cells(rows)])
        return markdown(lines)

    # -- lines and labels ---------------------------------------------------------------------------------------------

    def _settings(self, name: str) -> dict[Setting, list[Row]]:
        """A model's rows by setting, the default one first; an empty list if nothing is measured."""
        found: dict[Setting, list[Row]] = {}
        for row in self.measured:
            if row["model"] == name:
                found.setdefault(tuple(row[column] for column in SETTING), []).append(row)
        default = (recipes.default_scale(self.data.name), self.data.name, ORIGINAL)
        return dict(sorted(found.items(), key=lambda item: (item[0] != default, item[0]))) or {UNMEASURED: []}

    def _describe(self, setting: Setting) -> str:
        """What differs from the data set's default setting."""
        scale, trained, protocol = setting
        differences = [f"scale {scale}"] * (scale not in ("", recipes.default_scale(self.data.name)))
        differences += [f"trained on {trained}"] * (trained not in ("", self.data.name))
        differences += [f"protocol {protocol}"] * (protocol not in ("", ORIGINAL))
        return f" ({', '.join(differences)})" if differences else ""

    def _claims(self, name: str, metric: str) -> list[Claim | None]:
        """One claim for each setting that a model's paper reports."""
        return [claim for claim in self.claimed if claim.method.lower() == name and claim.has(metric, self.splits)]

    def _model_label(self, name: str) -> str:
        note = self.results.footnotes.get(name)
        return f"**{name}**" + (self._note(" ".join(note.split())) if note and self.claimed else "")

    def _claim_label(self, name: str, claim: Claim | None) -> str:
        if claim is None:
            return name
        return name + (f" ({claim.backbone})" if claim.backbone else "") + self._note(claim.about)

    def _note(self, text: str) -> str:
        self.notes.setdefault(text, str(len(self.notes) + 1))
        return f" <sup>{self.notes[text]}</sup>"

    def _legend(self) -> list[str]:
        protocols = sorted({row["protocol"] for row in self.measured}) or [ORIGINAL]
        text = [
            f"Protocol: {', '.join(protocols)} (docs/protocols.md), on all sentences. Brackets: 95 % interval over "
            "images. ±: standard deviation over seeds."
        ]
        if any(int(row["images_trained_on"] or 0) for row in self.measured):
            text.append(f"{LEAKED}: the checkpoint was trained on images of this split, so the number is not fair.")
        missing = [name for name in self.models if name not in {row["model"] for row in self.measured}]
        if missing:
            command = f"riszoo bench --data {self.data.name} --models {','.join(missing)}"
            text.append(f"Measured `{DASH}`: not run yet; `{command}` measures it.")
        if self.claimed:
            text.append(f"Claimed `{DASH}`: no readable source gives the number under this metric.")
        return [*text, origin(self.measured)]


# -- cells ------------------------------------------------------------------------------------------------------------


def measured_cell(rows: Sequence[Row], metric: str) -> str:
    """One seed: the number and its interval. Several seeds: mean and standard deviation."""
    rows = [row for row in rows if row.get(metric)]
    if not rows:
        return DASH
    values = [float(row[metric]) for row in rows]
    leaked = f" {LEAKED}" if any(int(row["images_trained_on"] or 0) for row in rows) else ""
    if len(values) > 1:
        return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} ({len(values)} seeds){leaked}"
    low, high = (rows[0].get(f"{metric}_{end}", "") for end in ("low", "high"))
    interval = f" [{float(low):.1f}, {float(high):.1f}]" if low and high else ""
    return f"{values[0]:.2f}{interval}{leaked}"


def training_cells(rows: Sequence[Row]) -> list[str]:
    """Sentences and minutes of one training (the mean over seeds), the number of seeds, and the devices."""
    trainings = list({row["weights"]: row for row in rows}.values())
    sentences, seconds = (_mean(trainings, column) for column in ("training_sentences", "training_seconds"))
    return [
        DASH if sentences is None else f"{sentences:,.0f}",
        DASH if seconds is None else f"{seconds / 60:.1f}",
        str(len(trainings)),
        ", ".join(sorted({row["device"] for row in trainings})),
    ]


def _mean(rows: Sequence[Row], column: str) -> float | None:
    values = [float(row[column]) for row in rows if row[column]]
    return statistics.fmean(values) if values else None


def origin(rows: Sequence[Row]) -> str:
    """Commit, device and scale in one sentence; each row of the CSV file has the full record."""
    if not rows:
        return ""
    facts = {name: ", ".join(sorted({row[name] for row in rows})) for name in ("commit", "device", "scale")}
    return f"Measured at commit {facts['commit']} on {facts['device']}, scale {facts['scale']}."


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table; the first line is the heading, the first column is aligned left and the rest right."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + " --- |" + " ---: |" * (len(lines[0]) - 1), *rows[1:]])


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
    return f"{markdown(lines)}\n\n{legend}\n"


def _ablation_tables(rows: Sequence[Row], name: str) -> str:
    rows = [row for row in rows if row["control"] == "none" and row["protocol"] == ORIGINAL]
    parts = [f"**{name}**"]
    for table, content in ablations(name).items():
        measured = {variant: [row for row in rows if row["variant"] == f"{table}/{variant}"]
                    for variant in content["rows"]}  # fmt: skip
        legend = origin([row for found in measured.values() for row in found])
        legend = legend or f"Not measured yet: `riszoo bench --ablation {name}/{table}`."
        if content.get("claim"):
            legend = f"The paper's order, on its own data, best last: {', '.join(content['claim'])}. {legend}"
        parts += [_ablation_table(content.get("title", table), measured), legend]
    return "\n\n".join(parts) + "\n"


def _ablation_table(title: str, measured: dict[str, list[Row]]) -> str:
    """A line for each variant, with the numbers on each data set and split, and the length of its training."""
    columns = list(dict.fromkeys((row["data"], row["split"]) for rows in measured.values() for row in rows))
    heading = [f"{data} {split} {metric}" for data, split in columns for metric in ("mIoU", "oIoU")]
    lines = [[title, *heading, *(["training sentences"] if columns else [])]]
    for variant, rows in measured.items():
        cells = [
            measured_cell([row for row in rows if (row["data"], row["split"]) == column], metric)
            for column in columns
            for metric in ("mIoU", "oIoU")
        ]
        lines.append([variant, *cells, *(training_cells(rows)[:1] if columns else [])])
    return markdown(lines)
