"""Two runs on the same sentences."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from riszoo.cli.results.compare import main as compare_command
from riszoo.errors import UserError
from riszoo.metrics.compare import compare
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.results import read_evaluation, write_results
from riszoo.metrics.summary import sentence_value
from tests.support.fake_batches import Blobs, evaluated


@pytest.fixture
def two_runs(blobs: Blobs, tmp_path: Path) -> tuple[Path, Path]:
    worse = Blobs()
    worse.logits = worse.logits.clone()
    worse.logits[0] = -1  # an empty mask for s0, blurred masks for the rest
    worse.logits[1:] = torch.nn.functional.avg_pool2d(worse.logits[1:], 5, stride=1, padding=2)
    for name, each in (("a", worse), ("b", blobs)):
        write_results(tmp_path / name, {"val": evaluated(each, "original,lavt480")}, {})
    return tmp_path / "a", tmp_path / "b"


def test_compare_prints_differences_and_largest_gains(two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    assert compare_command([*map(str, two_runs)]) == 0
    text = capsys.readouterr().out
    a, b = (read_evaluation(folder, "val") for folder in two_runs)
    (original,) = get_protocols("original")
    counts = [r.table.counts(original) for r in (a, b)]
    targeted = ~a.table.no_target
    values = [sentence_value(r.table, original) for r in (a, b)]
    shares = [c.intersection[targeted].sum() / c.union[targeted].sum() for c in counts]
    assert f"difference {100 * (shares[1] - shares[0]):+.2f}" in text
    assert "21 sentences about 7 images" in text
    gains = text.split("B gains most on:")[1]
    assert gains.split()[1] == a.samples[int(np.argmax(values[1] - values[0]))].sentence_id
    assert "by type:" in text
    assert "none" in text
    assert "p = " in text


def test_compare_by_length_and_under_another_protocol(two_runs: tuple[Path, Path]):
    text = compare(*two_runs, protocol="lavt480", by="length")
    assert "1 to 2 words" in text
    assert "3 to 5 words" in text
    with pytest.raises(UserError, match="not evaluated with protocol 'rela'; it has original, lavt480"):
        compare(*two_runs, protocol="rela")


def test_a_run_compared_with_itself_does_not_differ(two_runs: tuple[Path, Path]):
    text = compare(two_runs[0], two_runs[0])
    assert text.count("difference +0.00  95 % interval [+0.00, +0.00]") == 2
    assert "equal on 21" in text
    assert "most on" not in text


def test_a_runs_folder_is_compared_by_its_newest_test(two_runs: tuple[Path, Path], tmp_path: Path):
    for run, folder in zip(("one", "two"), two_runs, strict=True):
        shutil.copytree(folder, tmp_path / run / "test-scenes-20260101-000000")
    lines = compare(tmp_path / "one", tmp_path / "two").splitlines()
    assert lines[0].endswith("B = " + str(tmp_path / "two" / "test-scenes-20260101-000000"))
    assert lines[1:] == compare(*two_runs).splitlines()[1:]


def test_sentences_in_one_run_only_are_left_out_and_counted(two_runs: tuple[Path, Path], blobs: Blobs, tmp_path: Path):
    result = evaluated(blobs, "original")
    part = replace(result, table=result.table.take(result.table.index > 4))
    write_results(tmp_path / "part", {"val": part}, {})
    text = compare(two_runs[0], tmp_path / "part")
    assert "16 sentences about" in text
    assert "5 sentences only in A, 0 only in B" in text


def test_runs_with_different_ground_truths_or_sentences_are_not_compared(two_runs: tuple[Path, Path], tmp_path: Path):
    other = Blobs()
    other.masks = [~mask for mask in other.masks]
    write_results(tmp_path / "other", {"val": evaluated(other, "original")}, {})
    with pytest.raises(UserError, match="different ground truths"):
        compare(two_runs[0], tmp_path / "other")
    other.samples = [replace(s, sentence_id=f"x{s.sentence_id}") for s in other.samples]
    write_results(tmp_path / "other", {"test": evaluated(other, "original")}, {})
    with pytest.raises(UserError, match="no split is in both runs: A has val, B has test"):
        compare(two_runs[0], tmp_path / "other")


def test_sentences_whose_ids_repeat_are_paired_by_image_and_target(two_runs: tuple[Path, Path], tmp_path: Path):
    for name, folder in zip("cd", two_runs, strict=True):
        result = read_evaluation(folder, "val")
        samples = [replace(s, sentence_id=f"same {s.index % 2}", target_id=str(s.index)) for s in result.samples]
        write_results(tmp_path / name, {"val": replace(result, samples=samples)}, {})
    lines = compare(tmp_path / "c", tmp_path / "d").splitlines()
    assert lines[1:5] == compare(*two_runs).splitlines()[1:5]
