"""The style of all plots: SVG without background, with text and grid for light and dark pages."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

COLOURS = ("#2f6fde", "#d9480f", "#2b8a3e", "#9c36b5", "#b08900", "#0b7285", "#c2255c", "#5c5f66")
MARKERS = "osD^vPX*"
TEXT, TITLE, GRID = "#3b3d42", "#16171a", "#d9dbe0"
DARK = {TEXT: "#b4b8c0", TITLE: "#f1f2f4", GRID: "#3a3d44"}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small files, readable by screen readers
    "svg.hashsalt": "riszoo",  # equal input gives equal files
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": TEXT,
    "axes.titlecolor": TITLE,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.prop_cycle": cycler(color=COLOURS),
    "figure.facecolor": "none",
    "grid.color": GRID,
    "legend.frameon": False,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "ytick.major.size": 0,
}


def svg(title: str, draw: Callable[[Axes], None], data: Any) -> str:
    """A figure drawn by `draw`; `data`, as JSON, is kept in the file's description."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        draw(axes)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=3)
        file = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Title": title, "Description": json.dumps(data)}
        figure.savefig(file, format="svg", metadata=metadata)
    return file.getvalue().replace("<defs>", f"<defs>\n  <style>{_dark_mode()}</style>", 1)


def _dark_mode() -> str:
    rules = (
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    return f"@media(prefers-color-scheme:dark){{{''.join(rules)}}}"
