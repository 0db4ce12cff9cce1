"""What a test prints about its controls."""

from __future__ import annotations

from typing import Any

from riszoo.training.recorder import control_gaps


def results(**means: float | None) -> dict[str, Any]:
    return {"splits": {name: {"protocols": {"original": {"values": {"mIoU": value}}}} for name, value in means.items()}}


def test_a_gap_is_printed_where_both_means_are_defined() -> None:
    assert control_gaps(results(**{"val": 50.0, "val-shuffled": 20.0})).startswith("language gap on val: 30.00")
    assert control_gaps(results(**{"val": None, "val-shuffled": None})) == "", "no sentence of the split has a target"
