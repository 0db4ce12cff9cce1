"""Threads of an evaluation, as many as loading processes leave processors, and memory that a process keeps."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from riszoo.training import machine


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file of a container's quota, on a machine with eight processors and as many threads."""
    before = torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    torch.set_num_threads(8)
    yield tmp_path / "cpu.max"
    torch.set_num_threads(before)


@pytest.mark.parametrize(("workers", "expected"), [(0, 8), (1, 7), (7, 1), (16, 1)])
def test_loading_processes_have_a_processor_each(eight: Path, workers: int, expected: int) -> None:
    machine.leave_processors(workers)
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("200000 100000", 2), ("30000 100000", 1)])
def test_the_quota_of_a_container_limits_the_processors(eight: Path, quota: str, expected: int) -> None:
    eight.write_text(quota)
    assert machine.processors() == expected


def test_the_number_of_threads_is_never_raised(eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    machine.leave_processors(1)
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    machine.leave_processors(16)
    assert torch.get_num_threads() == 2


def test_a_loading_process_uses_one_thread() -> None:
    loader: DataLoader[int] = DataLoader([0], num_workers=1, collate_fn=lambda _: torch.get_num_threads())  # type: ignore[arg-type]
    (found,) = loader
    assert found == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such setting")
def test_kept_memory_is_not_mapped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    own = page_faults()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert own < page_faults() / 10  # the user's choice wins


def page_faults() -> int:
    """Of a process that makes and frees a tensor of 64 MiB ten times, after the first ten."""
    code = """
        import resource, torch
        from riszoo.training.machine import keep_memory
        keep_memory()
        faults = []
        for _ in range(21):
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
            torch.ones(1 << 24)
        print(faults[20] - faults[10])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    return int(done.stdout)
