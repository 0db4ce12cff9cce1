"""What every test may rely on: no network, one thread (RISZOO_TEST_THREADS changes it), seeds, and small recipes."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _calm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs land in the test's own folder; no data set is found, and nothing is downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RISZOO_DATA", raising=False)
    monkeypatch.delenv("RISZOO_DOWNLOAD", raising=False)
    return


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Skipped browser tests are reported even with -q."""
    skipped = terminalreporter.stats.get("skipped", [])
    if any("no chromium" in str(report.longrepr) for report in skipped):
        terminalreporter.write_line("The report was not tested in a browser: apt-get install chromium, or set CHROME")


def pytest_configure(config: Any) -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("RISZOO_TEST_THREADS", "1")))
    # the thread pool of OpenMP does not survive a fork: a child that entered it would wait for ever
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
