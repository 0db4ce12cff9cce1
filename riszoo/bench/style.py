"""The style of all plots: one for light and one for dark pages, as SVG that follows the page or as PNG.

Series have a contrast of at least 3 with their ground, and any two differ by more than 10 in OKLab (x 100) for normal
sight and for protanopia, deuteranopia and tritanopia; tests compute both. Markers and dashes differ as well.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

Form = Literal["svg", "light png", "dark png"]
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
COLOURS = 8
"""Of a scheme's series."""
SIZE = (4.6, 3.3)
"""Inches. At this size the text of a plot is readable where a phone shows it 350 pixels wide."""
BAR = 0.055
"""Inches for each of the bars above each other, where they need a higher plot; the rest of it takes `MARGIN`."""
MARGIN = 1.5
TITLE = 46
"""Characters of a title that fit; a longer one is smaller."""


@dataclass(frozen=True)
class Scheme:
    ground: str
    text: str
    title: str
    grid: str
    series: tuple[str, ...]

    @property
    def colours(self) -> tuple[str, ...]:
        """Everything that is drawn on the ground."""
        return (self.text, self.title, self.grid, *self.series)


LIGHT = Scheme(
    ground="#ffffff",
    text="#3b3d42",
    title="#16171a",
    grid="#d9dbe0",
    series=("#1f5fd0", "#f95a0b", "#410b0b", "#903755", "#0697e0", "#030386", "#682503", "#140b41"),
)
DARK = Scheme(
    ground="#1b1d21",
    text="#b4b8c0",
    title="#f1f2f4",
    grid="#3a3d44",
    series=("#7aa7ff", "#fad729", "#e35f8b", "#a45404", "#a1defd", "#6060c3", "#fdfdbe", "#e3a15f"),
)


def render(form: Form, title: str, draw: Callable[[Axes], None], data: Any, bars: int = 0) -> bytes:
    """A figure drawn by `draw`, of `bars` above each other; `data`, as JSON, is kept in the file's description."""
    scheme = DARK if form == "dark png" else LIGHT
    with matplotlib.rc_context(_settings(scheme)):
        width, height = SIZE
        figure = Figure(figsize=(width, max(height, MARGIN + BAR * bars)), layout="constrained")
        axes = figure.add_subplot()
        fontsize = 11 * min(1, TITLE / max(1, len(title)))
        figure.suptitle(title, x=0.02, ha="left", fontsize=fontsize, fontweight="bold", color=scheme.title)
        draw(axes)
        _add_legend(figure, axes)
        file, about = io.BytesIO(), {"Title": title, "Description": json.dumps(data)}
        if form == "svg":
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None} | about)
            dark = f"<defs>\n  <style>{_dark_mode()}</style>".encode()
            return file.getvalue().replace(b"<defs>", dark, 1)
        figure.savefig(file, format="png", dpi=200, facecolor=scheme.ground, metadata={"Software": None} | about)
        return file.getvalue()


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Names below the axes, in as many columns as fit; none where there is only one."""
    names = axes.get_legend_handles_labels()[1]
    if len(names) > 1:
        columns = max(1, min(len(names), 46 // (6 + max(map(len, names)))))
        figure.legend(loc="outside lower center", ncols=columns)


def _settings(scheme: Scheme) -> Any:
    return {
        "svg.fonttype": "none",  # text stays text: small files, readable by screen readers
        "svg.hashsalt": "riszoo",  # equal input gives equal files
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.edgecolor": scheme.grid,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.labelcolor": scheme.text,
        "axes.prop_cycle": cycler(color=scheme.series),
        "figure.facecolor": "none",
        "grid.color": scheme.grid,
        "legend.frameon": False,
        "text.color": scheme.text,
        "xtick.color": scheme.text,
        "ytick.color": scheme.text,
        "ytick.major.size": 0,
    }


def _dark_mode() -> str:
    """Rules that replace each light colour by the dark one on dark pages."""
    rules = (
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in zip(LIGHT.colours, DARK.colours, strict=True)
        for part in ("fill", "stroke")
    )
    return f"@media(prefers-color-scheme:dark){{{''.join(rules)}}}"


def styled(styles: Sequence[str], index: int) -> str:
    """The marker or dash of a series; after each turn of the colours they shift, so that no combination repeats."""
    return styles[(index + index // COLOURS) % len(styles)]
