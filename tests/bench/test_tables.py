"""The tables: generated from the CSV files, never stale, with claims and measurements apart."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from riszoo import recipes
from riszoo.bench import rows, tables
from riszoo.bench.claims import OMIT, claims
from riszoo.bench.plan import Job
from riszoo.cli.tables import main as tables_verb
from riszoo.errors import UserError
from tests.support.bench_runs import make_run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_committed_tables_show_the_committed_rows() -> None:
    assert tables.render_pages(BENCHMARKS, write=False) == [], "run `riszoo tables`"


def test_every_measured_row_has_its_provenance() -> None:
    for row in rows.read(BENCHMARKS / rows.ACCURACY.file):
        needed = ("commit", "versions", "device", "protocol", "seed", "weights", "command")
        assert all(row[name] for name in needed), row
    for row in rows.read(BENCHMARKS / rows.SPEED.file):
        assert all(row[name] for name in ("commit", "versions", "device", "command")), row


def test_every_claimed_row_has_its_source_and_a_number() -> None:
    with (BENCHMARKS / "paper.csv").open(newline="") as file:
        claimed = list(csv.DictReader(file))
    assert len(claimed) > 900
    known = {*recipes.names("data"), "ref-zom"}
    for row in claimed:
        assert row["source"], row
        assert 0 < float(row["value"]) < 100, row
        assert row["data"] in known, row
        assert row["trust"] in {"1", "2", "3", "4", "5", OMIT}, row
        assert row["mixed"] in ("", "yes"), row
    assert not [row for row in claimed if row["method"].lower() in ("risam", "maris")], "no number could be read"


def test_a_papers_own_numbers_come_before_second_hand_tables() -> None:
    found = claims(BENCHMARKS / "paper.csv")
    own = [c for c in found if (c.method, c.data) == ("VIPA", "refcoco") and not c.mixed]
    assert [c.value("oIoU", "val") for c in own] == ["75.84"]
    lavt = [c for c in found if (c.method, c.data) == ("LAVT", "refcoco") and c.has("oIoU", ["testA"])]
    assert {c.source for c in lavt} == {"https://github.com/yz93/LAVT-RIS"}
    assert not any(c.trust == OMIT for c in found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the claims, and a measured row or two."""
    made = tmp_path / "benchmarks"
    made.mkdir()
    for name in ("paper.csv", "footnotes.yaml"):
        shutil.copy(BENCHMARKS / name, made)
    return made


def measure(folder: Path, data: str = "scenes", scale: str = "tiny", seeds: int = 1, leaked: int = 0) -> list[float]:
    values = []
    for seed in range(seeds):
        test = make_run(folder.parent / f"{data}{seed}", "lts", shift=1 + seed, seen=leaked)
        accuracy, types = rows.measured(Job("lts", data, scale, seed=seed), test)
        rows.upsert(folder, rows.ACCURACY, accuracy)
        rows.upsert(folder, rows.TYPES, types)
        values.append(next(row["mIoU"] for row in accuracy if row["control"] == "none"))
    return values


