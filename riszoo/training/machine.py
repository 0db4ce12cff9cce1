"""What a process takes of a CPU machine: as many threads as loading processes leave processors, and memory to keep."""

from __future__ import annotations

import ctypes
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


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""The settings of glibc's `mallopt` that are used here, by the numbers of its header."""
KEPT = 1 << 28
"""A tensor of fewer bytes is made of kept memory."""


def keep_memory() -> None:
    """Keep the memory of freed tensors for the next ones; MALLOC_TRIM_THRESHOLD_ wins.

    glibc gives large freed blocks back to the operating system, which then maps and clears every page of the next
    step's tensors again. Nothing happens where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        mallopt(M_TRIM_THRESHOLD, -1)  # never
        if not mallopt(M_MMAP_THRESHOLD, KEPT):
            mallopt(M_MMAP_MAX, 0)  # where so large a threshold is refused
