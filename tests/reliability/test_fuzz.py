"""Mutated files are accepted or refused; a file that once was neither stays as a test of its reader."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from riszoo.data.readers.validation import RecordError, read_rle
from tests.reliability.fuzz import Outcome, mutate, report, run
from tests.reliability.untrusted import TARGETS, Target

CASES = 60


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_mutated_files_are_accepted_or_refused(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    assert target.prepare(folder)
    outcomes = run([(target, seed) for seed in range(CASES)], folder)
    assert len(outcomes) == CASES
    assert [outcome for outcome in outcomes if outcome.is_bug] == []


def test_a_mutation_depends_on_its_seed_alone() -> None:
    first, again, other = (mutate(b'{"a": [1, 2, 3]}' * 9, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other


def _crash(path: Path) -> None:
    raise ZeroDivisionError


def _fill_memory(path: Path) -> None:
    bytearray(8 << 30)


@pytest.mark.parametrize(("reader", "result"), [(_crash, "ZeroDivisionError"), (_fill_memory, "MemoryError")])
def test_a_bug_is_found(reader: object, result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "original").write_bytes(b"content")
    target = Target("bad", "file", lambda folder: None, reader)  # type: ignore[arg-type]
    (outcome,) = run([(target, 0)], tmp_path)
    assert outcome.result.startswith(result)
    assert report([outcome]) == 1
    assert "bad seed 0" in capsys.readouterr().out


def test_a_case_that_takes_too_long_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.reliability.fuzz.SECONDS", 1)
    (tmp_path / "original").write_bytes(b"content")
    target = Target("slow", "file", lambda folder: None, lambda path: [None for _ in iter(int, 1)])
    (outcome,) = run([(target, 0)], tmp_path)
    assert outcome == Outcome("slow", 0, "took over 1 s", 1.0)


def test_ragged_counts_of_an_rle_are_refused() -> None:
    with pytest.raises(RecordError, match="not a list of whole numbers"):
        read_rle({"size": [2, 2], "counts": [[1], [1, 2]]})
