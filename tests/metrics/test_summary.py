"""Every rule of the published evaluators on cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from riszoo.metrics.protocols import PROTOCOLS
from riszoo.metrics.sentence_table import MISSING, NO_HEAD, SentenceTable, width
from riszoo.metrics.summary import sentence_value, summarise
from tests.support.fake_batches import values_of


def test_overall_iou_weighs_by_area_and_mean_iou_by_sentence():
    got = values_of("lavt480", (1, 2, 1), (90, 90, 100), (0, 3, 5))
    assert got["oIoU"] == 100 * 91 / 110
    assert got["mIoU"] == pytest.approx(100 * (0.5 + 0.9 + 0) / 3, abs=1e-12)
    assert got["n"] == 3


@pytest.mark.parametrize("percent", [50, 60, 70, 80, 90])
def test_a_pair_exactly_at_a_threshold(percent):
    """U = 100, I = percent: the table of section 2."""
    tie = (percent, percent, 100)
    key = f"Pr@{percent / 100:g}"
    for name in ("original", "lavt480", "refzom", "maskris", "mmdet", "polyformer"):
        assert values_of(name, tie)[key] == 100
    for name in ("cris035", "cgformer"):
        assert values_of(name, tie)[key] == (100 if percent in (70, 90) else 0)
    for name in ("mcn", "vlt", "simrec"):
        assert values_of(name, tie)[key] == 100
    assert values_of("phrasecut", tie)[key] == 0
    assert values_of("phrasecut", (percent + 1, percent + 1, 100))[key] == 100
    assert values_of("lavt480", (10**7 * percent - 1, 10**7 * percent - 1, 10**9))[key] == 0


def test_mcn_reports_precision_in_steps_of_five():
    assert [k for k in values_of("mcn", (1, 1, 1)) if k.startswith("Pr")][:3] == ["Pr@0.5", "Pr@0.55", "Pr@0.6"]


@pytest.mark.parametrize(
    "name", ["lavt480", "phrasecut", "mmdet", "cris035", "cgformer", "mcn", "vlt", "simrec", "lisa", "evfsam"]
)
def test_two_empty_masks(name):
    expected = 100 if name in ("mcn", "vlt", "simrec", "lisa", "evfsam") else 0
    got = values_of(name, (0, 0, 0))
    assert got["mIoU"] == expected
    assert math.isnan(got["oIoU"])
    assert got["Pr@0.5"] == expected


def test_two_empty_masks_make_the_mean_of_maskris_nan():
    assert math.isnan(values_of("maskris", (0, 0, 0), (1, 1, 1))["mIoU"])


def test_smoothed_means():
    assert values_of("cris035", (1, 1, 2))["mIoU"] == 100 * (1 / (2 + 1e-6))
    assert values_of("lisa", (1, 1, 2))["mIoU"] == 100 * (1 / (2 + 1e-5))
    assert values_of("mcn", (1, 1, 2))["mIoU"] == 100 * ((1 + 1e-10) / (2 + 1e-10))


TN, MISSED = (6, 8, 10, False, 0), (6, 8, 10, False, 1)  # U = 12; the second is wrongly rejected
TP, STRAY, ALARM = (0, 0, 0, True, 1), (0, 5, 0, True, 1), (0, 5, 0, True, 0)


def test_rela_keeps_the_union_of_a_rejected_target_and_ignores_stray_pixels():
    got = values_of("rela", TN, MISSED, TP, STRAY, ALARM)
    assert got["gIoU"] == pytest.approx(100 * (0.5 + 0 + 1 + 1 + 0) / 5, abs=1e-12)
    assert got["cIoU"] == 100 * 6 / (12 + 12 + 0 + 0 + 5)
    assert got["N-acc"] == pytest.approx(200 / 3)
    assert got["T-acc"] == 50


def test_rela_keeps_that_union_in_the_means_over_targets():
    got = values_of("rela", TN, MISSED, ALARM)
    assert got["oIoU"] == 100 * 6 / 24
    assert got["mIoU"] == 25


def test_gsva_keeps_the_intersection_of_a_rejected_target():
    got = values_of("gsva", TN, MISSED, TP, STRAY, ALARM)
    assert got["gIoU"] == pytest.approx(100 * (0.5 + 0.5 + 1 + 1 + 0) / 5, abs=1e-12)
    assert got["cIoU"] == 100 * 12 / 29
    assert (got["N-acc"], got["T-acc"]) == (pytest.approx(200 / 3), 50)


def test_lisa_ignores_the_head():
    got = values_of("lisa", TN, MISSED, TP, STRAY, ALARM)
    assert got["gIoU"] == pytest.approx(100 * (6 / (12 + 1e-5) * 2 + 1 + 0 + 0) / 5, abs=1e-9)
    assert got["cIoU"] == 100 * 12 / (24 + 10)


def test_refzom_excludes_no_target_sentences_and_counts_empty_masks():
    got = values_of("refzom", TN, MISSED, TP, STRAY, ALARM)
    assert got["mIoU"] == 50
    assert got["n"] == 2
    assert got["acc"] == pytest.approx(100 / 3)


def test_rela_counts_precision_over_targets_from_070():
    hit = (9, 9, 10, False, 0)
    got = values_of("rela", hit, (9, 9, 10, False, 1), TP, ALARM)
    assert got["Pr@0.9"] == 50  # the same mask called empty does not pass
    assert "Pr@0.5" not in got
    assert values_of("gsva", hit, (9, 9, 10, False, 1))["Pr@0.9"] == 100


def test_rela_reports_zero_accuracies_without_no_target_sentences():
    got = values_of("rela", TN)
    assert (got["N-acc"], got["T-acc"]) == (0, 0)
    got = values_of("original", TN)
    assert all(math.isnan(got[name]) for name in ("N-acc", "T-acc")), "nothing was to be rejected"


def test_without_a_head_an_empty_or_small_mask_predicts_no_target():
    stray, small = (0, 49, 0, True, NO_HEAD), (20, 49, 60, False, NO_HEAD)
    assert values_of("rela", stray)["N-acc"] == 0
    assert values_of("rela50", stray)["N-acc"] == 100
    got = values_of("rela50", stray, small)
    assert (got["T-acc"], got["cIoU"]) == (0, 0)
    assert values_of("rela50", (0, 50, 0, True, NO_HEAD))["N-acc"] == 0
    assert values_of("rela", (0, 0, 7, False, NO_HEAD), stray)["T-acc"] == 0


def test_original_uses_the_head_only_in_the_no_target_metrics():
    got = values_of("original", TN, MISSED, ALARM)
    assert (got["mIoU"], got["oIoU"], got["n"]) == (50, 50, 2)
    assert got["cIoU"] == 100 * 6 / 29


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_no_rule_rewards_a_missing_prediction(name):
    protocol = PROTOCOLS[name]
    values = np.zeros((2, width([protocol])), np.int64)
    values[:, :3] = [(0, 1, MISSING), (1, 0, MISSING)]
    values[1, 5] = 30
    table = SentenceTable.sort([protocol], values)
    got = summarise(table, protocol)
    rewards = {"gIoU", "mIoU", "N-acc", "T-acc", "acc", "Pr@0.7", "oIoU", "cIoU"} & set(got)
    assert all(got[key] == 0 for key in rewards)
    assert (np.nan_to_num(sentence_value(table, protocol)) == 0).all()


# -- boxes around masks ----------------------------------------------------------------------------------------------


def with_boxes(name: str, *cases: tuple) -> dict[str, float]:
    """Cases are (I, |P|, |G|, predicted box, true box), boxes as top, left, bottom, right."""
    protocol = PROTOCOLS[name]
    values = np.zeros((len(cases), width([protocol])), np.int64)
    for i, (intersection, predicted, true, predicted_box, true_box) in enumerate(cases):
        values[i, :6] = i, 0, NO_HEAD, intersection, predicted, true
        values[i, -8:] = *predicted_box, *true_box
    return summarise(SentenceTable.sort([protocol], values), protocol)


WHOLE, THREE_QUARTERS, HALF_BOX = (0, 0, 8, 4), (0, 0, 6, 4), (0, 0, 4, 4)
RIGHT, WRONG = (6, 8, 8), (2, 8, 8)  # 6 / 10, 2 / 14


def test_boxes_are_half_open_and_each_protocol_has_its_tie():
    half = ((0, 0, 4, 4), (0, 0, 4, 8))
    assert with_boxes("original", (*RIGHT, *half))["box@0.5"] == 100
    assert with_boxes("mcn", (*RIGHT, *half))["box@0.5"] == 0
    assert with_boxes("mcn", (*RIGHT, (0, 0, 4, 5), (0, 0, 4, 8)))["box@0.5"] == 100
    assert with_boxes("original", (*RIGHT, (0, 0, 0, 0), (0, 0, 4, 8)))["box@0.5"] == 0
    assert with_boxes("original", (*RIGHT, (0, 0, 0, 0), (0, 0, 0, 0)))["box@0.5"] == 0
    assert with_boxes("original", (*RIGHT, (0, 0, 2, 2), (5, 5, 6, 6)))["box@0.5"] == 0


def test_ie_counts_sentences_with_exactly_one_of_mask_and_box_right():
    cases = [
        (*RIGHT, THREE_QUARTERS, WHOLE),  # both
        (*RIGHT, HALF_BOX, WHOLE),  # the mask alone: a box at exactly 0.5 does not pass
        (*WRONG, THREE_QUARTERS, WHOLE),  # the box alone
        (*WRONG, HALF_BOX, WHOLE),  # neither
        (4, 4, 8, HALF_BOX, WHOLE),  # each at exactly 0.5: the 1e-10 lets the mask pass, not the box
    ]
    for name in ("mcn", "simrec"):
        assert with_boxes(name, *cases)["IE"] == 60
    assert {name for name in PROTOCOLS if "IE" in with_boxes(name, cases[0])} == {"mcn", "simrec"}


def test_polyformer_compares_boxes_in_32_bit():
    assert with_boxes("polyformer", (*RIGHT, (0, 0, 2, 4), (0, 0, 4, 4)))["box@0.5"] == 0  # 8 / (16 + 1e-6)
    assert with_boxes("polyformer", (*RIGHT, HALF_BOX, WHOLE))["box@0.5"] == 100  # 16 / 32
    assert with_boxes("lavt480", (*RIGHT, (0, 0, 2, 4), (0, 0, 4, 4)))["box@0.5"] == 100
