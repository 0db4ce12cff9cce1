"""Trains, tests and segments in one process for a given time; fails where memory or open files grow.

`make soak` runs it for 30 minutes. Figures are in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from riszoo.cli.main import main as riszoo

WARM_UP = 0.25
"""Share of the cycles that load libraries and fill caches; they are not compared."""
MEMORY_MARGIN_MIB = 32.0
FILE_MARGIN = 0.0

MODEL = ["--model", "lts", "--model.size", "64"]
SMALL = [
    "--data.batch_size", "4", "--data.total_batch_size", "4", "--data.sentences_per_image", "2", "--data.workers", "0",
    "--data.val_images", "2", "--data.eval_images", "2", "--trainer.enable_progress_bar", "false",
    "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1",
]  # fmt: skip
STEPS = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]


@dataclass(frozen=True)
class Usage:
    """Resources of this process: resident memory in MiB, open files, threads."""

    memory: float
    files: int
    threads: int

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return cls(memory, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))  # noqa: PTH208


def growth(values: list[float]) -> float:
    """Median of the last third minus median of the first third, without the warm-up."""
    warm = values[int(len(values) * WARM_UP) :]
    third = max(1, len(warm) // 3)
    return statistics.median(warm[-third:]) - statistics.median(warm[:third])


def cycle(root: Path) -> None:
    """Train, test and segment once, in process, into a fresh folder."""
    runs = ["--run.root", str(root / "runs")]
    image = root / "image.png"
    Image.new("RGB", (80, 60), (200, 40, 40)).save(image)
    segment = [
        "segment",
        "--model",
        "lts",
        *runs,
        "--image",
        str(image),
        "--out",
        str(root / "out"),
        "--text",
        "circle",
    ]
    for argv in (
        ["fit", *MODEL, *runs, *STEPS, *SMALL],
        ["test", *MODEL[:2], *runs, *SMALL, "--split", "val"],
        segment,
    ):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = riszoo(argv)
        if code != 0:
            raise SystemExit(f"'riszoo {' '.join(argv)}' exited with {code}: {output.getvalue()[-1000:]}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args(argv).minutes
    usage: list[Usage] = []
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end or len(usage) < 8:
        with tempfile.TemporaryDirectory() as root:
            cycle(Path(root))
        usage.append(Usage.now())
        last = usage[-1]
        print(f"cycle {len(usage)}: {last.memory:.0f} MiB, {last.files} files, {last.threads} threads", flush=True)
    return report(usage)


def report(usage: list[Usage]) -> int:
    """Print the growth of each resource; returns 1 where one exceeds its margin."""
    checks = {
        "memory in MiB": ([u.memory for u in usage], MEMORY_MARGIN_MIB),
        "open files": ([float(u.files) for u in usage], FILE_MARGIN),
        "threads": ([float(u.threads) for u in usage], FILE_MARGIN),
    }
    print(f"{len(usage)} cycles of fit, test and segment")
    failed = 0
    for name, (values, margin) in checks.items():
        grown = growth(values)
        verdict = "grows" if grown > margin else "stable"
        failed |= grown > margin
        print(f"{name}: first {values[0]:.0f}, last {values[-1]:.0f}, growth {grown:+.1f} of {margin:.0f}: {verdict}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
