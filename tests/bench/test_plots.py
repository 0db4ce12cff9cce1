"""Plots: which ones the rows allow, and that a drawn file keeps the data it shows."""

from __future__ import annotations

import io
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from riszoo.bench import plots, rows, style
from riszoo.errors import UserError
from tests.support.colours import DEFICIENCIES, contrast, difference

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROW = {
    **{"data": "scenes", "model": "lts", "scale": "tiny", "trained": "scenes", "split": "val"},
    **{"protocol": "original", "control": "none"},
}


def test_the_committed_plots_show_the_committed_rows() -> None:
    assert plots.write_plots(BENCHMARKS, write=False) == [], "run `riszoo tables`"


def test_plots_are_drawn_for_measured_rows(tmp_path: Path) -> None:
    rows.upsert(tmp_path, rows.ACCURACY, [ROW | {"seed": seed, "mIoU": 40.0 + seed} for seed in range(3)])
    rows.upsert(tmp_path, rows.TYPES, [ROW | {"seed": 0, "type": kind, "mIoU": 40.0} for kind in ("place", "ordinal")])
    assert set(plots.all_plots(tmp_path)) == {"scenes-types"}, "without a speed, cost is not plotted"
    rows.upsert(tmp_path, rows.SPEED, [ROW | {"device": "cpu", "gflop_1_sentence": 0.3, "ms_1_sentence": 12.0}])
    found = plots.all_plots(tmp_path)
    assert set(found) == {"scenes-types", "scenes-gflop", "scenes-ms"}
    assert isinstance(found["scenes-ms"], plots.Scatter)
    assert found["scenes-ms"].points == {"lts (tiny)": (12.0, 41.0)}, "the mean over seeds"
    written = plots.write_plots(tmp_path)
    assert {path.name for path in written} == {f"{name}{end}" for name in found for end in plots.FILES}
    assert plots.write_plots(tmp_path) == [], "unchanged data is not drawn again"
    rows.upsert(tmp_path, rows.SPEED, [ROW | {"device": "cpu", "gflop_1_sentence": 0.3, "ms_1_sentence": 13.0}])
    stale = [path.name for path in plots.write_plots(tmp_path, write=False)]
    assert stale == ["scenes-ms.svg", "scenes-ms.png", "scenes-ms-dark.png"]


