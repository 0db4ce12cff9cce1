"""Counts of a predicted and a true mask: thirteen integers, from which every metric follows. By PyTorch, on a device.

Letters: n pairs of masks, M0 x M1 pixels (masks of a smaller image are False beyond its size).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from riszoo.metrics.resample import Size


def count(predicted: Tensor, true: Tensor, sizes: Sequence[Size], band: float) -> Tensor:
    """(n, M0, M1) bool, twice -> (n, 13) int64 in the order of `sentence_table.COUNTS`."""
    pair = torch.stack([predicted, true])
    intersection = (predicted & true).sum(-1, dtype=torch.int32).sum(-1)
    rows, columns = (pair.sum(axis, dtype=torch.int32) for axis in (-1, -2))  # (2, n, M0), (2, n, M1)
    (top, bottom), (left, right) = _extent(rows), _extent(columns)
    boxes = torch.stack([top, left, bottom, right], 1)  # (2, 4, n)
    bands = boundary_counts(pair, sizes, band) if band else torch.zeros_like(top)
    return torch.cat([intersection[None], rows.sum(-1), bands, *boxes]).T


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
