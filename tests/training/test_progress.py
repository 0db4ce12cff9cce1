"""Progress outside a terminal is printed in lines: the first step at once, then by time."""

from __future__ import annotations

import re

import pytest

from riszoo.training.callbacks import progress
from tests.support.tiny_training import few_images, fit


def lines(capsys: pytest.CaptureFixture[str], seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a training of three steps prints on stderr, with a line due after so many seconds."""
    few_images(monkeypatch)
    monkeypatch.setattr(progress, "LINE_SECONDS", seconds)
    assert fit(trainer={"enable_progress_bar": True, "max_steps": 3, "val_check_interval": 2}) == 0
    return capsys.readouterr().err.splitlines()


def test_the_first_step_is_printed_with_its_time_and_nothing_else_soon_after(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = lines(capsys, 3600, monkeypatch)
    assert re.fullmatch(r"step 1 of 3: loss [\d.]+, [\d.]+ s for the first step", first)
    assert [re.sub(r"IoU [\d.e-]+", "IoU N", line) for line in others] == [
        "step 2 of 3: val/mIoU N, val/oIoU N",
        "step 3 of 3: val/mIoU N, val/oIoU N",
        "validation: batch 1 of 1",
    ]


def test_later_steps_are_printed_by_time(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    printed = lines(capsys, 0, monkeypatch)
    assert re.fullmatch(r"step 2 of 3: loss [\d.]+, [\d.e+-]+ s a step, about \d+ min left", printed[1])
    assert printed[2] == "validation: batch 1 of 1"
