"""The leaderboard: its numbers, and how the page behaves in a real browser without network."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest

from riszoo.bench.html.leaderboard import as_json
from riszoo.bench.rows import TYPES
from riszoo.bench.tables.entries import Entry, read_entries
from riszoo.cli.results.leaderboard import main
from riszoo.errors import UserError
from tests.support.accessibility import assert_accessible, assert_table_says_that_it_scrolls, focus_order
from tests.support.devtools import Tab, browser

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MEASURED = {"data": "scenes", "metric": "mIoU", "split": "val"}
CHOSEN = {"data": "refcoco+", "metric": "mIoU", "split": "testB", "training": "single"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "leaderboard.html"
    assert main(["--benchmarks", str(BENCHMARKS), "--out", str(out)]) == 0
    return out


def expected(data: str, metric: str, split: str, training: str) -> list[Entry]:
    """The entries of a choice, best first."""
    found = [
        e for e in read_entries(BENCHMARKS) if (e.data, e.training) == (data, training) and e.number(metric, split)
    ]
    return sorted(found, key=lambda entry: entry.rank([(metric, split)]))


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_page_needs_no_other_file_and_is_small(page: Path) -> None:
    text = page.read_text()
    assert len(text) < 1.5e6
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", text)
    assert "{{" not in text


def test_the_page_has_every_claim_and_every_measurement(page: Path) -> None:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    content = json.loads(found[1])
    names, types = {each["name"] for each in content["sets"]}, TYPES.read(BENCHMARKS)
    entries = [entry for entry in read_entries(BENCHMARKS) if entry.data in names]
    assert content["entries"] == json.loads(json.dumps([as_json(entry, types) for entry in entries]))
    assert {entry["kind"] for entry in content["entries"]} == {"claimed", "measured"}
    for entry in content["entries"]:
        assert entry["kind"] == "measured" or entry["link"] or entry["source"]
        assert entry["kind"] == "claimed" or entry["facts"]["test command"].startswith("riszoo test")


def test_a_method_cannot_inject_html(tmp_path: Path) -> None:
    heading = "method,split,metric,value,encoders,training,trust,source,paper,year,data,notes"
    row = "</script><script>alert(1)</script>,val,mIoU,60,,,5,a page,a paper,2024,refcoco,a note"
    (tmp_path / "paper.csv").write_text(f"{heading}\n{row}\n")
    assert main(["--benchmarks", str(tmp_path), "--out", str(tmp_path / "leaderboard.html")]) == 0
    assert "<script>alert" not in (tmp_path / "leaderboard.html").read_text()


def test_a_missing_folder_and_an_empty_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder: give --benchmarks"):
        main(["--benchmarks", str(tmp_path / "none")])
    with pytest.raises(UserError, match="has no results: give --benchmarks"):
        main(["--benchmarks", str(tmp_path), "--out", str(tmp_path / "leaderboard.html")])
    assert not (tmp_path / "leaderboard.html").exists()


def test_a_measured_row_has_its_results_by_type_of_sentence() -> None:
    types = TYPES.read(BENCHMARKS)
    entry = next(entry for entry in read_entries(BENCHMARKS) if entry.data == "scenes")
    rows = [row for row in types if row["weights"] == entry.facts["weights"] and row["protocol"] == entry.protocol]
    found = as_json(entry, types)["types"]
    assert {split: set(names) for split, names in found.items()} == {
        split: {row["type"] for row in rows if row["split"] == split and row["mIoU"]} for split in found
    }
    chosen = next(row for row in rows if (row["split"], row["type"]) == ("val", "ordinal"))
    assert found["val"]["ordinal"]["mIoU"] == round(float(chosen["mIoU"]), 2)
    claim = next(entry for entry in read_entries(BENCHMARKS) if entry.kind == "claimed")
    assert as_json(claim, types)["types"] == {}


# -- in a browser -----------------------------------------------------------------------------------------------------


def methods(tab: Tab) -> list[str]:
    """The names in the table, in order."""
    return tab.texts("tbody .open")


def names(entries: list[Entry]) -> list[str]:
    """The names of entries as the table shows them: measured ones have a mark."""
    return [("" if entry.kind == "claimed" else "◆ ") + entry.method for entry in entries]


@browser
def test_the_address_chooses_and_the_best_comes_first(page: Path, tab: Tab) -> None:
    wanted = expected(**CHOSEN)
    assert len(wanted) > 3
    tab.open(page, CHOSEN)
    assert methods(tab) == names(wanted)
    answer = tab.text("#answer")
    assert f"best claim {wanted[0].method} {wanted[0].numbers['mIoU', 'testB'].text} by {wanted[0].source}" in answer
    assert "Not measured here; riszoo bench --data refcoco+" in answer
    tab.open(page, MEASURED)
    best = expected("scenes", "mIoU", "val", "single")[0]
    assert f"Best measured here ◆ {best.method} {best.numbers['mIoU', 'val'].text}" in tab.text("#answer")


@browser
def test_a_column_sorts_both_ways(page: Path, tab: Tab) -> None:
    """Enter on the column that sorts already turns the order around; the heading says so to a screen reader."""
    tab.open(page, CHOSEN)
    tab.run("document.querySelector('th[aria-sort] button').focus()")
    tab.press("Enter")
    assert tab.run("document.querySelector('th[aria-sort]').ariaSort") == "ascending"
    assert methods(tab) == names(expected(**CHOSEN)[::-1])
    assert tab.run("document.activeElement.textContent") == "testB ↑", "the keyboard's focus stays on the column"
    tab.click("thead th:last-child button")
    years = tab.texts("tbody td:last-child")
    assert years == sorted(years, reverse=True)


@browser
def test_filters_hide_rows_and_change_the_address(page: Path, tab: Tab) -> None:
    everything = [
        entry for entry in read_entries(BENCHMARKS) if entry.data == "refcoco+" and entry.number("mIoU", "val")
    ]
    tab.open(page, {"data": "refcoco+", "split": "val"})
    filters: list[tuple[str, str, Callable[[Entry], bool]]] = [
        ("training", "mixed", lambda entry: entry.training == "mixed"),
        ("encoders", "Swin-B", lambda entry: "Swin-B" in entry.encoders.split(" + ")),
        ("encoders", "Swin-B + BERT-B", lambda entry: entry.encoders == "Swin-B + BERT-B"),
        ("since", "2023", lambda entry: entry.year >= "2023"),
        ("kind", "measured", lambda entry: entry.kind == "measured"),
    ]
    for name, value, kept in filters:
        tab.choose(f"#{name}", value)
        assert urlencode({name: value}) in tab.run("location.hash")
        assert sorted(methods(tab)) == sorted(entry.method for entry in everything if kept(entry))
        tab.choose(f"#{name}", "all")
    assert sorted(methods(tab)) == sorted(entry.method for entry in everything)


@browser
def test_a_row_opens_into_its_sources_command_and_types(page: Path, tab: Tab) -> None:
    best = expected("scenes", "mIoU", "val", "single")[0]
    tab.open(page, MEASURED)
    tab.click("tbody .open")
    text = tab.text(".details")
    assert best.facts["training command"] in text
    assert best.facts["commit"] in text
    kind = as_json(best, TYPES.read(BENCHMARKS))["types"]["val"]["ordinal"]
    assert f"{kind['mIoU']:.2f}" in tab.text(".types")
    assert tab.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    address = tab.run("location.href")
    tab.press("Enter")
    assert tab.texts(".details") == []
    tab.run(f"location.href = {json.dumps(address)}")
    assert tab.text(".details") == text, "the address contains the open rows"
    tab.open(page, CHOSEN)
    tab.click("tbody .open")
    assert tab.run("document.querySelector('.details a').href") == expected(**CHOSEN)[0].link


@browser
def test_the_table_is_copied_as_markdown_csv_and_latex(page: Path, tab: Tab) -> None:
    wanted = expected(**CHOSEN)
    tab.open(page, CHOSEN)
    tab.click("[data-copy=csv]")
    lines = list(csv.DictReader(tab.run("document.getElementById('text').value").splitlines()))
    assert [(line["method"], line["result"], line["mIoU testB"]) for line in lines] == [
        (entry.method, entry.kind, entry.numbers["mIoU", "testB"].text) for entry in wanted
    ]
    tab.click("[data-copy=latex]")
    latex = tab.run("document.getElementById('text').value")
    assert latex.startswith("\\begin{tabular}{lllllrrrl}\n\\toprule\n")
    assert f"{wanted[0].method} & claimed & Swin-B + BERT-B & single" in latex
    assert "lavt\\_one" in latex
    tab.click("[data-copy=markdown]")
    markdown = tab.run("document.getElementById('text').value").splitlines()
    assert len(markdown) == len(wanted) + 2
    assert markdown[2].startswith(f"| {wanted[0].method} | claimed | Swin-B + BERT-B | single | ")


@browser
def test_the_plot_shows_cost_or_year(page: Path, tab: Tab) -> None:
    measured = [entry for entry in read_entries(BENCHMARKS) if entry.data == "scenes"]
    for axis in ("GFLOP", "ms", "parameters"):
        tab.open(page, MEASURED | {"axis": axis})
        known = [entry for entry in measured if entry.facts.get(axis)]
        assert len(known) >= 3
        assert tab.run("document.querySelectorAll('#plot polygon.measured').length") == len(known)
        assert len(tab.texts("#plot circle")) == 0
    tab.open(page, CHOSEN | {"axis": "year"})
    assert tab.run("document.querySelectorAll('#plot circle.claimed').length") == len(expected(**CHOSEN))
    boxes = tab.run(
        "[...document.querySelectorAll('#plot text')].map(e => e.getBBox()).map(b => [b.x, b.y, b.width, b.height])"
    )
    touching = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if _overlap(a, b)]
    assert touching == [], "no label covers another one"


def _overlap(a: list[float], b: list[float], slack: float = 4) -> bool:
    """Whether two boxes (x, y, width, height) share more than a thin edge."""
    return all(min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) > slack for i in (0, 1))


@browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1440], ids=["phone", "laptop", "desktop"])
def test_the_page_is_accessible_on_every_screen(page: Path, tab: Tab, width: int, dark: bool) -> None:
    """No element is wider than the window; every text has contrast, every control a name; nothing is loaded."""
    for state in (MEASURED | {"open": "measured/vipa/scale tiny/single/original"}, CHOSEN):
        tab.open(page, state, width=width, dark=dark)
        assert_accessible(tab, width, (page.as_uri(),))
        ink = tab.run("getComputedStyle(document.body).color")
        assert (int(re.findall(r"\d+", ink)[0]) > 128) == dark
    assert_table_says_that_it_scrolls(tab, width)


@browser
def test_the_tab_key_goes_from_the_choices_to_the_table(page: Path, tab: Tab) -> None:
    tab.open(page, CHOSEN)
    found = focus_order(tab, 22)
    assert found[:8] == ["data", "metric", "split", "protocol", "kind", "encoders", "training", "since"]
    assert found[9:14] == ["Markdown", "LaTeX", "CSV", "table of results", "method"]
    assert found[21].startswith("row")


@browser
def test_an_error_of_the_page_would_fail_these_tests(page: Path, tab: Tab) -> None:
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("drawTable(entries);", "drawTables(entries);"))
    tab.open(broken)
    assert any("drawTables is not defined" in error for error in tab.errors)
