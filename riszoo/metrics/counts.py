"""Counts of a predicted and a true mask: thirteen integers, from which every metric follows.

Letters: n pairs of masks, M0 x M1 pixels (masks of a smaller image are False beyond its size), m0 x m1 a window.
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
    """(n, m0, m1) and (n, M0, M1) bool -> (n, 13) int64 in the order of `sentence_table.COUNTS`.

    The prediction may be a window of the frame with its first pixel at `corner`, and is False beyond it.
    """
    (top, left), (height, width) = corner, predicted.shape[1:]
    window = (top, left, top + height, left + width)
    overlap = predicted & true[:, top : window[2], left : window[3]]
    intersection = overlap.sum(-1, dtype=torch.int32).sum(-1)
    lines = _line_counts(predicted, true, corner)
    boxes = torch.cat(_extent(lines), 1)  # (2, 4, n)
    areas = lines[:, 0].sum(-1)  # (2, n)
    bands = areas.new_zeros(2, len(intersection))
    if band:
        if predicted.device.type == "cpu":  # on a device, reading the boxes would synchronise
            window = _around(window, boxes[1])
        bands = boundary_counts(torch.stack([_cut(predicted, window, corner), _cut(true, window)]), sizes, band)
    return torch.cat([intersection[None], areas, bands, *boxes]).T


def _line_counts(predicted: Tensor, true: Tensor, corner: Size) -> Tensor:
    """(2, 2, n, the longer side): the pixels in each row and in each column, of predictions and ground truths."""
    counts = true.new_zeros(2, 2, len(true), max(true.shape[1:]), dtype=torch.int32)
    for each, masks, start in zip(counts, (predicted, true), (corner, (0, 0)), strict=True):
        for line, first, length, axis in zip(each, start, masks.shape[1:], (-1, -2), strict=True):
            line[:, first : first + length] = masks.sum(axis, dtype=torch.int32)
    return counts


def _extent(lines: Tensor) -> tuple[Tensor, Tensor]:
    """(..., length) -> the first index that is not zero and the one after the last; 0 and 0 if all are zero."""
    length = lines.shape[-1]
    reach = ((lines > 0)[..., None, :] * _ordinals(length, lines.device)).amax(-1)  # (..., 2), from either end
    end = reach[..., 0]
    return torch.minimum(length - reach[..., 1], end), end


@lru_cache(maxsize=512)
@torch.inference_mode(False)
def _ordinals(length: int, device: torch.device) -> Tensor:
    """(2, length): 1, 2, ... from the front and from the back. Read only."""
    ordinals = torch.arange(1, length + 1, device=device)
    return torch.stack([ordinals, ordinals.flip(0)])


def _around(window: Box, boxes: Tensor) -> Box:
    """The box around the predictions' window and the ground truths' boxes, (4, n), which contains all bands."""
    sides = boxes.numpy()
    low, high = sides[:2, sides[2] > 0], sides[2:]
    (top, left), (bottom, right) = low.min(1, initial=2**31).tolist(), high.max(1).tolist()
    return min(window[0], top), min(window[1], left), max(window[2], bottom), max(window[3], right)


def _cut(masks: Tensor, box: Box, corner: Size = (0, 0)) -> Tensor:
    """A box cut from masks whose first pixel is at `corner` of the frame; False beyond the masks."""
    top, left, bottom, right = (side - corner[i % 2] for i, side in enumerate(box))
    inside = masks[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[1:] == (bottom - top, right - left):
        return inside
    cut = masks.new_zeros(len(masks), bottom - top, right - left)
    above, before = max(-top, 0), max(-left, 0)
    cut[:, above : above + inside.shape[1], before : before + inside.shape[2]] = inside
    return cut


def band_width(size: Size, share: float) -> int:
    """The width of a boundary band in pixels: a share of the diagonal, at least 1."""
    return max(1, round(share * math.hypot(*size)))


def boundary_counts(masks: Tensor, sizes: Sequence[Size], share: float) -> Tensor:
    """(2, n, M0, M1) -> (2, n): intersection and union of both masks' boundary bands (as in boundary IoU)."""
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
    return torch.stack([predicted & true, predicted | true]).sum(-1, dtype=torch.int32).sum(-1)


def erode(masks: Tensor, width: int) -> Tensor:
    """The pixels whose square of 2 width + 1 pixels lies inside the mask; outside the image is background."""
    return _erode_axis(_erode_axis(masks, width, -1), width, -2)


def _erode_axis(masks: Tensor, width: int, axis: int) -> Tensor:
    """The AND over a window is that over two windows half as long, so the length doubles with every step."""
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
