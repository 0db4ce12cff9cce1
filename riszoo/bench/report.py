"""`riszoo report RUN...`: tests side by side in one HTML file that needs no network: table, plots, gallery."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.training import runs

if TYPE_CHECKING:
    from riszoo.bench.gallery import Run

COLUMNS = ("oIoU", "mIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")


def write_report(
    folders: Sequence[Path],
    out: Path,
    splits: list[str] | None = None,
    count: int = 36,
    benchmarks: Path = Path("benchmarks"),
) -> None:
    """The page about these tests."""
    from riszoo.bench.gallery import find_runs

    found = find_runs(folders)
    splits = _splits(found, splits)
    page = files("riszoo.bench").joinpath("report.html").read_text()
    parts = {
        "TITLE": escape(", ".join(run.name for run in found)),
        "TABLE": _table(found, splits),
        "PLOTS": "".join(_image(svg) for svg in _plots(found, splits, benchmarks)),
        "DATA": json.dumps(_gallery(found, splits, count), separators=(",", ":")).replace("<", "\\u003c"),
    }
    for name, content in parts.items():  # the sentences come last: what they say is never replaced
        page = page.replace(f"[[{name}]]", content)
    write_atomically(out, page)
    print(f"report: {out}, {len(page) / 1e6:.1f} MB, open it in a browser")


def _splits(found: Sequence[Run], wanted: list[str] | None) -> list[str]:
    common = [split for split in found[0].splits if all(split in run.splits for run in found)]
    unknown = [split for split in wanted or [] if split not in common]
    if unknown or not common:
        raise UserError(
            f"not every run measured split '{(unknown or ['any'])[0]}'; common are {', '.join(common) or 'none'}"
        )
    return wanted or common


# -- the table --------------------------------------------------------------------------------------------------------


def _table(found: Sequence[Run], splits: Sequence[str]) -> str:
    """One line a run and split, each with what made it."""
    lines = []
    for split in splits:
        for run in found:
            lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _line(run, split))}</tr>")
    headings = ["model", "split", *COLUMNS, "sentences", "protocol", "weights", "commit", "device"]
    top = "".join(f"<th>{heading}</th>" for heading in headings)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _line(run: Run, split: str) -> list[str]:
    from riszoo.bench.rows import circumstances
    from riszoo.metrics.results import read_metrics

    entry = read_metrics(run.folder)["splits"][split]
    protocol, result = next(iter(entry["protocols"].items()))
    made = circumstances(run.folder)
    numbers = [_number(result, column) for column in COLUMNS]
    weights = str((made["checkpoint"] or {}).get("sha256") or "-")[:12]
    seen = made.get("images_trained_on", {}).get(entry["split"], 0)
    name = escape(run.name) + (f" <abbr title='trained on {seen} images of this split'>⚠</abbr>" if seen else "")
    facts = [protocol, weights, str(made["commit"]), str(made["device"])]
    return [f"<b>{name}</b>", split, *numbers, f"{entry['sentences']:,}", *map(escape, facts)]


def _number(result: Any, column: str) -> str:
    value = result["values"].get(column)
    if value is None:
        return "-"
    interval = result["intervals"].get(column)
    return f"{value:.2f}" + (f" <small>{interval[0]:.1f} to {interval[1]:.1f}</small>" if interval else "")


# -- the plots --------------------------------------------------------------------------------------------------------


def _plots(found: Sequence[Run], splits: Sequence[str], benchmarks: Path) -> list[str]:
    from riszoo.bench import plots
    from riszoo.bench.gallery import values_of
    from riszoo.metrics.results import read_evaluation

    drawn = []
    for column, title, label in (
        ("val/mIoU", "Learning curves", "mIoU on val during training"),
        ("loss", "Training loss", "loss"),
    ):
        series = {run.name: curve for run in found if (curve := _curve(run, column))}
        if series:
            drawn.append(plots.curves(title, series, "optimiser step", label))
    for split in splits:
        ious = {run.name: values_of(read_evaluation(run.folder, split)) for run in found}
        drawn.append(plots.histogram(f"IoU of the sentences of {split}", ious))
        groups = _by_type(found, split)
        if groups:
            drawn.append(plots.bars(f"mIoU by kind of sentence, {split}", groups, "mIoU"))
    costs = plots.all_plots(benchmarks)
    return drawn + [svg for name, svg in costs.items() if name.endswith(("-gflop", "-ms"))]


def _curve(run: Run, column: str) -> list[tuple[float, float]]:
    """What was logged during training; the whole validation after it is left out, which sees other images."""
    from riszoo.bench.rows import read

    steps = (runs.card(run.folder.parent) or {}).get("training", {}).get("steps", float("inf"))
    points = [(float(row["step"]), row.get(column)) for row in read(run.folder.parent / "metrics.csv")]
    return [(step, float(value)) for step, value in points if value and step < steps]


def _by_type(found: Sequence[Run], split: str) -> dict[str, dict[str, float]]:
    from riszoo.metrics.results import read_metrics

    groups: dict[str, dict[str, float]] = {}
    for run in found:
        result = next(iter(read_metrics(run.folder)["splits"][split]["protocols"].values()))
        for kind, values in result["by_type"].items():
            if values["mIoU"] is not None:
                groups.setdefault(kind, {})[run.name] = float(values["mIoU"])
    return groups


def _image(svg: str) -> str:
    """As an image of its own, so that its colours follow the reader's setting and its style stays inside."""
    title = svg.partition('aria-label="')[2].partition('"')[0]
    code = base64.b64encode(svg.encode()).decode("ascii")
    return f'<img class="plot" alt="{title}" src="data:image/svg+xml;base64,{code}">'


# -- the gallery ------------------------------------------------------------------------------------------------------


def _gallery(found: Sequence[Run], splits: Sequence[str], count: int) -> dict[str, Any]:
    """Everything the page's script shows."""
    from riszoo.bench.gallery import choose, draw

    shown = []
    for split in splits:
        chosen = choose(found, split, max(1, count // len(splits)))
        drawn = draw(found, split, chosen)
        for one in chosen:
            images = drawn[one.sample.sentence_id]
            shown.append(
                {
                    "id": one.sample.sentence_id,
                    "split": split,
                    "text": one.sample.text,
                    "types": list(one.sample.tags),
                    "nothing": one.sample.no_target,
                    "why": one.reasons,
                    "iou": {name: round(100 * value, 1) for name, value in one.ious.items()},
                    "image": images.image,
                    "ground_truth": images.ground_truth,
                    "masks": images.masks,
                    "empty": images.empty,
                    "evidence": images.evidence,
                }
            )
    return {"models": [run.name for run in found], "splits": list(splits), "items": shown}
