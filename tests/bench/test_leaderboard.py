"""The leaderboard: its numbers, and how the page behaves in a real browser without network."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from riszoo.bench.html.leaderboard import as_json
from riszoo.bench.tables.entries import Entry, read_entries
from riszoo.cli.results.leaderboard import main
from riszoo.errors import UserError
from tests.support.browser import browser, run_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = "[...document.querySelectorAll('tbody .open')].map(button => button.textContent)"
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
    names = {each["name"] for each in content["sets"]}
    entries = [entry for entry in read_entries(BENCHMARKS) if entry.data in names]
    assert content["entries"] == json.loads(json.dumps([as_json(entry) for entry in entries]))
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


# -- in a browser -----------------------------------------------------------------------------------------------------


@browser
def test_the_address_chooses_and_the_best_comes_first(page: Path) -> None:
    wanted = [entry.method for entry in expected(**CHOSEN)]
    assert len(wanted) > 3
    assert json.loads(run_script(page, f"JSON.stringify({ROWS})", CHOSEN)) == wanted


@browser
def test_a_column_sorts_both_ways(page: Path) -> None:
    """A click on the column that sorts already turns the order around; the heading says so to a screen reader."""
    click = "(document.querySelector('th[aria-sort] button').click(), document.querySelector('th[aria-sort]').ariaSort)"
    script = f"JSON.stringify([{click}, {ROWS}, document.activeElement.textContent])"
    order, methods, focused = json.loads(run_script(page, script, CHOSEN))
    assert order == "ascending"
    assert methods == [entry.method for entry in expected(**CHOSEN)][::-1]
    assert focused == "testB ↑", "the keyboard's focus stays on the column"


@browser
def test_a_filter_hides_rows_and_changes_the_address(page: Path) -> None:
    choose = "(e => { e.value = 'measured'; e.dispatchEvent(new Event('change')); })(document.getElementById('kind'))"
    script = f"({choose}, JSON.stringify([{ROWS}, location.hash, document.getElementById('count').textContent]))"
    methods, address, count = json.loads(run_script(page, script, {"data": "scenes"}))
    assert set(methods) == {entry.method for entry in read_entries(BENCHMARKS) if entry.data == "scenes"}
    assert "kind=measured" in address
    assert count.startswith(f"{len(methods)} results")


@browser
def test_a_row_opens_into_its_source_and_command(page: Path) -> None:
    opened = "(document.querySelector('tbody .open').click(), document.querySelector('dl').textContent)"
    best = next(
        e for e in sorted(read_entries(BENCHMARKS), key=lambda e: e.rank([("mIoU", "val")])) if e.data == "scenes"
    )
    text = run_script(page, opened, {"data": "scenes", "metric": "mIoU", "split": "val"})
    assert best.facts["training command"] in text
    assert best.facts["commit"] in text


@browser
def test_the_table_is_copied_as_csv_and_latex(page: Path) -> None:
    press = "(form => (document.querySelector(`[data-copy=${form}]`).click(), document.getElementById('text').value))"
    texts = json.loads(run_script(page, f"JSON.stringify(['csv', 'latex'].map({press}))", CHOSEN))
    lines = list(csv.DictReader(texts[0].splitlines()))
    assert [(line["method"], line["mIoU testB"]) for line in lines] == [
        (entry.method, entry.numbers["mIoU", "testB"].text) for entry in expected(**CHOSEN)
    ]
    assert texts[1].startswith("\\begin{tabular}{lllllrrrl}\n\\toprule\n")
    assert f"{lines[0]['method']} & claimed & Swin-B + BERT-B & single" in texts[1]
    assert "lavt\\_one" in texts[1]


@browser
def test_the_plot_shows_cost_or_year(page: Path) -> None:
    marks = "JSON.stringify(['rect', 'circle'].map(tag => document.querySelectorAll(`#plot ${tag}`).length))"
    measured = [entry for entry in read_entries(BENCHMARKS) if entry.data == "scenes"]
    assert json.loads(run_script(page, marks, {"data": "scenes", "axis": "GFLOP"})) == [len(measured), 0]
    assert json.loads(run_script(page, marks, CHOSEN | {"axis": "year"})) == [0, len(expected(**CHOSEN))]


@browser
@pytest.mark.parametrize(("width", "scheme"), [(500, 1), (1280, 0)], ids=["phone, light", "desktop, dark"])
def test_the_page_fits_phone_and_desktop_in_light_and_dark(page: Path, width: int, scheme: int) -> None:
    """No element is wider than the window, and the colours follow the reader's setting."""
    script = "JSON.stringify([document.documentElement.scrollWidth, innerWidth, getComputedStyle(document.body).color])"
    flags = [f"--window-size={width},1600", f"--blink-settings=preferredColorScheme={scheme}"]
    used, available, colour = json.loads(run_script(page, script, CHOSEN, *flags))
    assert used <= available
    assert (int(re.findall(r"\d+", colour)[0]) < 100) == (scheme == 1)


@browser
def test_an_error_of_the_page_would_fail_these_tests(page: Path) -> None:
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("drawTable(entries);", "drawTables(entries);"))
    with pytest.raises(AssertionError, match="drawTables is not defined"):
        run_script(broken, "1")
