"""The plots of benchmark and report: accuracy against cost, training curves, histograms, mIoU by type of sentence.

A plot is its data until `file()` draws it. A file keeps the data, so a plot is stale when its data differs from the
rows, whatever version of matplotlib drew it.
"""

from __future__ import annotations

import json
import statistics
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from riszoo import recipes
from riszoo.bench.rows import ACCURACY, SPEED, TYPES, Row, Table, number_in, of_one_device, pages_of
from riszoo.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from riszoo.bench.style import Form

Point = tuple[float, float]
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
FILES: dict[str, Form] = {".svg": "svg", ".png": "light png", "-dark.png": "dark png"}
"""The files of a plot by the end of their names."""


@dataclass(frozen=True)
class Plot(ABC):
    """Values and labels of one pair of axes."""

    title: str
    x_label: str
    y_label: str

    def file(self, form: Form = "svg") -> bytes:
        """The plot as the content of a file."""
        from riszoo.bench import style  # matplotlib is imported only where something is drawn

        def labelled(axes: Axes) -> None:
            axes.set_xlabel(self.x_label)
            axes.set_ylabel(self.y_label)
            self.draw(axes)

        return style.render(form, self.title, labelled, self.data(), self.bars())

    def data(self) -> Any:
        """Everything that the plot shows, as JSON values."""
        return json.loads(json.dumps(asdict(self)))

    def bars(self) -> int:
        """How many bars lie above each other."""
        return 0

    @abstractmethod
    def draw(self, axes: Axes) -> None: ...


@dataclass(frozen=True)
class Scatter(Plot):
    """One named point per model over a logarithmic cost; names stand in the legend and never collide."""

    points: Mapping[str, Point]

    def draw(self, axes: Axes) -> None:
        from matplotlib.ticker import LogLocator, MaxNLocator

        from riszoo.bench.style import MARKERS, styled

        for index, (name, (x, y)) in enumerate(self.points.items()):
            axes.plot([x], [y], styled(MARKERS, index), markersize=8, label=name)
        axes.set_xscale("log")
        axes.margins(0.15)
        costs = [x for x, _ in self.points.values()]
        several_decades = max(costs) > 10 * min(costs)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if several_decades else MaxNLocator(6))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()


@dataclass(frozen=True)
class Curves(Plot):
    """One line per name."""

    series: Mapping[str, Sequence[Point]]

    def draw(self, axes: Axes) -> None:
        from riszoo.bench.style import DASHES, MARKERS, styled

        for index, (name, points) in enumerate(self.series.items()):
            marker = styled(MARKERS, index) if len(points) <= 40 else ""
            axes.plot(*np.transpose(points), styled(DASHES, index), marker=marker, markersize=4, label=name)


@dataclass(frozen=True)
class Bars(Plot):
    """Groups of bars, one bar per name in each group; horizontal ones leave room for long names of groups."""

    groups: Mapping[str, Mapping[str, float]]  # group -> name -> height
    horizontal: bool = False

    def bars(self) -> int:
        return len(self.names) * len(self.groups) if self.horizontal else 0

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for group in self.groups.values() for name in group))

    def draw(self, axes: Axes) -> None:
        names = self.names
        width, positions = 0.8 / max(1, len(names)), np.arange(len(self.groups))
        for index, name in enumerate(names):
            lengths = [group.get(name, 0.0) for group in self.groups.values()]
            draw = axes.barh if self.horizontal else axes.bar
            draw(positions + (index + 0.5) * width - 0.4, lengths, width, label=name)
        if self.horizontal:
            axes.set_yticks(positions, list(self.groups))
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.grid(axis="x", visible=True)
        else:
            axes.set_xticks(positions, list(self.groups))


def by_type(title: str, groups: Mapping[str, Mapping[str, float]]) -> Bars:
    """mIoU of each model for each type of sentence."""
    return Bars(title, "mIoU", "", groups, horizontal=True)


def histogram(title: str, values: Mapping[str, Sequence[float]], bins: int = 10) -> Bars:
    """The percentage of IoUs (0..1) in each of equal bins."""
    groups: dict[str, dict[str, float]] = {f"{100 * k // bins}": {} for k in range(bins)}
    for name, found in values.items():
        counts, _ = np.histogram(found, bins, range=(0, 1))
        for group, count in zip(groups.values(), counts.tolist(), strict=True):
            group[name] = 100 * count / max(1, len(found))
    return Bars(title, f"IoU, bins of {100 // bins} named by their lower end", "% of sentences", groups)


