"""The thirteen integers of a pair of masks, and the boundary bands."""

from __future__ import annotations

import pytest
import torch

from riszoo.metrics.counts import band_width, count, erode
from riszoo.metrics.sentence_table import COUNTS
from tests.support.fake_batches import disc


def test_counts_of_a_pair_worked_by_hand():
    predicted, true = torch.zeros(2, 1, 10, 12, dtype=torch.bool)
    predicted[0, 1:5, 2:8] = True  # 24 cells
    true[0, 3:9, 4:10] = True  # 36 cells
    got = dict(zip(COUNTS, count(predicted, true, [(10, 12)], 0.0)[0].tolist(), strict=True))
    assert (got["intersection"], got["predicted"], got["true"]) == (8, 24, 36)
    assert [got[f"predicted_{side}"] for side in ("top", "left", "bottom", "right")] == [1, 2, 5, 8]
    assert [got[f"true_{side}"] for side in ("top", "left", "bottom", "right")] == [3, 4, 9, 10]


@pytest.mark.parametrize("reach", [1, 2, 3, 5])
def test_erosion_is_a_minimum_over_a_square_with_background_outside(reach):
    torch.manual_seed(2)
    masks = torch.rand(3, 19, 23) > 0.02
    outside = torch.nn.functional.pad((~masks).float(), [reach] * 4, value=1.0)
    slow = torch.nn.functional.max_pool2d(outside[:, None], 2 * reach + 1, stride=1)[:, 0] == 0
    assert torch.equal(erode(masks, reach), slow)
    assert not erode(torch.ones(1, 2, 30, dtype=torch.bool), 1).any()


def test_boundary_iou_is_more_sensitive_to_outlines_than_iou():
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


def test_the_band_width_follows_each_image_size():
    sizes = [(100, 100), (40, 30), (100, 100), (300, 20)]
    masks = torch.zeros(2, 4, 300, 100, dtype=torch.bool)
    for i, (height, wide) in enumerate(sizes):
        masks[0, i, 1 : height - 2, 1 : wide - 3] = True
        masks[1, i, : height // 2, :wide] = True
    together = count(masks[0], masks[1], sizes, 0.02)
    for i, (height, wide) in enumerate(sizes):
        alone = count(masks[0, i : i + 1, :height, :wide], masks[1, i : i + 1, :height, :wide], [sizes[i]], 0.02)
        assert torch.equal(together[i : i + 1], alone)
