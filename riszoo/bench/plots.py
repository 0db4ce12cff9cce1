"""Plots as SVG, made from the CSV files: accuracy against cost, curves, histograms, mIoU by kind of sentence.

They are plain text of a few kilobytes, sharp at any size, and follow the reader's light or dark setting.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from riszoo.bench.rows import ACCURACY, SPEED, TYPES, Row, read
from riszoo.files import write_atomically

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 56
COLOURS = ("#2f6fde", "#d9480f", "#2b8a3e", "#9c36b5", "#b08900", "#0b7285", "#c2255c", "#5c5f66")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#3b3d42}.title{font-size:14px;font-weight:600;fill:#16171a}"
    ".grid{stroke:#d9dbe0;stroke-width:1}@media(prefers-color-scheme:dark){text{fill:#b4b8c0}.title{fill:#f1f2f4}"
    ".grid{stroke:#3a3d44}}"
)
Point = tuple[float, float]


@dataclass
class Axis:
    """From values to pixels; `log` for values that span decades."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], first: float, last: float, log: bool = False, zero: bool = False) -> Axis:
        found = list(values) or [0.0, 1.0]
        low, high = (0.0 if zero else min(found)), max(found)
        if log:
            return cls(low / 1.4, high * 1.4, first, last, True)
        room = 0.08 * ((high - low) or abs(high) or 1.0)
        return cls(low if zero else low - room, high + room, first, last)

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.first + (at - low) / (high - low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """About five round numbers; on a logarithmic axis 1, 2 and 5 of each decade."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [m * 10.0**d for d in decades for m in (1, 2, 5) if self.low <= m * 10.0**d <= self.high]
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


@dataclass
class Plot:
    """A frame with axes, into which marks are drawn."""

    title: str
    x: Axis
    y: Axis
    marks: list[str] = field(default_factory=list)

    def svg(self, x_label: str, y_label: str, x_ticks: bool = True) -> str:
        parts = [f'<text class="title" x="{LEFT}" y="20">{escape(self.title)}</text>']
        for value in self.y.ticks():
            at = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(_text(LEFT - 6, at + 4, f"{value:g}", "end"))
        for value in self.x.ticks() if x_ticks else []:
            parts.append(_text(self.x(value), HEIGHT - BOTTOM + 18, f"{value:g}", "middle"))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text text-anchor="middle" transform="translate(14 {middle:.0f}) rotate(-90)">{escape(y_label)}</text>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(self.title)}"><style>{STYLE}</style>{"".join(parts)}{"".join(self.marks)}</svg>\n'
        )

    def legend(self, names: Sequence[str]) -> None:
        x = float(LEFT + 8)
        for place, name in enumerate(names):
            self.marks.append(f'<rect x="{x:.0f}" y="{TOP - 4}" width="10" height="10" fill="{_colour(place)}"/>')
            self.marks.append(_text(x + 14, TOP + 5, name))
            x += 30 + 6.6 * len(name)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _frame(title: str, xs: Iterable[float], ys: Iterable[float], log_x: bool = False, zero: bool = False) -> Plot:
    across = Axis.over(xs, LEFT, WIDTH - RIGHT, log_x)
    return Plot(title, across, Axis.over(ys, HEIGHT - BOTTOM, TOP + 12, zero=zero))


def scatter(title: str, points: Mapping[str, Point], x_label: str, y_label: str) -> str:
    """Named points over a logarithmic cost."""
    plot = _frame(title, (x for x, _ in points.values()), (y for _, y in points.values()), log_x=True)
    for place, (name, (x, y)) in enumerate(points.items()):
        across, up = plot.x(x), plot.y(y)
        plot.marks.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="6" fill="{_colour(place)}"/>')
        far = across > WIDTH * 0.7
        plot.marks.append(_text(across + (-10 if far else 10), up + 4, name, "end" if far else "start"))
    return plot.svg(x_label, y_label)


def curves(title: str, series: Mapping[str, Sequence[Point]], x_label: str, y_label: str) -> str:
    """One line a name."""
    points = [point for line in series.values() for point in line]
    plot = _frame(title, (x for x, _ in points), (y for _, y in points))
    for place, line in enumerate(series.values()):
        path = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in line)
        plot.marks.append(f'<polyline points="{path}" fill="none" stroke="{_colour(place)}" stroke-width="2"/>')
        if len(line) <= 40:
            plot.marks += [f'<circle cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="3" fill="{_colour(place)}"/>'
                           for x, y in line]  # fmt: skip
    plot.legend(list(series))
    return plot.svg(x_label, y_label)


def bars(title: str, groups: Mapping[str, Mapping[str, float]], y_label: str, x_label: str = "") -> str:
    """Bars of several names side by side in each group; the names are those of the first group on."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    plot = _frame(title, [0, len(groups)], [v for group in groups.values() for v in group.values()], zero=True)
    plot.x = Axis(0, max(1, len(groups)), LEFT, WIDTH - RIGHT)
    width = 0.8 / max(1, len(names)) * (plot.x(1) - plot.x(0))
    for place, (title_, group) in enumerate(groups.items()):
        for name, value in group.items():
            left = plot.x(place + 0.1) + names.index(name) * width
            top, bottom = plot.y(value), plot.y(0)
            plot.marks.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}" '
                              f'fill="{_colour(names.index(name))}"/>')  # fmt: skip
        plot.marks.append(
            _text(
                plot.x(place + 0.5),
                HEIGHT - BOTTOM + (16 if len("".join(groups)) < 50 or place % 2 == 0 else 30),
                title_,
                "middle",
            )
        )
    plot.legend(names)
    return plot.svg(x_label, y_label, x_ticks=False)


