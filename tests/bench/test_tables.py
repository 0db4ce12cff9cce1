"""The tables: generated from the CSV files, never stale, with claims and measurements apart."""

from __future__ import annotations

import csv
import re
import shutil
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from riszoo import recipes
from riszoo.bench import rows
from riszoo.bench.plan import Job, make_jobs
from riszoo.bench.tables import ablations, measurements, pages
from riszoo.bench.tables.claims import IDENTITY, OMIT, UNSTATED, Claim, claims
from riszoo.bench.tables.data_table import LEAKED, MARK, formatted
from riszoo.bench.tables.differences import Difference, paired_difference
from riszoo.bench.tables.entries import language_gap
from riszoo.bench.tables.formats import latex
from riszoo.bench.tables.image_sums import ImageSums, record
from riszoo.bench.tables.results import Results
from riszoo.cli.bench import parser
from riszoo.cli.results.tables import main as tables_verb
from riszoo.errors import UserError
from tests.support.bench_runs import make_run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_committed_tables_show_the_committed_rows() -> None:
    assert pages.render_pages(BENCHMARKS, write=False) == [], "run `riszoo tables`"


def test_every_measured_row_has_its_provenance() -> None:
    for row in rows.ACCURACY.read(BENCHMARKS):
        needed = ("commit", "versions", "device", "protocol", "seed", "weights", "command")
        assert all(row[name] for name in needed), row
    for row in rows.SPEED.read(BENCHMARKS):
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
        assert row["training"] in ("", "single", "mixed", "joint"), row
    assert not [row for row in claimed if row["method"].lower() in ("risam", "maris")], "no number could be read"


def test_a_source_gives_each_number_once() -> None:
    with (BENCHMARKS / "paper.csv").open(newline="") as file:
        shown = [row for row in csv.DictReader(file) if row["trust"] != OMIT and row["metric"] != UNSTATED]
    keys = [tuple(row[name] for name in (*IDENTITY, "metric", "split")) for row in shown]
    assert len(set(keys)) == len(keys)


# -- claims -----------------------------------------------------------------------------------------------------------


def claim(path: Path, *rows: str) -> list[Claim]:
    """The claims of a file with these rows: method, split, metric, value, encoders, training, trust, source."""
    heading = "method,split,metric,value,encoders,training,trust,source,paper,year,data,notes"
    path.write_text("\n".join([heading, *(f"{row},A paper,2024,refcoco,a note" for row in rows)]) + "\n")
    return claims(path)


def test_a_method_has_one_claim_from_the_most_trusted_source(tmp_path: Path) -> None:
    (kept,) = claim(
        tmp_path / "paper.csv",
        "LTS,val,mIoU,60.0,Darknet-53,,2,a survey",
        "LTS,val,oIoU,61.0,Darknet-53,single,4,its own page",
        "LTS,testA,oIoU,62.0,Darknet-53,single,4,its own page",
    )
    assert kept.source == "its own page"
    assert kept.values == {("oIoU", "val"): "61.0", ("oIoU", "testA"): "62.0"}
    assert [other.source for other in kept.others] == ["a survey"]


def test_numbers_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"paper.csv: '' in the column trust of the row LTS, .*mIoU is not a level"):
        claim(tmp_path / "paper.csv", "LTS,val,mIoU,60.0,Darknet-53,,,a survey")
    row = dict.fromkeys(rows.SPEED.values, "1") | {"data": "scenes", "model": "lts", "ms_1_sentence": ""}
    with pytest.raises(UserError, match=r"speed.csv: '' in the column ms_1_sentence of the row data scenes, model lts"):
        measurements.speed_table([dict.fromkeys(rows.SPEED.key, "") | row])


def test_other_encoders_and_other_training_are_other_claims(tmp_path: Path) -> None:
    found = claim(
        tmp_path / "paper.csv",
        "LTS,val,mIoU,60.0,Darknet-53,single,5,a page",
        "LTS,val,mIoU,70.0,Swin-B + BERT-B,single,5,a page",
        "LTS,val,mIoU,75.0,Swin-B + BERT-B,mixed,5,a page",
        "LTS,val,mIoU,75.0,Swin-B,mixed,3,a table that names one encoder",
        "LTS,val,mIoU,77.0,Swin-B,mixed,omit,an ablation",
        "LTS,val,unstated,78.0,Swin-B,mixed,5,a page",
    )
    assert [(claim.encoders, claim.training) for claim in found] == [
        ("Darknet-53", "single"),
        ("Swin-B + BERT-B", "single"),
        ("Swin-B + BERT-B", "mixed"),
    ]