# -- the plots of a folder of CSV files -------------------------------------------------------------------------------


def write_plots(folder: Path, write: bool = True) -> list[Path]:
    """Draws every plot that the rows allow into `plots/` beside the pages; returns the files whose data changed."""
    changed, plots = [], pages_of(folder) / "plots"
    for name, plot in sorted(all_plots(folder).items()):
        for end, form in FILES.items():
            path = plots / f"{name}{end}"
            if stored_data(path) != plot.data():
                changed.append(path)
                if write:
                    write_atomically(path, plot.file(form))
    return changed


def stored_data(path: Path) -> Any:
    """The data that a drawn file shows, or None if the file is missing or not one of ours."""
    try:
        return json.loads(_description(path))
    except (OSError, ElementTree.ParseError, StopIteration, KeyError, json.JSONDecodeError):
        return None


def _description(path: Path) -> str:
    if path.suffix == ".svg":
        return next(ElementTree.parse(path).iter(DESCRIPTION)).text or ""
    with Image.open(path) as image:
        return str(image.info["Description"])


def all_plots(folder: Path) -> dict[str, Plot]:
    """The plots of each data set by file name."""
    accuracy = [row for row in ACCURACY.read(folder) if _is_headline(row)]
    speed = [row for row in SPEED.read(folder) if not row["variant"]]
    types = [row for row in TYPES.read(folder) if _is_headline(row)]
    found: dict[str, Plot] = {}
    for data in dict.fromkeys(row["data"] for row in accuracy):
        own = [row for row in accuracy if row["data"] == row["trained"] == data and row["split"] == "val"]
        means = _mean_miou(own, ACCURACY)
        costs = [row for row in speed if row["data"] == data and _name(row) in means]
        for column, unit in (("gflop_1_sentence", "GFLOP"), ("ms_1_sentence", "ms")):
            rows = of_one_device(costs) if unit == "ms" else costs
            if rows:
                title = f"{data} val: mIoU against {unit}"
                points = {_name(row): (number_in(row, column, SPEED), means[_name(row)]) for row in rows}
                device = f" on {rows[0]['device']}" if unit == "ms" else ""
                found[f"{data}-{unit.lower()}"] = Scatter(
                    title, f"{unit}, one image and one sentence{device}", "mIoU", points
                )
        found |= _type_plots(data, [r for r in types if r["data"] == data and r["split"] == "val" and r["mIoU"]])
    return found


def _type_plots(data: str, types: Sequence[Row]) -> dict[str, Plot]:
    """A plot for each scale, because bars of all of them are too many; the usual scale's is named by the data alone."""
    scales = list(dict.fromkeys(row["scale"] for row in types))
    several = len(scales) > 1 and recipes.find("data", data) is not None
    usual = recipes.default_scale(data) if several else scales[0] if scales else ""
    found: dict[str, Plot] = {}
    for scale in scales:
        name, title = (f"{data}-types", data) if scale == usual else (f"{data}-types-{scale}", f"{data}, {scale},")
        groups = _by_type(row for row in types if row["scale"] == scale)
        found[name] = by_type(f"{title} val: mIoU by type of sentence", groups)
    return found


def _is_headline(row: Row) -> bool:
    return not row["variant"] and row["protocol"] == "original" and row.get("control", "none") == "none"


def _name(row: Row) -> str:
    return f"{row['model']} ({row['scale']})"


def _mean_miou(rows: Iterable[Row], table: Table, name: Callable[[Row], str] = _name) -> dict[str, float]:
    """Of each model over seeds."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["mIoU"]:
            values[name(row)].append(number_in(row, "mIoU", table))
    return {name: statistics.fmean(found) for name, found in values.items()}


def _by_type(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Type -> model -> mIoU of the rows of one scale."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["type"]].append(row)
    return {kind: _mean_miou(found, TYPES, _with_training) for kind, found in groups.items()}


def _with_training(row: Row) -> str:
    """The model, with the training set where it is not that of the test."""
    return row["model"] + (f" ({row['trained']})" if row["trained"] != row["data"] else "")