def histogram(title: str, values: Mapping[str, Sequence[float]], bins: int = 10) -> str:
    """Shares of IoUs (0..1) in equal bins, in percent."""
    groups: dict[str, dict[str, float]] = {}
    for k in range(bins):
        shares = {name: [min(bins - 1, int(v * bins)) == k for v in found] for name, found in values.items()}
        groups[f"{100 * k // bins}"] = {name: 100 * sum(hit) / max(1, len(hit)) for name, hit in shares.items()}
    return bars(title, groups, "share of sentences, %", f"IoU, from ... (steps of {100 // bins})")


# -- the plots of a folder of CSV files -------------------------------------------------------------------------------


def write_plots(folder: Path, write: bool = True) -> list[Path]:
    """Every plot that the rows allow, into `plots/`; gives back those that change."""
    changed = []
    for name, svg in sorted(all_plots(folder).items()):
        path = folder / "plots" / f"{name}.svg"
        if not path.is_file() or path.read_text() != svg:
            changed.append(path)
            if write:
                write_atomically(path, svg)
    return changed


def all_plots(folder: Path) -> dict[str, str]:
    accuracy = [row for row in read(folder / ACCURACY.file) if _plain(row)]
    speed = [row for row in read(folder / SPEED.file) if not row["variant"]]
    types = [row for row in read(folder / TYPES.file) if _plain(row)]
    found: dict[str, str] = {}
    for data in dict.fromkeys(row["data"] for row in accuracy):
        reached = _means([row for row in accuracy if row["data"] == data and row["split"] == "val"])
        for column, label in (("gflop_1_sentence", "GFLOP"), ("ms_1_sentence", "ms")):
            points = {name: (float(row[column]), reached[name]) for row in speed if row["data"] == data
                      for name in [_name(row)] if name in reached}  # fmt: skip
            if points:
                title = f"{data} val: mIoU against {label}, one image and one sentence"
                found[f"{data}-{label.lower()}"] = scatter(title, points, f"{label} (logarithmic)", "mIoU")
        found |= _by_type(data, [row for row in types if row["data"] == data])
    return found


def _plain(row: Row) -> bool:
    return not row["variant"] and row["protocol"] == "original" and row.get("control", "none") == "none"


def _name(row: Row) -> str:
    return f"{row['model']} ({row['scale']})"


def _means(rows: Sequence[Row], key: Callable[[Row], str] = _name) -> dict[str, float]:
    """mIoU over seeds."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["mIoU"]:
            values[key(row)].append(float(row["mIoU"]))
    return {name: statistics.fmean(found) for name, found in values.items()}


def _by_type(data: str, rows: Sequence[Row]) -> dict[str, str]:
    rows = [row for row in rows if row["split"] == "val" and row["mIoU"]]
    groups = {
        kind: _means([row for row in rows if row["type"] == kind]) for kind in dict.fromkeys(r["type"] for r in rows)
    }
    return {f"{data}-types": bars(f"{data} val: mIoU by kind of sentence", groups, "mIoU")} if groups else {}