def test_a_claim_that_names_no_encoder_is_about_a_model_whose_numbers_it_has(tmp_path: Path) -> None:
    swin, darknet = claim(
        tmp_path / "paper.csv",
        "LTS,val,mIoU,70.0,Swin-B,single,5,a page",
        "LTS,val,mIoU,60.0,Darknet-53,single,4,a page",
        "LTS,val,mIoU,60.0,,single,3,a survey",
    )
    assert (swin.others, [other.source for other in darknet.others]) == ([], ["a survey"])
    _, unknown = claim(
        tmp_path / "paper.csv", "LTS,val,mIoU,70.0,Swin-B,single,5,a page", "LTS,val,mIoU,65.0,,single,3,a survey"
    )
    assert unknown.source == "a survey"


@pytest.mark.parametrize(
    ("source", "link"),
    [
        ("arXiv 2312.15715 (UniRef++) Table 1", "https://arxiv.org/abs/2312.15715"),
        ("https://www.wizwand.com (LTS page)", "https://www.wizwand.com"),
        ("Prompt-RIS CVPR 2024 Table 1", ""),
    ],
)
def test_a_source_is_linked(tmp_path: Path, source: str, link: str) -> None:
    (found,) = claim(tmp_path / "paper.csv", f"LTS,val,mIoU,60.0,,single,5,{source}")
    assert found.link == link


# -- tables -----------------------------------------------------------------------------------------------------------


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


def table_of(folder: Path, name: str) -> str:
    return pages.table(Results.read(folder), name)


def lines(text: str) -> list[dict[str, str]]:
    """The lines of the first table as dictionaries."""
    table = [row.strip("|").split("|") for row in text.splitlines() if row.startswith("|")]
    heading = [cell.strip() for cell in table[0]]
    return [dict(zip(heading, map(str.strip, row), strict=True)) for row in table[2:] if len(row) == len(heading)]


def test_a_measured_line_is_marked_and_has_its_interval_in_the_legend(folder: Path) -> None:
    (value,) = measure(folder)
    text = table_of(folder, "scenes")
    (own,) = lines(text)
    assert own["method"] == f"{MARK} **lts**"
    assert own["mIoU val"] == f"{value:.2f}"
    assert "mIoU testA" not in own, "a column without a number is left out"
    assert re.search(r"95 % intervals over images: ± [\d.]+ to [\d.]+", text)
    assert "claims" not in text


def test_a_commit_is_named_once(folder: Path) -> None:
    measure(folder)
    first = [row | {"commit": "aaaa"} for row in rows.ACCURACY.read(folder)]
    further = [row | {"commit": "bbbb", "split": "testB"} for row in first]
    other = [row | {"model": "vipa"} for row in first]
    rows.upsert(folder, rows.ACCURACY, [*first, *further, *other])
    assert "commit aaaa, bbbb on" in table_of(folder, "scenes")


def test_seeds_give_mean_and_spread(folder: Path) -> None:
    one, two = measure(folder, seeds=2)
    (own,) = lines(table_of(folder, "scenes"))
    assert own["mIoU val"] == f"{(one + two) / 2:.2f} ± {abs(one - two) / 2**0.5:.2f}"


def test_a_language_gap_is_of_the_seeds_that_have_both_numbers(folder: Path) -> None:
    measure(folder)
    (one,) = (row for row in rows.ACCURACY.read(folder) if row["split"] == "val" and row["control"] == "none")
    numbers = [("0", "none", "60"), ("0", "shuffled", "10"), ("1", "none", "40")]
    entries = [one | {"seed": seed, "control": control, "mIoU": value} for seed, control, value in numbers]
    assert language_gap(entries) == 50
    assert language_gap(entries[2:]) is None


def test_the_best_number_is_one_that_was_not_trained_on(folder: Path) -> None:
    measure(folder)
    own = [row for row in rows.ACCURACY.read(folder) if row["split"] == "val"]
    leaked = [row | {"model": "vipa", "mIoU": "99", "oIoU": "99", "images_trained_on": "3"} for row in own]
    rows.upsert(folder, rows.ACCURACY, leaked)
    text = table_of(folder, "overview")
    assert "** lts" in text
    assert "99.00" not in text
    rows.upsert(folder, rows.ACCURACY, [row | {"images_trained_on": "3"} for row in own])
    text = table_of(folder, "overview")
    assert f"99.00 {LEAKED}" in text
    assert "trained on images of this split" in text


def test_splits_with_training_images_are_marked(folder: Path) -> None:
    measure(folder, leaked=2)
    text = table_of(folder, "scenes")
    assert lines(text)[0]["mIoU val"].endswith(LEAKED)
    assert "trained on images of this split" in text


