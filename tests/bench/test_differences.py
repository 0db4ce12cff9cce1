"""Differences between measured rows: intervals of a known size, and a file that agrees with the measured numbers."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riszoo.bench import rows
from riszoo.bench.plan import Job
from riszoo.bench.tables import image_sums, pages
from riszoo.bench.tables.differences import compare_rows, student_t
from riszoo.bench.tables.image_sums import IMAGES, IOU_UNIT, ImageSums, folders_of_tests, read_sums, record
from riszoo.bench.tables.matrix import comparisons
from riszoo.bench.tables.results import Results
from riszoo.cli.results.tables import main as tables_verb
from riszoo.errors import UserError
from tests.support.bench_runs import make_run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Values = np.ndarray[tuple[int], np.dtype[np.float64]]


def sums(values: Values) -> ImageSums:
    """One sentence for each image, with these IoUs."""
    iou = np.rint(values * IOU_UNIT).astype(np.int64)
    ones = np.ones_like(iou)
    return ImageSums("same", iou, ones, iou, IOU_UNIT * ones)


def random_values(images: int, seed: int) -> Values:
    return np.random.default_rng(seed).uniform(0.2, 0.7, images)


# -- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.706), (2, 4.303), (10, 2.228), (1000, 1.962)])
def test_the_quantiles_of_students_distribution(freedom: float, expected: float) -> None:
    assert student_t(0.95, freedom) == pytest.approx(expected, rel=2e-3)


def test_a_clear_difference_is_decided_in_both_directions() -> None:
    values = random_values(400, 1)
    found = compare_rows({"a": [sums(values + 0.1)], "b": [sums(values)]}, "mIoU")
    assert found.differences["a", "b"].verdict == "yes"
    assert found.differences["a", "b"].value == pytest.approx(10, abs=0.01)
    assert found.differences["b", "a"].verdict == "no"


def test_a_row_is_not_better_than_an_equal_one() -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, 400)
    found = compare_rows({"a": [sums(random_values(400, 1))], "b": [sums(random_values(400, 1) + noise)]}, "mIoU")
    assert found.differences["a", "b"].verdict == "open"


@pytest.mark.parametrize("metric", ["mIoU", "oIoU"])
def test_an_interval_is_as_wide_as_the_paired_differences_require(metric: str) -> None:
    noise = np.random.default_rng(2).normal(0, 0.05, 900)
    a, b = random_values(900, 1), random_values(900, 1) + noise
    found = compare_rows({"a": [sums(a)], "b": [sums(b)]}, metric)
    expected = 100 * 1.963 * noise.std() / 900**0.5
    assert found.largest_half(of_single_trainings=True) == pytest.approx(expected, rel=0.1)
    assert found.over_images["a"] == pytest.approx(100 * a.std() / 900**0.5, rel=0.1)


def test_more_pairs_have_wider_intervals() -> None:
    all_rows = {name: [sums(random_values(400, seed))] for seed, name in enumerate("abcd")}
    two = compare_rows({name: all_rows[name] for name in "ab"}, "mIoU")
    four = compare_rows(all_rows, "mIoU")
    assert four.differences["a", "b"].half == pytest.approx(two.differences["a", "b"].half * 2.65 / 1.966, rel=0.02)


def test_the_spread_of_trainings_widens_the_interval() -> None:
    values = random_values(400, 1)
    trainings = [sums(values + shift) for shift in (-0.02, 0.0, 0.02)]
    one = compare_rows({"a": [sums(values + 0.03)], "b": [sums(values)]}, "mIoU")
    several = compare_rows({"a": [sums(values + 0.03)], "b": trainings}, "mIoU")
    assert several.over_trainings == {"b": pytest.approx(2.0, abs=0.01)}
    assert one.differences["a", "b"].verdict == "yes"
    assert several.differences["a", "b"].verdict == "open"
    assert several.largest_half(of_single_trainings=False) == pytest.approx(4.303 * 2.0 / 3**0.5, rel=0.02)


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models, `runs`, and the folder of their rows, `out`."""
    root = tmp_path_factory.mktemp("tested")
    for model, shift in (("lts", 1), ("vipa", 6)):
        measure(root / "out", model, make_run(root / "runs" / model, model, shift=shift))
    return root


def measure(out: Path, model: str, test: Path) -> None:
    accuracy, _ = rows.measured(Job(model, "scenes", "tiny"), test)
    rows.upsert(out, rows.ACCURACY, accuracy)


@pytest.fixture
def out(tested: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tested / "out", tmp_path / "out"))


def recorded_numbers_agree(folder: Path) -> int:
    """Compares mIoU and oIoU of the recorded sums with accuracy.csv; returns the number of rows."""
    found = read_sums(folder)
    measured = {
        (*(row[name] for name in IMAGES.key), row["weights"]): row
        for row in rows.ACCURACY.read(folder)
        if row["control"] == "none"
    }
    for key, each in found.items():
        for metric, tolerance in (("mIoU", 0.01), ("oIoU", 1e-4)):
            numerator, denominator = each.parts(metric)
            assert 100 * numerator.sum() / denominator.sum() == pytest.approx(
                float(measured[key][metric]), abs=tolerance
            )
    return len(found)


def test_the_committed_sums_agree_with_the_committed_rows() -> None:
    assert recorded_numbers_agree(BENCHMARKS) > 0, f"{BENCHMARKS / IMAGES.file} has no rows"


