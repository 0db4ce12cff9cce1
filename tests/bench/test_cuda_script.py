"""The prepared script for a GPU, on the CPU: its parts run, and what fails or has no time left is named."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import torch

from benchmarks.profiling import cuda
from riszoo.bench import rows


@pytest.fixture
def session(tmp_path: Path) -> cuda.Session:
    return cuda.Session(torch.device("cpu"), cuda.TINY, tmp_path, ["lts"], time.monotonic() + 600)


def test_a_model_is_checked_against_the_cpu(session: cuda.Session) -> None:
    session.run("check", lambda: cuda.check(session, "lts"))
    assert session.results == {"check": {"logits": 0.0, "gradients": 0.0}}


def test_another_result_is_a_failure(session: cuda.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    results = iter([{"logits": [torch.tensor([1.0, 2.0])]}, {"logits": [torch.tensor([1.0, 2.1])]}])
    monkeypatch.setattr(cuda, "logits_and_gradients", lambda model, device: next(results))
    session.run("check", lambda: cuda.check(session, "lts"))
    assert session.failures == ["check: logits differ by 5.0e-02"]


def test_a_measurement_is_a_row_of_speed_csv(session: cuda.Session) -> None:
    cuda.matrix_rate(session)
    cuda.measure(session, "lts", "bf16-mixed")
    (row,) = rows.SPEED.read(session.out)
    assert (row["data"], row["model"], row["scale"], row["variant"]) == ("scenes", "lts", "tiny", "bf16-mixed")
    assert "cpu" in row["device"]
    assert float(row["train_gflop"]) > 2 * 2 * float(row["gflop_1_sentence"]), "two passes over two images"
    assert float(row["matrix_share"]) > 0


def test_a_part_without_time_is_named(session: cuda.Session) -> None:
    session.run("late", lambda: 0, reserve=1e6)
    assert session.failures == ["late: no time was left"]


def test_a_part_ends_when_its_time_is_up(session: cuda.Session) -> None:
    session.run("long", lambda: signal.raise_signal(signal.SIGALRM))
    assert session.failures == ["long: the time was up"]
