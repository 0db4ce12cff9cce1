"""How many threads PyTorch uses on a CPU: as many as the processors that loading processes leave."""

from __future__ import annotations

import os
from pathlib import Path

import torch

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The limit of a container: microseconds of processor time, or `max`, in each period of so many microseconds."""


def processors() -> int:
    """The processors that this process may use: those of its affinity, or fewer where a container has a quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = QUOTA.read_text().split()
        return min(allowed, max(1, round(int(time) / int(period))))
    except (OSError, ValueError):  # no such file, or no limit
        return allowed


def has_accelerator() -> bool:
    """Whether there is a GPU or the like, which one job uses alone."""
    return torch.accelerator.is_available()


def leave_processors(workers: int) -> None:
    """Lower the number of threads so that `workers` loading processes have a processor each; OMP_NUM_THREADS wins."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), max(1, processors() - workers)))