def test_sums_are_recorded_from_the_tests_of_a_folder(
    tested: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables_verb(["--out", str(out), "--from", str(tested / "runs")]) == 0
    assert "images.csv.gz: 2 rows from 2 tests" in capsys.readouterr().out
    assert recorded_numbers_agree(out) == 2
    before = (out / IMAGES.file).read_bytes()
    assert record(out, folders_of_tests(tested / "runs")) == 2
    assert (out / IMAGES.file).read_bytes() == before


def test_the_page_of_a_data_set_ends_with_the_matrix(tested: Path, out: Path) -> None:
    assert "Is A better than B?" not in pages.table(Results.read(out), "scenes"), "no sums are recorded yet"
    record(out, folders_of_tests(tested / "runs"))
    text = pages.table(Results.read(out), "scenes")
    measured = {row["model"]: float(row["mIoU"]) for row in rows.ACCURACY.read(out) if row["control"] == "none"}
    difference = measured["lts"] - measured["vipa"]
    assert "| split | A | than lts | than vipa |" in text
    assert f"| val | lts |  | yes {difference:+.2f} ± " in text
    assert f"| val | vipa | no {-difference:+.2f} ± " in text
    assert "Every larger difference in mIoU (oIoU) is significant: between rows of one training each val " in text
    assert "not measured, since every row is one training" in text


def test_the_matrix_is_printed_in_other_formats(tested: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="fewer than two rows of 'scenes' can be compared"):
        tables_verb(["--out", str(out), "--format", "latex", "--matrix"])
    record(out, folders_of_tests(tested / "runs"))
    assert tables_verb(["--out", str(out), "--format", "latex", "--matrix"]) == 0
    assert r"tiny & val & lts &  & yes +" in capsys.readouterr().out
    with pytest.raises(UserError, match="give --format"):
        tables_verb(["--out", str(out), "--matrix"])


def test_rows_of_two_scales_are_not_compared(tested: Path, out: Path) -> None:
    record(out, folders_of_tests(tested / "runs"))
    results = Results.read(out)
    assert list(comparisons(results, "scenes", ["val"], "mIoU")) == ["tiny"]
    other = [row | {"scale": "controlled"} for row in results.accuracy if row["control"] == "none"]
    results.accuracy += other
    assert list(comparisons(results, "scenes", ["val"], "mIoU")) == ["tiny"], "the other rows have no sums"
    sums = {(*key[:2], "controlled", *key[3:]): each for key, each in results.sums.items()}
    results.sums.update(sums)
    found = comparisons(results, "scenes", ["val"], "mIoU")
    assert list(found) == ["tiny", "controlled"]
    assert [each["val"].names for each in found.values()] == [("lts", "vipa")] * 2
    text = pages.table(results, "scenes")
    assert "\nScale tiny:\n" in text
    assert "\nScale controlled:\n" in text


def test_rows_of_other_sentences_are_not_compared(tested: Path, out: Path) -> None:
    record(out, folders_of_tests(tested / "runs"))
    results = Results.read(out)
    first = next(iter(results.sums))
    results.sums[first] = ImageSums("other", *(getattr(results.sums[first], name) for name in IMAGES.values[2:]))
    assert comparisons(results, "scenes", ["val"], "mIoU") == {}


def test_rows_recorded_meanwhile_keep_their_sums(tested: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one bench reads its test, another one records another model."""
    first, second = folders_of_tests(tested / "runs")
    accuracy = rows.ACCURACY.read(out)
    models = {str(first): "lts", str(second): "vipa"}
    own = [row for row in accuracy if row["model"] == models[str(first)]]
    rows.upsert(out, rows.ACCURACY, [], lambda row: row in own)
    results = image_sums._results

    def interrupted(test: Path) -> Any:
        monkeypatch.setattr(image_sums, "_results", results)
        rows.upsert(out, rows.ACCURACY, accuracy)
        record(out, [second])
        yield from results(test)

    monkeypatch.setattr(image_sums, "_results", interrupted)
    record(out, [first])
    assert {row["model"] for row in IMAGES.read(out)} == {"lts", "vipa"}


def test_a_replaced_row_loses_its_sums(tested: Path, out: Path) -> None:
    record(out, folders_of_tests(tested / "runs"))
    replaced = [row | {"weights": "new"} for row in rows.ACCURACY.read(out) if row["model"] == "lts"]
    rows.upsert(out, rows.ACCURACY, replaced)
    assert record(out, folders_of_tests(tested / "runs")) == 1
    assert [key[1] for key in read_sums(out)] == ["vipa"]


def test_a_folder_without_tests_is_an_error(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no tests: give --from a folder of runs"):
        tables_verb(["--out", str(out), "--from", str(tmp_path / "nothing")])
    for other in (["--check"], ["--format", "csv"]):
        with pytest.raises(UserError, match=rf"--from records sums: leave it out, or leave {other[0]} out"):
            tables_verb(["--out", str(out), "--from", str(tmp_path), *other])


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(b"data,iou\nscenes,1 x\n", mtime=0)],
    ids=["not gzip", "not a number"],
)
def test_a_damaged_file_is_named(out: Path, content: bytes) -> None:
    (out / IMAGES.file).write_bytes(content)
    with pytest.raises(UserError, match=r"images\.csv\.gz is damaged"):
        read_sums(out)
