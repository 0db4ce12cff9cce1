"""Boxes around masks, and the sentences of several splits taken together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from riszoo.metrics.console import render
from riszoo.metrics.protocols import PROTOCOLS, get_protocols
from riszoo.metrics.results import Evaluation, pooled_reports, read_evaluation, write_results
from riszoo.metrics.rows import NO_HEAD, Rows, width
from riszoo.metrics.summary import summarise
from tests.support.fake_batches import Blobs

# -- boxes of masks: IE, and the rules of protocols ------------------------------------------------------------------


def counted(name: str, *cases: tuple) -> dict[str, float]:
    """Cases are (I, |P|, |G|, predicted box, true box), boxes as top, left, bottom, right."""
    protocol = PROTOCOLS[name]
    values = np.zeros((len(cases), width([protocol])), np.int64)
    for i, (both, predicted, true, found_box, true_box) in enumerate(cases):
        values[i, :6] = i, 0, NO_HEAD, both, predicted, true
        values[i, -8:] = *found_box, *true_box
    return summarise(Rows.sort([protocol], values), protocol)


WHOLE, THREE_QUARTERS, HALF_BOX = (0, 0, 8, 4), (0, 0, 6, 4), (0, 0, 4, 4)
RIGHT, WRONG = (6, 8, 8), (2, 8, 8)  # 6 / 10, 2 / 14


def test_exactly_one_of_mask_and_box_right():
    cases = [
        (*RIGHT, THREE_QUARTERS, WHOLE),  # both
        (*RIGHT, HALF_BOX, WHOLE),  # the mask alone: a box at exactly 0.5 does not pass
        (*WRONG, THREE_QUARTERS, WHOLE),  # the box alone
        (*WRONG, HALF_BOX, WHOLE),  # neither
        (4, 4, 8, HALF_BOX, WHOLE),  # each at exactly 0.5: the mask is lifted over it by the 1e-10, the box is not
    ]
    for name in ("mcn", "simrec"):
        assert counted(name, *cases)["IE"] == 60
    assert {name for name in PROTOCOLS if "IE" in counted(name, cases[0])} == {"mcn", "simrec"}


def test_polyformer_judges_boxes_in_32_bit():
    assert counted("polyformer", (*RIGHT, (0, 0, 2, 4), (0, 0, 4, 4)))["box@0.5"] == 0  # 8 / (16 + 1e-6)
    assert counted("polyformer", (*RIGHT, HALF_BOX, WHOLE))["box@0.5"] == 100  # 16 / 32
    assert counted("lavt480", (*RIGHT, (0, 0, 2, 4), (0, 0, 4, 4)))["box@0.5"] == 100


# -- several splits of one run: ReLA's `full` ------------------------------------------------------------------------


def split_of(name: str, *cases: tuple, control: str = "none") -> Evaluation:
    """Cases are (I, |P|, |G|, no_target, head) under `rela`, after as many zeros for `original`."""
    protocols = get_protocols("original,rela")
    values = np.zeros((len(cases), width(protocols)), np.int64)
    for i, (both, predicted, true, nothing, head) in enumerate(cases):
        values[i, :3] = i, nothing, head
        values[i, 16:19] = both, predicted, true
    samples = [replace(sample, split=name) for sample in Blobs(images=2).samples[: len(cases)]]
    return Evaluation(Rows.sort(protocols, values), samples, {"control": control})


A = ((6, 8, 10, 0, 0), (0, 5, 0, 1, 0))  # U = 12; a false alarm of 5
B = ((9, 9, 10, 0, 0), (6, 8, 10, 0, 1), (0, 3, 0, 1, 1))  # 9/10; called empty: 0 and U = 12; rightly empty


def test_several_splits_under_rela_are_also_taken_together():
    run = {"val": split_of("val", *A), "testA": split_of("testA", *B)}
    full = pooled_reports(run)["full"]
    values = full["protocols"]["rela"]["values"]
    assert values["gIoU"] == pytest.approx(100 * (0.5 + 0 + 0.9 + 0 + 1) / 5)
    assert values["cIoU"] == 100 * (6 + 0 + 9 + 0) / (12 + 5 + 10 + 12)
    assert (values["N-acc"], values["T-acc"]) == (50, pytest.approx(200 / 3))
    assert values["Pr@0.9"] == pytest.approx(100 / 3)
    assert (full["of"], full["sentences"], full["no_target_sentences"]) == (["testA", "val"], 5, 2)
    assert list(full["protocols"]) == ["rela"]


def test_one_split_or_a_control_is_not_taken_together(tmp_path: Path):
    one, other = split_of("val", *A), split_of("val", *B, control="shuffled")
    assert pooled_reports({"val": one}) == {}
    assert pooled_reports({"val": one, "val-shuffled": other}) == {}
    assert "pooled" not in write_results(tmp_path, {"val": one}, {})


def test_the_pooled_row_is_written_and_shown_whatever_the_order(tmp_path: Path):
    run = {"val": split_of("val", *A), "testA": split_of("testA", *B)}
    metrics = write_results(tmp_path / "one", run, {})
    write_results(tmp_path / "two", dict(reversed(run.items())), {})
    first, second = ((tmp_path / name / "metrics.json").read_bytes() for name in ("one", "two"))
    assert first == second
    original, rela = render(metrics).split("rela: ")
    assert "full" not in original
    assert [line.split()[0] for line in rela.splitlines() if line.startswith("full")] == ["full", "full"]
    assert len(read_evaluation(tmp_path / "one", "testA").rows) == 3