def line(text: str, metric: str, model: str) -> list[str]:
    """The cells of a model's line in one metric's table."""
    table = text.partition(f"**{metric}**")[2].partition("\n\n**")[0]
    found = next(row for row in table.splitlines() if row.startswith(f"| **{model}**"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_measured_number_has_its_interval_and_its_language_gap(folder: Path) -> None:
    (value,) = measure(folder)
    text = tables.Results.read(folder).table("scenes")
    assert re.fullmatch(rf"{value:.2f} \[[\d.]+, [\d.]+\]", line(text, "mIoU", "lts")[1])
    assert line(text, "mIoU", "lts")[2] == tables.DASH
    gap = line(text, "Language gap", "lts")
    assert float(gap[4]) == pytest.approx(float(gap[1]) - float(gap[2]), abs=0.011)
    assert gap[3] == tables.DASH
    assert "claimed" not in text


def test_the_training_cost_of_each_model_is_listed(folder: Path) -> None:
    measure(folder, seeds=2)
    for row in rows.read(folder / "accuracy.csv"):
        minutes = 7 + 2 * int(row["seed"])
        changed = {"training_sentences": "96000", "training_seconds": str(60 * minutes), "weights": row["seed"]}
        rows.upsert(folder, rows.ACCURACY, [row | changed])
    assert line(tables.Results.read(folder).table("scenes"), "Training cost", "lts")[1:4] == [
        "96,000",
        "8.0",
        "2",
    ]


def test_seeds_give_mean_and_spread(folder: Path) -> None:
    one, two = measure(folder, seeds=2)
    cell = line(tables.Results.read(folder).table("scenes"), "mIoU", "lts")[1]
    assert cell == f"{(one + two) / 2:.2f} ± {abs(one - two) / 2**0.5:.2f} (2 seeds)"


def test_splits_with_training_images_are_marked(folder: Path) -> None:
    measure(folder, leaked=2)
    text = tables.Results.read(folder).table("scenes")
    assert line(text, "mIoU", "lts")[1].endswith(tables.LEAKED)
    assert "trained on images of this split" in text


def test_claims_and_measurements_have_separate_columns(folder: Path) -> None:
    (value,) = measure(folder, "refcoco", "paper")
    text = tables.Results.read(folder).table("refcoco")
    cells = line(text, "mIoU", "lts")
    assert cells[1] == "65.43"
    assert cells[2].startswith(f"{value:.2f}")
    assert cells[3:] == ["67.76", tables.DASH, "63.08", tables.DASH]
    assert "DISPUTED" in text, "the doubt about the metric is in a footnote"
    assert "CRIS" in text, "peers are listed"


def test_unmeasured_models_have_a_dash_and_the_command_that_measures_them(folder: Path) -> None:
    text = tables.Results.read(folder).table("refcoco")
    assert line(text, "oIoU", "lts")[2] == tables.DASH
    assert "riszoo bench --data refcoco" in text


def test_other_scales_and_protocols_have_lines_of_their_own(folder: Path) -> None:
    measure(folder, "refcoco", "paper")
    accuracy = rows.read(folder / "accuracy.csv")
    rows.upsert(folder, rows.ACCURACY, [row | {"protocol": "mcn", "mIoU": "12.5"} for row in accuracy])
    rows.upsert(folder, rows.ACCURACY, [row | {"scale": "controlled", "mIoU": "23.5"} for row in accuracy])
    text = tables.Results.read(folder).table("refcoco")
    table = text.partition("**mIoU**")[2].partition("\n\n**")[0]
    own = {row.split("|")[1].strip(): row.split("|")[2:4] for row in table.splitlines() if row.startswith("| **lts**")}
    assert own["**lts** (protocol mcn)"][1].startswith(" 12.50")
    assert own["**lts** (scale controlled)"][1].startswith(" 23.50")
    assert own["**lts** (protocol mcn)"][0].strip() == tables.DASH, "the claim is shown once"


def test_the_language_gap_of_another_scale_is_its_own(folder: Path) -> None:
    measure(folder)
    before = line(tables.Results.read(folder).table("scenes"), "Language gap", "lts")
    accuracy = rows.read(folder / "accuracy.csv")
    rows.upsert(folder, rows.ACCURACY, [row | {"scale": "controlled", "mIoU": "10.0"} for row in accuracy])
    text = tables.Results.read(folder).table("scenes")
    assert line(text, "Language gap", "lts") == before
    other = text.partition("**Language gap**")[2]
    assert "| **lts** (scale controlled) | 10.00 | 10.00 | - | 0.00 |" in other


def test_only_the_text_between_markers_changes(folder: Path) -> None:
    page, beside = folder / "README.md", folder.parent / "README.md"
    page.write_text("before\n<!-- table:scenes -->\nold\n<!-- /table:scenes -->\nafter\n")
    beside.write_text("no markers")
    assert tables_verb(["--out", str(folder), "--check"]) == 1
    assert "old" in page.read_text()
    assert tables_verb(["--out", str(folder)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- table:scenes -->\n")
    assert text.endswith("<!-- /table:scenes -->\nafter\n")
    assert "old" not in text
    assert tables_verb(["--out", str(folder), "--check"]) == 0
    assert beside.read_text() == "no markers"


def test_an_unknown_table_name_is_an_error(folder: Path) -> None:
    (folder / "README.md").write_text("<!-- table:refcoc -->\n<!-- /table:refcoc -->\n")
    with pytest.raises(UserError, match="unknown data set 'refcoc': did you mean 'refcoco'"):
        tables_verb(["--out", str(folder)])


def test_an_ablation_shows_its_rows_or_how_to_measure_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tableset = {"prior": {"title": "The prior", "claim": ["none", "filter"], "rows": {"none": {}, "filter": {}}}}
    monkeypatch.setattr(tables, "ablations", lambda name: tableset)
    monkeypatch.setattr(recipes, "names", lambda kind: ["lts"])
    text = tables.Results().table("ablations")
    assert "The paper's order, on its own data, best last: none, filter." in text
    assert "riszoo bench --ablation lts/prior" in text
    measure(folder)
    accuracy = [
        row | {"variant": "prior/filter", "training_sentences": "640"} for row in rows.read(folder / "accuracy.csv")
    ]
    rows.upsert(folder, rows.ACCURACY, accuracy)
    text = tables.Results.read(folder).table("ablations")
    assert "| The prior | scenes val mIoU | scenes val oIoU | training sentences |" in text
    assert re.search(r"\| filter \| [\d.]+ \[[\d., ]+\] \| [\d.]+ \[[\d., ]+\] \| 640 \|", text)
    assert "| none | - | - | - |" in text
    assert "riszoo bench" not in text
