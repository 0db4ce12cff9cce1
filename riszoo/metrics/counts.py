"""Two masks as thirteen whole numbers, from which every metric follows.

Letters: n pairs of masks, M0 x M1 cells (a smaller picture's are False beyond its size).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from riszoo.metrics.resample import Size

Box = tuple[int, int, int, int]  # top, left, bottom, right


def count(predicted: Tensor, true: Tensor, sizes: Sequence[Size], band: float, corner: Size = (0, 0)) -> Tensor:
    """(n, m0, m1) and (n, M0, M1) bool -> (n, 13) int64 in the order of `rows.COUNTS`.

    The prediction may be a window of the frame, its first cell at `corner`, beyond which it is False.
    """
    top, left = corner
    both = predicted & true[:, top : top + predicted.shape[1], left : left + predicted.shape[2]]
    (area, box), (true_area, true_box) = _area_and_box(predicted), _area_and_box(true)
    if corner != (0, 0):
        box = torch.where(box[:, 2:3] > 0, box + box.new_tensor([top, left, top, left]), box)
    areas = torch.stack([both.sum(-1, dtype=torch.int32).sum(-1), area, true_area], -1)
    bands = areas.new_zeros(len(areas), 2)
    if band:
        near = _around([box, true_box], true)
        bands = boundary_counts(torch.stack([_cut(predicted, near, corner), _cut(true, near)]), sizes, band)
    return torch.cat([areas, bands, box, true_box], -1)


def _around(boxes: Sequence[Tensor], masks: Tensor) -> Box:
    """One box around several, (n, 4) each, so that bands are sought where masks are; the whole frame where reading
    the numbers would keep a device waiting."""
    if masks.device.type != "cpu":
        return 0, 0, masks.shape[1], masks.shape[2]
    held = torch.cat([box[box[:, 2] > 0] for box in boxes])
    if not len(held):
        return 0, 0, 1, 1
    (top, left), (bottom, right) = held[:, :2].amin(0).tolist(), held[:, 2:].amax(0).tolist()
    return top, left, bottom, right


def _cut(masks: Tensor, box: Box, corner: Size = (0, 0)) -> Tensor:
    """The cells in a box of the frame, of masks whose first cell lies at `corner`; False where they do not reach."""
    top, left, bottom, right = (side - corner[i % 2] for i, side in enumerate(box))
    inside = masks[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[1:] == (bottom - top, right - left):
        return inside
    cut = masks.new_zeros(len(masks), bottom - top, right - left)
    above, before = max(-top, 0), max(-left, 0)
    cut[:, above : above + inside.shape[1], before : before + inside.shape[2]] = inside
    return cut


def _area_and_box(masks: Tensor) -> tuple[Tensor, Tensor]:
    """(n, M0, M1) -> (n,) and (n, 4): top, left, bottom, right, half-open; all 0 around nothing."""
    along_y, along_x = masks.sum(-1, dtype=torch.int32), masks.sum(-2, dtype=torch.int32)  # (n, M0), (n, M1)
    (top, bottom), (left, right) = _extent(along_y), _extent(along_x)
    return along_y.sum(-1), torch.stack([top, left, bottom, right], -1)


def _extent(totals: Tensor) -> tuple[Tensor, Tensor]:
    length = totals.shape[-1]
    reach = ((totals > 0)[:, None] * _places(length, totals.device)).amax(-1)  # (n, 2), 0 where nothing is filled
    end = reach[:, 0]
    return torch.minimum(length - reach[:, 1], end), end


@lru_cache(maxsize=512)
def _places(length: int, device: torch.device) -> Tensor:
    """(2, length): every cell counted from 1, from the front and from the back. Read only."""
    place = torch.arange(1, length + 1, device=device)
    return torch.stack([place, place.flip(0)])


def band_width(size: Size, share: float) -> int:
    """Cells that a boundary band is wide: a share of the diagonal, at least one."""
    return max(1, round(share * math.hypot(*size)))


def boundary_counts(masks: Tensor, sizes: Sequence[Size], share: float) -> Tensor:
    """(2, n, M0, M1) -> (n, 2): cells in both masks' boundary bands, and in either's (as in boundary IoU)."""
    widths = [band_width(size, share) for size in sizes]
    bands = torch.empty_like(masks) if len(set(widths)) > 1 else masks
    for width in set(widths):
        if bands is masks:
            bands = masks & ~erode(masks, width)
            break
        where = torch.tensor([i for i, w in enumerate(widths) if w == width], device=masks.device)
        part = masks.index_select(1, where)
        bands.index_copy_(1, where, part & ~erode(part, width))
    predicted, true = bands
    return torch.stack([predicted & true, predicted | true]).sum(-1, dtype=torch.int32).sum(-1).T


def erode(masks: Tensor, width: int) -> Tensor:
    """The cells whose square of 2 width + 1 cells lies wholly inside the mask; outside the picture is background."""
    return _erode_axis(_erode_axis(masks, width, -1), width, -2)


def _erode_axis(masks: Tensor, width: int, axis: int) -> Tensor:
    """A window is the meeting of two half as long, so its length doubles with every step."""
    length = masks.shape[axis]
    if length <= 2 * width:
        return torch.zeros_like(masks)
    reach, window = masks, 1
    while window < 2 * width + 1:
        step = min(window, 2 * width + 1 - window)
        rest = reach.shape[axis] - step
        reach = reach.narrow(axis, 0, rest) & reach.narrow(axis, step, rest)
        window += step
    eroded = torch.zeros_like(masks)
    eroded.narrow(axis, width, length - 2 * width).copy_(reach)
    return eroded
