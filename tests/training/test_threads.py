"""Threads of an evaluation: the processors of the machine or its container, less those of loading processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from riszoo.training import threads


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file of a container's quota, on a machine with eight processors and as many threads."""
    before = torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    torch.set_num_threads(8)
    yield tmp_path / "cpu.max"
    torch.set_num_threads(before)


@pytest.mark.parametrize(("workers", "expected"), [(0, 8), (1, 7), (7, 1), (16, 1)])
def test_loading_processes_have_a_processor_each(eight: Path, workers: int, expected: int) -> None:
    threads.leave_processors(workers)
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("200000 100000", 2), ("30000 100000", 1)])
def test_the_quota_of_a_container_limits_the_processors(eight: Path, quota: str, expected: int) -> None:
    eight.write_text(quota)
    assert threads.processors() == expected


def test_the_number_of_threads_is_never_raised(eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    threads.leave_processors(1)
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads.leave_processors(16)
    assert torch.get_num_threads() == 2


def test_a_loading_process_uses_one_thread() -> None:
    loader: DataLoader[int] = DataLoader([0], num_workers=1, collate_fn=lambda _: torch.get_num_threads())  # type: ignore[arg-type]
    (found,) = loader
    assert found == 1