def test_a_long_title_is_not_cut(tmp_path: Path) -> None:
    """The text of the first rows ends before the edge, at which nothing but the ground is left."""
    drawn = plots.by_type("collage, photo-random, val: mIoU by type of sentence", {"lts": {"place": 40.0}})
    with Image.open(io.BytesIO(drawn.file("light png"))) as image:
        title = np.asarray(image.convert("L"))[: image.height // 10].astype(int)
    assert np.ptp(title) > 100
    assert np.ptp(title[:, -10:]) == 0


def test_a_cost_that_is_missing_is_named(tmp_path: Path) -> None:
    rows.upsert(tmp_path, rows.ACCURACY, [ROW | {"seed": 0, "mIoU": 40.0}])
    rows.upsert(tmp_path, rows.SPEED, [ROW | {"device": "cpu", "gflop_1_sentence": 0.3}])
    message = r"speed.csv: '' in the column ms_1_sentence of the row data scenes, model lts, .* is not a number"
    with pytest.raises(UserError, match=message):
        plots.all_plots(tmp_path)


def test_each_scale_has_a_plot_of_its_own(tmp_path: Path) -> None:
    places = [ROW | {"scale": scale, "type": "place", "mIoU": 40.0} for scale in ("tiny", "controlled")]
    rows.upsert(tmp_path, rows.ACCURACY, [ROW | {"mIoU": 40.0}])
    rows.upsert(tmp_path, rows.TYPES, places)
    found = plots.all_plots(tmp_path)
    assert set(found) == {"scenes-types", "scenes-types-controlled"}
    assert found["scenes-types"].groups == {"place": {"lts": 40.0}}
    assert found["scenes-types-controlled"].groups == {"place": {"lts": 40.0}}


def test_a_plot_of_many_bars_is_higher() -> None:
    def size(models: int) -> tuple[int, int]:
        plot = plots.by_type("a title", {f"type {k}": {f"m{i}": 10.0 for i in range(models)} for k in range(7)})
        with Image.open(io.BytesIO(plot.file("light png"))) as image:
            return image.size

    few, many = size(2), size(8)
    assert many[0] == few[0]
    assert many[1] > 1.3 * few[1]


ALL = [
    plots.Scatter("a scatter <b>", "x", "y", {"a<b&": (1.0, 2.0), "near": (1.1, 2.0)}),
    plots.Curves("a curve", "step", "loss", {"a": [(0.0, 1.0), (1.0, 0.5)]}),
    plots.Bars("bars", "", "mIoU", {"one": {"a": 3.0, "b": 4.0}, "two": {"b": 5.0}}),
    plots.by_type("types", {"relation": {"a": 3.0}, "superlative": {"a": 5.0}}),
]


@pytest.mark.parametrize("plot", ALL, ids=lambda plot: plot.title.split()[-1])
def test_a_drawn_plot_keeps_its_data_and_its_names(plot: plots.Plot, tmp_path: Path) -> None:
    for end, form in plots.FILES.items():
        file = tmp_path / f"plot{end}"
        file.write_bytes(plot.file(form))
        assert plots.stored_data(file) == plot.data()
        assert plot.file(form) == file.read_bytes(), "equal data gives equal files"
    drawing = tmp_path / "plot.svg"
    texts = {element.text for element in ElementTree.parse(drawing).iter() if element.tag.endswith("}text")}
    assert plot.title in texts
    assert {"a<b&", "near"} <= texts or not isinstance(plot, plots.Scatter)
    assert "prefers-color-scheme:dark" in drawing.read_text()


@pytest.mark.parametrize(("end", "scheme"), [(".png", style.LIGHT), ("-dark.png", style.DARK)], ids=["light", "dark"])
def test_an_image_has_the_colours_of_its_scheme(end: str, scheme: style.Scheme, tmp_path: Path) -> None:
    file = tmp_path / f"plot{end}"
    file.write_bytes(ALL[1].file(plots.FILES[end]))
    pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
    colours = {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.unique(pixels, axis=0).tolist()}
    assert {scheme.ground, scheme.series[0]} <= colours


def test_a_missing_or_foreign_file_has_no_data(tmp_path: Path) -> None:
    assert plots.stored_data(tmp_path / "missing.svg") is None
    for text in ("", "<svg/>", "no XML"):
        for name in ("foreign.svg", "foreign.png"):
            (tmp_path / name).write_text(text)
            assert plots.stored_data(tmp_path / name) is None


def test_a_histogram_counts_every_sentence_once() -> None:
    plot = plots.histogram("h", {"a": [0.0, 0.05, 0.5, 1.0]})
    heights = {group: values["a"] for group, values in plot.groups.items() if values["a"]}
    assert heights == {"0": 50.0, "50": 25.0, "90": 25.0}


@pytest.mark.parametrize("scheme", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_every_series_can_be_told_apart_by_the_colour_blind(scheme: style.Scheme) -> None:
    assert all(contrast(colour, scheme.ground) >= 3 for colour in scheme.series)
    assert all(contrast(colour, scheme.ground) >= 7 for colour in (scheme.text, scheme.title))
    for sight in DEFICIENCIES:
        closest = min(difference(a, b, sight) for a, b in combinations(scheme.series, 2))
        assert closest > 10, sight
    assert len(scheme.series) == style.COLOURS == len(style.MARKERS) == len(set(style.MARKERS))


def test_more_series_than_colours_can_be_told_apart() -> None:
    for styles in (style.MARKERS, style.DASHES):
        pairs = {(index % style.COLOURS, style.styled(styles, index)) for index in range(style.COLOURS * len(styles))}
        assert len(pairs) == style.COLOURS * len(styles)


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, riszoo.bench.plots, riszoo.bench.tables.pages; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
