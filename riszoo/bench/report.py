"""`riszoo report RUN...`: tests side by side in one HTML file that needs no network: table, plots, gallery."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from riszoo.bench.evaluated import EvaluatedRun, find_runs, sentence_ious
from riszoo.bench.gallery import gallery
from riszoo.bench.plots import Bars, Curves, Plot, Scatter, all_plots, histogram
from riszoo.bench.rows import circumstances
from riszoo.errors import UserError
from riszoo.files import write_atomically

METRICS = ("oIoU", "mIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")
COLUMNS = ("model", "split", *METRICS, "sentences", "protocol", "weights", "commit", "device")


def write_report(
    folders: Sequence[Path],
    out: Path,
    splits: list[str] | None = None,
    count: int = 36,
    benchmarks: Path = Path("benchmarks"),
) -> None:
    """Writes the page about these tests, with about `count` sentences in its gallery."""
    found = find_runs(folders)
    splits = _common_splits(found, splits)
    environment = Environment(
        loader=PackageLoader("riszoo.bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        models=[run.name for run in found],
        columns=COLUMNS,
        table=[_row(run, split) for split in splits for run in found],
        plots=[(plot.title, _data_url(plot.svg())) for plot in _plots(found, splits, benchmarks)],
        gallery=gallery(found, splits, count),
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


def _row(run: EvaluatedRun, split: str) -> dict[str, Any]:
    """One line of the table: a run's numbers on a split under its first protocol, and their origin."""
    entry, origin = run.metrics(split), circumstances(run.folder)
    protocol, result = next(iter(entry["protocols"].items()))
    weights = str((origin["checkpoint"] or {}).get("sha256") or "-")[:12]
    return {
        "model": run.name,
        "split": split,
        "trained_on": origin.get("images_trained_on", {}).get(entry["split"], 0),
        "numbers": [_number(result, metric) for metric in METRICS],
        "facts": [f"{entry['sentences']:,}", protocol, weights, origin["commit"], origin["device"]],
    }


def _number(result: Any, metric: str) -> dict[str, str]:
    value, interval = result["values"].get(metric), result["intervals"].get(metric)
    return {
        "value": "-" if value is None else f"{value:.2f}",
        "interval": f"{interval[0]:.1f} to {interval[1]:.1f}" if value is not None and interval else "",
    }


def _plots(found: Sequence[EvaluatedRun], splits: Sequence[str], benchmarks: Path) -> list[Plot]:
    plots: list[Plot] = []
    for column, title, label in (
        ("val/mIoU", "Learning curves", "mIoU on val during training"),
        ("loss", "Training loss", "loss"),
    ):
        series = {run.name: curve for run in found if (curve := run.curve(column))}
        if series:
            plots.append(Curves(title, "optimiser step", label, series))
    for split in splits:
        plots.append(
            histogram(
                f"IoU of the sentences of {split}", {run.name: sentence_ious(run.evaluation(split)) for run in found}
            )
        )
        if groups := _by_type(found, split):
            plots.append(Bars(f"mIoU by kind of sentence, {split}", "", "mIoU", groups))
    return plots + [plot for plot in all_plots(benchmarks).values() if isinstance(plot, Scatter)]


def _by_type(found: Sequence[EvaluatedRun], split: str) -> dict[str, dict[str, float]]:
    groups: dict[str, dict[str, float]] = {}
    for run in found:
        result = next(iter(run.metrics(split)["protocols"].values()))
        for kind, values in result["by_type"].items():
            if values["mIoU"] is not None:
                groups.setdefault(kind, {})[run.name] = float(values["mIoU"])
    return groups


def _data_url(svg: str) -> str:
    """An image of its own, so that its colours follow the reader's setting and its style stays inside."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")
