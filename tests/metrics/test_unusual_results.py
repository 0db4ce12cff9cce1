"""Results with names, counts and answers that are unusual; nothing here needs a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from riszoo.batch import Sample
from riszoo.errors import UserError
from riszoo.metrics.compare import compare
from riszoo.metrics.external import ScoredPredictions
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.results import (
    METRICS,
    Evaluation,
    read_evaluation,
    report,
    result_folder,
    sentences_file,
    write_results,
)
from riszoo.metrics.sentence_table import COUNTS, MISSING, NO_HEAD, SHARED, SentenceTable


def evaluation(heads: list[int], shift: int = 0, text: str = "a cat") -> Evaluation:
    """One sentence for each answer of a no-target head, with an intersection of 10 pixels and more."""
    values = np.zeros((len(heads), len(SHARED) + len(COUNTS)), np.int64)
    values[:, 0], values[:, 2] = np.arange(len(heads)), heads
    values[:, len(SHARED) : len(SHARED) + 3] = 10 + shift, 30, 30
    samples = [Sample(f"s{i}", i, "own", "val", f"image{i}", "0", text) for i in range(len(heads))]
    return Evaluation(SentenceTable.sort(get_protocols("original"), values), samples, {"expressions": "all"})


@pytest.mark.parametrize(
    ("heads", "source"),
    [([0, 1], "head"), ([0, MISSING], "head"), ([0, NO_HEAD], "empty mask"), ([MISSING], "empty mask")],
)
def test_a_missing_prediction_does_not_hide_the_no_target_head(heads: list[int], source: str):
    (entry,) = report(evaluation(heads))["protocols"].values()
    assert entry["definition"]["no_target_from"] == source


def test_the_newest_test_is_found_among_those_of_one_second(tmp_path: Path):
    times = ("20260102-000000", "20260102-000000-1", "20260102-000000-2", "20260102-000000-10", "20260103-000000")
    for time in times:
        folder = tmp_path / f"test-scenes-{time}"
        folder.mkdir()
        (folder / METRICS).write_text("{}")
        assert result_folder(tmp_path) == folder


def test_a_count_that_no_image_has_is_an_error(tmp_path: Path):
    write_results(tmp_path, {"val": evaluation([NO_HEAD])}, {})
    file = sentences_file(tmp_path, "val")
    file.write_text(f"{file.read_text().rstrip().rpartition(',')[0]},{2**64}\n")
    with pytest.raises(UserError, match="do not belong together"):
        read_evaluation(tmp_path, "val")


def test_control_codes_of_a_sentence_are_not_printed(tmp_path: Path):
    for name, shift in (("a", 0), ("b", 5)):
        write_results(tmp_path / name, {"val": evaluation([NO_HEAD], shift, "a \x1b[2J cat\nof two lines")}, {})
    text = compare(tmp_path / "a", tmp_path / "b")
    assert r"a \x1b[2J cat\x0aof two lines" in text


def test_warnings_can_be_printed_whatever_the_files_are_called():
    latin = b"gr\xf6\xdfe".decode("utf-8", "surrogateescape")  # as the name of a file that is not UTF-8 is read
    (warning,) = ScoredPredictions(evaluation([NO_HEAD]), unexpected=[latin, "\x1b[2J"]).warnings()
    assert warning.encode().endswith(rb"ignored: gr\xdcf6\xdcdfe, \x1b[2J")
