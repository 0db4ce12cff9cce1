"""Every rule of the published evaluators on cases worked by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from riszoo.errors import UserError
from riszoo.metrics.counts import band_width, count, erode
from riszoo.metrics.protocols import PROTOCOLS, get_protocols
from riszoo.metrics.rows import COUNTS, NO_ANSWER, NO_HEAD, Rows, width
from riszoo.metrics.summary import sentence_value, summarise
from tests.support.fake_batches import disc


def table(name: str, *cases: tuple) -> dict[str, float]:
    """Cases are (I, |P|, |G|) and, where nothing may be meant, (I, |P|, |G|, no_target, head)."""
    protocol = PROTOCOLS[name]
    values = np.zeros((len(cases), width([protocol])), np.int64)
    for i, case in enumerate(cases):
        both, predicted, true, nothing, head = (*case, False, NO_HEAD) if len(case) == 3 else case
        values[i, :6] = i, nothing, head, both, predicted, true
    return summarise(Rows.sort([protocol], values), protocol)


def test_overall_weighs_area_and_mean_weighs_sentences():
    got = table("lavt480", (1, 2, 1), (90, 90, 100), (0, 3, 5))
    assert got["oIoU"] == 100 * 91 / 110
    assert got["mIoU"] == pytest.approx(100 * (0.5 + 0.9 + 0) / 3, abs=1e-12)
    assert got["n"] == 3


@pytest.mark.parametrize("percent", [50, 60, 70, 80, 90])
def test_a_pair_exactly_at_a_threshold(percent):
    """U = 100, I = percent: the table of section 2."""
    tie = (percent, percent, 100)
    key = f"Pr@{percent / 100:g}"
    for name in ("original", "lavt480", "refzom", "maskris", "mmdet", "polyformer"):
        assert table(name, tie)[key] == 100
    for name in ("cris035", "cgformer"):
        assert table(name, tie)[key] == (100 if percent in (70, 90) else 0)
    for name in ("mcn", "vlt", "simrec"):
        assert table(name, tie)[key] == 100
    assert table("phrasecut", tie)[key] == 0
    assert table("phrasecut", (percent + 1, percent + 1, 100))[key] == 100
    assert table("lavt480", (10**7 * percent - 1, 10**7 * percent - 1, 10**9))[key] == 0


def test_mcn_reports_every_five_hundredths():
    assert [k for k in table("mcn", (1, 1, 1)) if k.startswith("Pr")][:3] == ["Pr@0.5", "Pr@0.55", "Pr@0.6"]


@pytest.mark.parametrize(
    "name", ["lavt480", "phrasecut", "mmdet", "cris035", "cgformer", "mcn", "vlt", "simrec", "lisa"]
)
def test_empty_against_empty(name):
    expected = 100 if name in ("mcn", "vlt", "simrec", "lisa") else 0
    got = table(name, (0, 0, 0))
    assert got["mIoU"] == expected
    assert math.isnan(got["oIoU"])
    assert got["Pr@0.5"] == expected


def test_one_pair_of_empties_spoils_maskris_mean():
    assert math.isnan(table("maskris", (0, 0, 0), (1, 1, 1))["mIoU"])


def test_smoothed_means():
    assert table("cris035", (1, 1, 2))["mIoU"] == 100 * (1 / (2 + 1e-6))
    assert table("lisa", (1, 1, 2))["mIoU"] == 100 * (1 / (2 + 1e-5))
    assert table("mcn", (1, 1, 2))["mIoU"] == 100 * ((1 + 1e-10) / (2 + 1e-10))


TN, MISSED = (6, 8, 10, False, 0), (6, 8, 10, False, 1)  # U = 12; the second is wrongly called empty
TP, STRAY, ALARM = (0, 0, 0, True, 1), (0, 5, 0, True, 1), (0, 5, 0, True, 0)


def test_rela_keeps_the_union_of_a_mask_it_calls_empty_and_forgives_stray_pixels():
    got = table("rela", TN, MISSED, TP, STRAY, ALARM)
    assert got["gIoU"] == pytest.approx(100 * (0.5 + 0 + 1 + 1 + 0) / 5, abs=1e-12)
    assert got["cIoU"] == 100 * 6 / (12 + 12 + 0 + 0 + 5)
    assert got["N-acc"] == pytest.approx(200 / 3)
    assert got["T-acc"] == 50


def test_rela_on_targets_alone_keeps_that_union_too():
    got = table("rela", TN, MISSED, ALARM)
    assert got["oIoU"] == 100 * 6 / 24
    assert got["mIoU"] == 25


def test_gsva_keeps_the_overlap_too():
    got = table("gsva", TN, MISSED, TP, STRAY, ALARM)
    assert got["gIoU"] == pytest.approx(100 * (0.5 + 0.5 + 1 + 1 + 0) / 5, abs=1e-12)
    assert got["cIoU"] == 100 * 12 / 29
    assert (got["N-acc"], got["T-acc"]) == (pytest.approx(200 / 3), 50)


def test_lisa_knows_no_flags():
    got = table("lisa", TN, MISSED, TP, STRAY, ALARM)
    assert got["gIoU"] == pytest.approx(100 * (6 / (12 + 1e-5) * 2 + 1 + 0 + 0) / 5, abs=1e-9)
    assert got["cIoU"] == 100 * 12 / (24 + 10)


def test_refzom_leaves_no_target_out_and_asks_for_not_one_pixel():
    got = table("refzom", TN, MISSED, TP, STRAY, ALARM)
    assert got["mIoU"] == 50
    assert got["n"] == 2
    assert got["acc"] == pytest.approx(100 / 3)


def test_rela_counts_precision_over_targets_from_070():
    hit = (9, 9, 10, False, 0)
    got = table("rela", hit, (9, 9, 10, False, 1), TP, ALARM)
    assert got["Pr@0.9"] == 50  # the same mask called empty does not pass
    assert "Pr@0.5" not in got
    assert table("gsva", hit, (9, 9, 10, False, 1))["Pr@0.9"] == 100


def test_rela_prints_zero_accuracies_where_something_is_always_meant():
    got = table("rela", TN)
    assert (got["N-acc"], got["T-acc"]) == (0, 0)


def test_without_a_head_an_empty_or_a_small_mask_says_nothing():
    stray, small = (0, 49, 0, True, NO_HEAD), (20, 49, 60, False, NO_HEAD)
    assert table("rela", stray)["N-acc"] == 0
    assert table("rela50", stray)["N-acc"] == 100
    got = table("rela50", stray, small)
    assert (got["T-acc"], got["cIoU"]) == (0, 0)
    assert table("rela50", (0, 50, 0, True, NO_HEAD))["N-acc"] == 0
    assert table("rela", (0, 0, 7, False, NO_HEAD), stray)["T-acc"] == 0


def test_original_judges_the_mask_on_targets_and_the_flag_in_general_numbers():
    got = table("original", TN, MISSED, ALARM)
    assert (got["mIoU"], got["oIoU"], got["n"]) == (50, 50, 2)
    assert got["cIoU"] == 100 * 6 / 29


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_no_rule_rewards_a_missing_answer(name):
    protocol = PROTOCOLS[name]
    values = np.zeros((2, width([protocol])), np.int64)
    values[:, :3] = [(0, 1, NO_ANSWER), (1, 0, NO_ANSWER)]
    values[1, 5] = 30
    rows = Rows.sort([protocol], values)
    got = summarise(rows, protocol)
    rewards = {"gIoU", "mIoU", "N-acc", "T-acc", "acc", "Pr@0.7", "oIoU", "cIoU"} & set(got)
    assert all(got[key] == 0 for key in rewards)
    assert (np.nan_to_num(sentence_value(rows, protocol)) == 0).all()


def test_counts_of_a_pair_worked_by_hand():
    predicted, true = torch.zeros(2, 1, 10, 12, dtype=torch.bool)
    predicted[0, 1:5, 2:8] = True  # 24 cells
    true[0, 3:9, 4:10] = True  # 36 cells
    got = dict(zip(COUNTS, count(predicted, true, [(10, 12)], 0.0)[0].tolist(), strict=True))
    assert (got["both"], got["predicted"], got["true"]) == (8, 24, 36)
    assert [got[f"predicted_{side}"] for side in ("top", "left", "bottom", "right")] == [1, 2, 5, 8]
    assert [got[f"true_{side}"] for side in ("top", "left", "bottom", "right")] == [3, 4, 9, 10]


def test_a_window_counts_as_the_frame_it_was_cut_from():
    """The first pair's window holds all of its 12 cells; the second's prediction is empty and stays at no place."""
    predicted, true = torch.zeros(2, 2, 10, 12, dtype=torch.bool)
    predicted[0, 3:6, 4:8] = True
    true[:, 5:9, 2:5] = True
    whole = count(predicted, true, [(10, 12)] * 2, 0.02)
    window = count(predicted[:, 2:7, 3:10], true, [(10, 12)] * 2, 0.02, corner=(2, 3))
    assert torch.equal(window, whole)
    assert whole[0].tolist() == [1, 12, 12, 1, 19, 3, 4, 6, 8, 5, 2, 9, 5]  # rims of 10 cells each that share one
    assert whole[1].tolist() == [0, 0, 12, 0, 10, 0, 0, 0, 0, 5, 2, 9, 5]


def boxed(name: str, predicted: tuple, true: tuple) -> float:
    protocol = PROTOCOLS[name]
    values = np.zeros((1, width([protocol])), np.int64)
    values[0, -8:] = *predicted, *true
    return summarise(Rows.sort([protocol], values), protocol)["box@0.5"]


def test_boxes_have_exclusive_edges_and_each_protocol_its_tie():
    half = ((0, 0, 4, 4), (0, 0, 4, 8))
    assert boxed("original", *half) == 100
    assert boxed("mcn", *half) == 0
    assert boxed("mcn", (0, 0, 4, 5), (0, 0, 4, 8)) == 100
    assert boxed("original", (0, 0, 0, 0), (0, 0, 4, 8)) == 0
    assert boxed("original", (0, 0, 0, 0), (0, 0, 0, 0)) == 0
    assert boxed("original", (0, 0, 2, 2), (5, 5, 6, 6)) == 0


@pytest.mark.parametrize("reach", [1, 2, 3, 5])
def test_erosion_is_a_minimum_over_a_square_with_background_outside(reach):
    torch.manual_seed(2)
    masks = torch.rand(3, 19, 23) > 0.02
    outside = torch.nn.functional.pad((~masks).float(), [reach] * 4, value=1.0)
    slow = torch.nn.functional.max_pool2d(outside[:, None], 2 * reach + 1, stride=1)[:, 0] == 0
    assert torch.equal(erode(masks, reach), slow)
    assert not erode(torch.ones(1, 2, 30, dtype=torch.bool), 1).any()


def test_the_boundary_measure_sees_a_ragged_outline_that_iou_hardly_notices():
    size = (100, 100)
    true = torch.from_numpy(disc(size, (50, 50), 40))
    blunt = torch.from_numpy(disc(size, (50, 50), 38.5))
    counts = count(torch.stack([blunt, true]), torch.stack([true, true]), [size, size], 0.02)
    iou = counts[:, 0] / (counts[:, 1] + counts[:, 2] - counts[:, 0])
    band = counts[:, 3] / counts[:, 4]
    assert iou[0] > 0.9
    assert 0.3 < band[0] < 0.6
    assert band[1] == 1
    assert band_width(size, 0.02) == 3
    assert band_width((5, 5), 0.02) == 1


def test_images_of_many_sizes_have_bands_of_their_own_width():
    sizes = [(100, 100), (40, 30), (100, 100), (300, 20)]
    masks = torch.zeros(2, 4, 300, 100, dtype=torch.bool)
    for i, (height, wide) in enumerate(sizes):
        masks[0, i, 1 : height - 2, 1 : wide - 3] = True
        masks[1, i, : height // 2, :wide] = True
    together = count(masks[0], masks[1], sizes, 0.02)
    for i, (height, wide) in enumerate(sizes):
        alone = count(masks[0, i : i + 1, :height, :wide], masks[1, i : i + 1, :height, :wide], [sizes[i]], 0.02)
        assert torch.equal(together[i : i + 1], alone)


def test_names_resolve_and_a_wrong_one_is_told_the_nearest():
    assert [p.name for p in get_protocols("original, published", published="mcn")] == ["original", "mcn"]
    assert [p.name for p in get_protocols(["published", "original"], published="original")] == ["original"]
    with pytest.raises(UserError, match="did you mean 'lavt480'"):
        get_protocols("lavt840")
    with pytest.raises(UserError, match="names no published protocol"):
        get_protocols("published")
    with pytest.raises(UserError, match="no protocol is named"):
        get_protocols(" ,")


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_definition_is_plain_and_says_what_a_record_must(name):
    definition = json.loads(json.dumps(PROTOCOLS[name].definition()))
    assert definition["name"] == name
    wanted = {
        "eval_size",
        "ground_truth_variant",
        "threshold",
        "when",
        "resampling",
        "empty",
        "tie",
        "no_target",
        "sentences",
    }
    assert wanted <= set(definition)
    assert definition["ground_truth"]["overlap"] in ("any", "once")


def test_a_protocol_that_only_differs_in_name_still_differs():
    assert replace(PROTOCOLS["rela"], name="rela50", mirrors="ReLA", nt_pixels=50) != PROTOCOLS["rela50"]
    assert replace(PROTOCOLS["mcn"], name="vlt", mirrors="VLT", inconsistent=False) == PROTOCOLS["vlt"]


def test_a_sentence_evaluated_twice_is_an_error():
    protocol = PROTOCOLS["original"]
    values = np.zeros((3, width([protocol])), np.int64)
    values[:, 0] = [4, 2, 4]
    with pytest.raises(UserError, match="sentence 4 of the split was evaluated twice"):
        Rows.sort([protocol], values)