def test_claims_and_measurements_are_different_lines(folder: Path) -> None:
    (value,) = measure(folder, "refcoco", "paper")
    found = lines(table_of(folder, "refcoco"))
    own = [line for line in found if "**lts**" in line["method"]]
    claimed = [line for line in found if line["method"].startswith("LTS") and line["encoders"].startswith("Darknet")]
    assert [(line["mIoU val"], line["mIoU testA"], line["source"]) for line in own] == [(f"{value:.2f}", "", "riszoo")]
    assert [(line["mIoU val"], line["mIoU testA"]) for line in claimed] == [("65.43", "67.76")]


@pytest.mark.parametrize("data", ["refcoco", "refcoco+", "refcocog", "referit"])
def test_lines_are_sorted_and_no_method_stands_twice(data: str) -> None:
    found = lines(table_of(BENCHMARKS, data))
    first = next(column for column in found[0] if column.startswith("oIoU"))
    scores = [float(line[first].split()[0]) for line in found if line[first]]
    assert scores == sorted(scores, reverse=True)
    settings = [tuple(line.get(name, "") for name in ("method", "encoders", "training")) for line in found]
    assert len(set(settings)) == len(settings)
    for column in found[0]:
        assert any(line[column] for line in found), f"{column} is empty"
    assert all(any(value for name, value in line.items() if "IoU" in name) for line in found)


def test_the_overview_answers_which_is_best_who_claims_it_and_whether_it_was_measured(folder: Path) -> None:
    measure(folder)
    found = lines(table_of(folder, "overview"))
    plus = next(line for line in found if "RefCOCO+" in line["data set"] and line["split"] == "testB")
    best = max(float(line["oIoU testB"]) for line in lines(table_of(folder, "refcoco+"))
               if line["training"] == "single" and line["oIoU testB"])  # fmt: skip
    assert re.fullmatch(rf"\*\*{best:.2f}\*\* .+ \(\[source\]\(https://.+\)\)", plus["best claim, trained on this set"])
    assert plus["measured"] == ""
    own = found[0]
    assert own["data set"] == "[scenes](scenes.md)"
    assert own["measured"].startswith(MARK)
    assert own["best claim, any training"] == ""


def test_tables_have_few_notes() -> None:
    for data in ("scenes", "refcoco", "refcoco+", "refcocog", "refcocog-google", "referit", "grefcoco"):
        text = table_of(BENCHMARKS, data)
        assert len(re.findall(r"^<sup>", text, re.MULTILINE)) <= 8


def test_claims_whose_split_is_not_stated_are_shown_so() -> None:
    found = lines(table_of(BENCHMARKS, "grefcoco"))
    assert found[0]["cIoU, split not stated"] == "62.42"


def test_unmeasured_models_have_a_command_that_works(folder: Path) -> None:
    measure(folder)
    for data in ("scenes", "refcoco"):
        text = table_of(folder, data)
        (command,) = re.findall(r"`riszoo (bench [^`]+)`", text)
        options = parser().parse_args(command.split()[1:])
        planned = [job.model for job in make_jobs(options)]
        assert planned == options.models.split(",")
        assert "lts" not in planned or data == "refcoco"


def test_results_under_another_protocol_have_a_table_of_their_own(folder: Path) -> None:
    measure(folder, "refcoco", "paper")
    accuracy = rows.ACCURACY.read(folder)
    rows.upsert(folder, rows.ACCURACY, [row | {"protocol": "mcn", "mIoU": "12.5"} for row in accuracy])
    main, other = table_of(folder, "refcoco").split("Measured under the protocol `mcn`:")
    assert "12.50" not in main
    assert [line["mIoU val"] for line in lines(other)] == ["12.50"]


def test_another_scale_has_a_line_of_its_own(folder: Path) -> None:
    measure(folder)
    accuracy = rows.ACCURACY.read(folder)
    rows.upsert(
        folder, rows.ACCURACY, [row | {"scale": "controlled", "oIoU": "99", "mIoU": "23.5"} for row in accuracy]
    )
    found = lines(table_of(folder, "scenes"))
    assert [line["encoders"] for line in found] == ["scale controlled", "scale tiny"]
    assert found[0]["mIoU val"] == "23.50"


