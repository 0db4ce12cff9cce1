"""`riszoo report RUN...`: tests side by side in one HTML file that needs no network: table, plots, gallery."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riszoo.bench.html.environment import environment
from riszoo.bench.html.evaluated import EvaluatedRun, common_protocols, find_runs, sentence_ious
from riszoo.bench.html.gallery import gallery
from riszoo.bench.plots import Curves, Plot, by_type, histogram
from riszoo.bench.rows import circumstances
from riszoo.data.controls import CONTROLS
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.inference.evidence import read_evidence
from riszoo.metrics.protocols import Protocol
from riszoo.training import runs

METRICS = ("oIoU", "mIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")
GUESS = "perfect masks, guessed from appearance"
"""The line to beat by type: what words of appearance and a guess reach (riszoo/data/generated/guessing.py)."""
REPLACED = tuple(control for control in CONTROLS if control != "none")


def write_report(folders: Sequence[Path], out: Path, splits: list[str] | None = None, size: int = 24) -> None:
    """Writes the page about these tests, with about `size` sentences in its gallery."""
    found = find_runs(folders)
    splits = _common_splits(found, splits)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            runs=[_run(run) for run in found],
            metrics=METRICS,
            sections=[_section(found, splits, protocol) for protocol in common_protocols(found)],
            curves=_images(_curves(found)),
            gallery=gallery(found, splits, size),
            splits=splits,
            evidence=[row for run in found for row in _evidence(run, splits)],
        )
    )
    write_atomically(out, page)
    print(f"report: {out}, {len(page) / 1e6:.1f} MB, open it in a browser")


def _common_splits(found: Sequence[EvaluatedRun], wanted: list[str] | None) -> list[str]:
    common = [split for split in found[0].splits if all(split in run.splits for run in found)]
    unknown = [split for split in wanted or [] if split not in common]
    if unknown or not common:
        raise UserError(
            f"not every run measured split '{(unknown or ['any'])[0]}'; common are {', '.join(common) or 'none'}"
        )
    return wanted or common


def _run(run: EvaluatedRun) -> dict[str, Any]:
    """Name and circumstances of a run, without those that its files do not state."""
    origin, card = circumstances(run.folder), runs.card(run.folder.parent) or {}
    training = card.get("training", {})
    facts = {
        "results": str(run.folder),
        "measured": _date(origin.get("started")),
        "trained": _date(card.get("started")),
        "training": training and f"{training['sentences']:,} sentences in {training['seconds'] / 60:.1f} minutes",
        "weights": str((origin.get("checkpoint") or {}).get("sha256") or "")[:12],
        "commit": origin.get("commit"),
        "device": origin.get("device"),
    }
    commands = {"command": origin.get("command"), "training command": card.get("command")}
    return {
        "name": run.name,
        "facts": {name: value for name, value in facts.items() if value},
        "commands": {name: value for name, value in commands.items() if value},
    }


def _date(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


# -- the numbers of one protocol --------------------------------------------------------------------------------------


def _section(found: Sequence[EvaluatedRun], splits: Sequence[str], protocol: Protocol) -> dict[str, Any]:
    """The tables and the plots of the runs that were measured under this protocol, and the names of the others."""
    measured = [run for run in found if protocol in run.protocols]
    controls = [_controls(run, split, protocol) for split in splits for run in measured]
    names = [name for name in REPLACED if any(row["numbers"].get(name) for row in controls)]
    return {
        "protocol": protocol.name,
        "others": [run.name for run in found if run not in measured],
        "table": [_row(run, split, protocol) for split in splits for run in measured],
        "control_names": names,
        "controls": [row for row in controls if row["numbers"]] if names else [],
        "plots": _images([plot for split in splits for plot in _plots(measured, split, protocol)]),
    }


def _row(run: EvaluatedRun, split: str, protocol: Protocol) -> dict[str, Any]:
    """One line of the table: a run's numbers on a split."""
    entry = run.metrics(split)
    result = entry["protocols"][protocol.name]
    return {
        "model": run.name,
        "split": split,
        "trained_on": circumstances(run.folder).get("images_trained_on", {}).get(entry["split"], 0),
        "numbers": [_number(result, metric) for metric in METRICS],
        "sentences": f"{entry['sentences']:,}",
    }


