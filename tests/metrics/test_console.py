"""Results as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from riszoo.metrics.console import render
from riszoo.metrics.results import write_results
from tests.support.fake_batches import Blobs, evaluated


def test_tables_are_narrow_and_show_no_target_metrics_only_where_defined(blobs: Blobs, tmp_path: Path):
    text = render(write_results(tmp_path, {"val": evaluated(blobs, "original,mcn,refzom")}, {}))
    assert max(map(len, text.splitlines())) <= 100
    assert "N-acc" in text
    assert "acc" in text.split("refzom")[1]
    targeted = evaluated(blobs, "original")
    targeted = replace(targeted, table=targeted.table.take(~targeted.table.no_target))
    assert "N-acc" not in render(write_results(tmp_path, {"val": targeted}, {}))