def test_the_summary_shows_only_models_and_columns_with_numbers(folder: Path) -> None:
    (value,) = measure(folder)
    gap = rows.ACCURACY.read(folder)
    shuffled = next(float(row["mIoU"]) for row in gap if row["control"] == "shuffled")
    (own,) = lines(table_of(folder, "summary"))
    assert list(own) == ["model", "paper", "val", "language gap", "minutes"]
    assert own["paper"] == "[arXiv 2103.16284](https://arxiv.org/abs/2103.16284)"
    assert re.fullmatch(rf"{value:.2f} \[[\d.]+, [\d.]+\]", own["val"])
    assert float(own["language gap"]) == pytest.approx(value - shuffled, abs=0.006)
    assert own["minutes"] == "0.1"


def test_a_table_is_printed_as_latex_csv_and_markdown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (value,) = measure(folder)
    printed = {}
    for form in ("latex", "csv", "markdown"):
        assert tables_verb(["--out", str(folder), "--format", form]) == 0
        printed[form] = capsys.readouterr().out
    assert printed["latex"].startswith("\\begin{tabular}{lllllrrl}\n\\toprule\nkind & protocol & method & encoders & ")
    assert "measured & original & lts & scale tiny & single & " in printed["latex"]
    (row,) = csv.DictReader(printed["csv"].splitlines())
    assert row["mIoU val"] == f"{value:.2f}"
    assert lines(printed["markdown"])[0]["kind"] == "measured"


def test_latex_escapes_what_it_would_interpret() -> None:
    text = latex([["name", "score"], ["a_b & 5 % {~^\\}", "1.0 ± 0.1"]])
    escaped = r"a\_b \& 5 \% \{\textasciitilde{}\textasciicircum{}\textbackslash{}\} & 1.0 $\pm$ 0.1 \\"
    assert escaped in text


def test_latex_groups_neighbours_of_one_metric() -> None:
    text = latex([["method", "oIoU val", "oIoU testA", "mIoU val"], ["a", "1.0", "2.0", ""]])
    assert text.splitlines()[:6] == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r" & \multicolumn{2}{c}{oIoU} &  \\",
        r"\cmidrule(lr){2-3}",
        r"method & val & testA & mIoU val \\",
        r"\midrule",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    parts = [formatted(Results.read(BENCHMARKS), data, "latex") for data in ("scenes", "refcoco+", "grefcoco")]
    parts.append(latex([["name", "score"], ["a_b & 5 % $ # {~^\\} ⚠", "1.0 ± 0.1"]]))
    page = "\n\n".join([r"\documentclass{article}\usepackage{booktabs}\begin{document}", *parts, r"\end{document}"])
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:]


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


def test_the_page_of_a_folder_of_its_own_grows_with_its_results(folder: Path) -> None:
    page = folder / "README.md"
    assert pages.render_pages(folder) == []
    assert not page.exists()
    for data in ("scenes", "collage"):
        measure(folder, data)
        assert pages.render_pages(folder) == [page]
        assert f"<!-- table:{data} -->" in page.read_text()
    assert page.read_text().count("**lts**") == 2


def test_pages_and_plots_of_a_checkout_are_in_its_documentation(folder: Path) -> None:
    site = folder.parent / "docs" / "results"
    site.mkdir(parents=True)
    (site / "scenes.md").write_text("<!-- table:scenes -->\n<!-- /table:scenes -->\n")
    measure(folder)
    assert tables_verb(["--out", str(folder)]) == 0
    assert "**lts**" in (site / "scenes.md").read_text()
    assert (site / "plots" / "scenes-types.svg").is_file()
    assert not any(folder.glob("*.md"))


def test_an_unknown_table_name_is_an_error(folder: Path) -> None:
    (folder / "README.md").write_text("<!-- table:refcoc -->\n<!-- /table:refcoc -->\n")
    with pytest.raises(UserError, match="unknown data set 'refcoc': did you mean 'refcoco'"):
        tables_verb(["--out", str(folder)])


def test_an_ablation_shows_its_rows_or_how_to_measure_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tableset = {"prior": {"title": "The prior", "claim": ["none", "filter"], "rows": {"none": {}, "filter": {}}}}
    monkeypatch.setattr(ablations, "ablations", lambda name: tableset)
    monkeypatch.setattr(recipes, "names", lambda kind: ["lts"])
    text = pages.table(Results(), "ablations")
    assert text == "**lts**\n\nNot measured yet:\n\n- The prior: `riszoo bench --ablation lts/prior`\n"
    measure(folder)
    accuracy = [row | {"variant": "prior/filter", "training_sentences": "640"} for row in rows.ACCURACY.read(folder)]
    rows.upsert(folder, rows.ACCURACY, accuracy)
    text = table_of(folder, "ablations")
    assert "The paper's order, on its own data, best last: none, filter." in text
    (own,) = lines(text)
    assert own["The prior, scale tiny"] == "filter"
    assert own["training sentences"] == "640"
    assert re.fullmatch(r"[\d.]+", own["scenes val mIoU"])
    assert "scenes val constant" not in own
    assert "riszoo bench" not in text