def _controls(run: EvaluatedRun, split: str, protocol: Protocol) -> dict[str, Any]:
    """mIoU with the split's own sentences, under each control that was measured, and what shuffling loses."""
    measured = {name: entry for name in REPLACED if (entry := run.control(split, name))}
    values = {name: _miou(entry, protocol) for name, entry in measured.items()}
    own, shuffled = _miou(run.metrics(split), protocol), values.get("shuffled")
    return {
        "model": run.name,
        "split": split,
        "own": _text(own),
        "numbers": {name: _text(value) for name, value in values.items()},
        "gap": _text(None if own is None or shuffled is None else own - shuffled),
    }


def _miou(entry: dict[str, Any], protocol: Protocol) -> float | None:
    value = entry["protocols"][protocol.name]["values"]["mIoU"]
    return None if value is None else float(value)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _number(result: Any, metric: str) -> dict[str, str]:
    value, interval = result["values"].get(metric), result["intervals"].get(metric)
    return {
        "value": _text(value),
        "interval": f"{interval[0]:.1f} to {interval[1]:.1f}" if value is not None and interval else "",
    }


def _evidence(run: EvaluatedRun, splits: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each measure of a run's evidence, with a number for each split."""
    found = [read_evidence(run.folder, split)["evidence"].get("all", {}) for split in splits]
    measures = dict.fromkeys(measure for values in found for measure in values if measure != "chance")
    return [
        {"model": run.name, "measure": measure, "numbers": [_measured(values, measure) for values in found]}
        for measure in measures
    ]


def _measured(values: dict[str, float], measure: str) -> dict[str, str]:
    """A measure on one split; beside pointing, what a random point reaches."""
    chance = f"chance {values['chance']:.1f}" if measure.startswith("pointing") and measure in values else ""
    return {"value": f"{values[measure]:.1f}" if measure in values else "-", "chance": chance}


# -- plots ------------------------------------------------------------------------------------------------------------


def _curves(found: Sequence[EvaluatedRun]) -> list[Plot]:
    plots: list[Plot] = []
    for column, title, label in (
        ("val/mIoU", "Learning curves", "mIoU on val during training"),
        ("loss", "Training loss", "loss"),
    ):
        series = {run.name: curve for run in found if (curve := run.curve(column))}
        if series:
            plots.append(Curves(title, "optimiser step", label, series))
    return plots


def _plots(measured: Sequence[EvaluatedRun], split: str, protocol: Protocol) -> list[Plot]:
    """The distribution of IoUs on a split, and mIoU by type of sentence where the sentences have one."""
    ious = {run.name: sentence_ious(run.evaluation(split), protocol) for run in measured}
    plots: list[Plot] = [histogram(f"IoU of the sentences of {split}", ious)]
    if groups := _by_type(measured, split, protocol):
        plots.append(by_type(f"mIoU by type of sentence, {split}", groups))
    return plots


def _by_type(measured: Sequence[EvaluatedRun], split: str, protocol: Protocol) -> dict[str, dict[str, float]]:
    groups: dict[str, dict[str, float]] = {}
    for run in measured:
        for kind, values in run.metrics(split)["protocols"][protocol.name]["by_type"].items():
            if values["mIoU"] is not None:
                groups.setdefault(kind, {})[run.name] = float(values["mIoU"])
    guess = read_evidence(measured[0].folder, split)["guess"].get("by_type", {})
    for kind, group in groups.items():
        if kind in guess:
            group[GUESS] = guess[kind]
    return groups


def _images(plots: Sequence[Plot]) -> list[tuple[str, str]]:
    """Title and data URL: images of their own, so that their colours follow the reader's setting."""
    return [
        (plot.title, "data:image/svg+xml;base64," + base64.b64encode(plot.file()).decode("ascii")) for plot in plots
    ]
