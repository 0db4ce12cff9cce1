"""`riszoo report RUN...`: tests side by side in one HTML file that needs no network: table, plots, gallery."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riszoo.bench.html.environment import environment
from riszoo.bench.html.evaluated import EvaluatedRun, common_protocols, find_runs, sentence_ious
from riszoo.bench.html.gallery import gallery
from riszoo.bench.plots import Bars, Curves, Plot, histogram
from riszoo.bench.rows import circumstances
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.metrics.protocols import Protocol

METRICS = ("oIoU", "mIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")
COLUMNS = ("model", "split", *METRICS, "language gap", "sentences", "weights", "commit", "device")


def write_report(folders: Sequence[Path], out: Path, splits: list[str] | None = None, count: int = 36) -> None:
    """Writes the page about these tests, with about `count` sentences in its gallery."""
    found = find_runs(folders)
    splits = _common_splits(found, splits)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            models=[run.name for run in found],
            columns=COLUMNS,
            sections=[_section(found, splits, protocol) for protocol in common_protocols(found)],
            commands=[(run.name, circumstances(run.folder)["command"]) for run in found],
            curves=_images(_curves(found)),
            gallery=gallery(found, splits, count),
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


# -- the numbers of one protocol --------------------------------------------------------------------------------------


def _section(found: Sequence[EvaluatedRun], splits: Sequence[str], protocol: Protocol) -> dict[str, Any]:
    """The table and the plots of the runs that were measured under this protocol, and the names of the others."""
    measured = [run for run in found if protocol in run.protocols]
    return {
        "protocol": protocol.name,
        "others": [run.name for run in found if run not in measured],
        "table": [_row(run, split, protocol) for split in splits for run in measured],
        "plots": _images([plot for split in splits for plot in _plots(measured, split, protocol)]),
    }


def _row(run: EvaluatedRun, split: str, protocol: Protocol) -> dict[str, Any]:
    """One line of the table: a run's numbers on a split, and their origin."""
    entry, origin = run.metrics(split), circumstances(run.folder)
    result = entry["protocols"][protocol.name]
    weights = str((origin["checkpoint"] or {}).get("sha256") or "-")[:12]
    return {
        "model": run.name,
        "split": split,
        "trained_on": origin.get("images_trained_on", {}).get(entry["split"], 0),
        "numbers": [_number(result, metric) for metric in METRICS],
        "facts": [
            _language_gap(run, split, protocol),
            f"{entry['sentences']:,}",
            weights,
            origin["commit"],
            origin["device"],
        ],
    }


def _language_gap(run: EvaluatedRun, split: str, protocol: Protocol) -> str:
    """The mIoU that is lost with the sentences of other images, if the test measured that."""
    shuffled = run.control(split, "shuffled")
    if shuffled is None:
        return "-"
    own, other = (entry["protocols"][protocol.name]["values"]["mIoU"] for entry in (run.metrics(split), shuffled))
    return "-" if own is None or other is None else f"{own - other:.2f}"


def _number(result: Any, metric: str) -> dict[str, str]:
    value, interval = result["values"].get(metric), result["intervals"].get(metric)
    return {
        "value": "-" if value is None else f"{value:.2f}",
        "interval": f"{interval[0]:.1f} to {interval[1]:.1f}" if value is not None and interval else "",
    }


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
    """The distribution of IoUs on a split, and mIoU by kind of sentence where the sentences have one."""
    ious = {run.name: sentence_ious(run.evaluation(split), protocol) for run in measured}
    plots: list[Plot] = [histogram(f"IoU of the sentences of {split}", ious)]
    if groups := _by_type(measured, split, protocol):
        plots.append(Bars(f"mIoU by kind of sentence, {split}", "", "mIoU", groups))
    return plots


def _by_type(measured: Sequence[EvaluatedRun], split: str, protocol: Protocol) -> dict[str, dict[str, float]]:
    groups: dict[str, dict[str, float]] = {}
    for run in measured:
        for kind, values in run.metrics(split)["protocols"][protocol.name]["by_type"].items():
            if values["mIoU"] is not None:
                groups.setdefault(kind, {})[run.name] = float(values["mIoU"])
    return groups


def _images(plots: Sequence[Plot]) -> list[tuple[str, str]]:
    """Title and data URL: images of their own, so that their colours follow the reader's setting."""
    return [
        (plot.title, "data:image/svg+xml;base64," + base64.b64encode(plot.svg().encode()).decode("ascii"))
        for plot in plots
    ]