def test_an_ablation_has_a_table_for_each_scale_with_differences_from_the_recipe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tableset = {
        "prior": {"title": "The prior", "claim": ["no", "all"], "rows": {"no": {"model": {}, "x": 1}, "all": {}}}
    }
    monkeypatch.setattr(ablations, "ablations", lambda name: tableset)
    monkeypatch.setattr(recipes, "names", lambda kind: ["lts"])
    for scale, seeds in (("tiny", 1), ("probe", 3)):
        for seed in range(seeds):
            for variant, shift in (("prior/no", 1), ("prior/all", 3)):
                test = make_run(tmp_path / f"{scale}{seed}{shift}", "lts", shift=shift + seed)
                accuracy, types = rows.measured(Job("lts", "scenes", scale, seed=seed, variants=(variant,)), test)
                rows.upsert(folder, rows.ACCURACY, accuracy)
                rows.upsert(folder, rows.TYPES, types)
                record(folder, [test])
    results = Results.read(folder)
    text = pages.table(results, "ablations")
    assert "Measured: all, no." in text, "a mask that is shifted further is worse"
    blocks = [block for block in text.split("\n\n") if block.startswith("| The prior, scale ")]
    assert [block.split(" |", 2)[0] for block in blocks] == ["| The prior, scale probe", "| The prior, scale tiny"]
    for block, seeds in zip(blocks, (3, 1), strict=True):
        no, every = (lines(block)[i] for i in (0, 1))
        value = {
            name: statistics.fmean(float(row["mIoU"]) for row in results.accuracy
                                   if (row["variant"], row["control"]) == (f"prior/{name}", "none")
                                   and row["split"] == "val" and (row["scale"] == "probe") == (seeds == 3))
            for name in ("no", "all")
        }  # fmt: skip
        found = re.fullmatch(r"([+-][\d.]+) ± ([\d.]+)", no["scenes val minus all"])
        assert found is not None
        assert float(found[1]) == pytest.approx(value["no"] - value["all"], abs=0.02)
        assert float(found[2]) > 0
        assert (every["scenes val minus all"], every["seeds"]) == ("", str(seeds))
        assert re.match(r"[\d.]+", every["scenes val attribute"])


def test_a_difference_of_pairs_counts_seeds_and_images() -> None:
    sums = [ImageSums("same", *np.random.default_rng(seed).integers(1, 9, (4, 50))) for seed in range(3)]
    assert paired_difference(sums, sums, "mIoU") == Difference(0.0, 0.0)
    better = [replace(each, iou=each.iou + 50 * (seed + 1) * each.counted) for seed, each in enumerate(sums)]
    found = paired_difference(better, sums, "mIoU")
    values = [paired_difference([a], [b], "mIoU").value for a, b in zip(better, sums, strict=True)]
    assert values == pytest.approx([0.5, 1.0, 1.5])
    assert found.value == pytest.approx(1.0)
    assert found.half == pytest.approx(4.303 * 0.5 / 3**0.5, rel=1e-3), "Student's, of two degrees of freedom"


@pytest.mark.parametrize(
    ("constant", "cell"),
    [
        (["12.5"], "12.50"),
        (["49.5"], "49.50 *unused*"),
        (["49.5", "51.5"], "50.50 ± 1.41 *unused*"),
        (["45.0", "57.0"], "51.00 ± 8.49"),  # the gain of one seed does not cancel the loss of the other
    ],
    ids=str,
)
def test_an_ablation_marks_rows_whose_keys_and_values_change_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, constant: list[str], cell: str
) -> None:
    monkeypatch.setattr(ablations, "ablations", lambda name: {"prior": {"title": "The prior", "rows": {"all": {}}}})
    monkeypatch.setattr(recipes, "names", lambda kind: ["lts"])
    measure(folder)
    one = next(row for row in rows.ACCURACY.read(folder) if row["split"] == "val" and row["control"] == "none")
    one |= {"variant": "prior/all", "mIoU": "50.0", "mIoU_low": "49.0", "mIoU_high": "51.0"}
    for seed, value in enumerate(constant):
        own = one | {"seed": str(seed)}
        rows.upsert(folder, rows.ACCURACY, [own, own | {"control": "constant", "mIoU": value}])
    text = table_of(folder, "ablations")
    (line,) = lines(text)
    assert line["scenes val constant"] == cell
    assert line["scenes val mIoU"].startswith("50.00")
    assert "no measurement of its keys and values" in text
