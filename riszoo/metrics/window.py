"""Masks on a CPU: of maps that share a geometry, only a window that contains all foreground is resized.

The values are those of `resample.foreground`, bit by bit; NumPy's calls on small arrays cost a fraction of PyTorch's.

Letters as in `resample.py`; m0 x m1 cells of a window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from riszoo.batch import Geometry
from riszoo.metrics.protocols import Protocol, Resampling
from riszoo.metrics.resample import Axes, Axis, Ints, Size, above, axes, frame_axes, taps_inside

Masks = NDArray[np.bool_]
Maps = NDArray[np.float32]
Window = tuple[slice, slice]  # rows and columns
WHOLE = slice(None), slice(None)


def foreground_window(scores: Maps, geometry: Geometry, size: Size, protocol: Protocol) -> tuple[Masks, Size]:
    """(n, h, w) -> (n, m0, m1) masks, cut to a window that contains all foreground, and the window's corner."""
    (along,), maps = axes([geometry], [size]), scores
    if protocol.to_frame is not None:
        (frame,) = frame_axes([geometry.frame])
        maps = resize_alike(maps, frame, protocol.to_frame)
    if protocol.threshold_at == "frame":
        maps = above(maps, protocol).astype(np.float32)
    window = _foreground_bounds(maps, along, protocol)
    resized = resize_alike(maps, along, protocol.resampling, window)
    mask: Masks = above(resized, protocol) if protocol.threshold_at == "end" else resized > 0
    return mask, (window[0].start, window[1].start)


@np.errstate(invalid="ignore")  # inf times 0 is nan, in silence as in PyTorch
def resize_alike(maps: Maps, along: Axes, resampling: Resampling, window: Window = WHOLE) -> Maps:
    """(n, h, w) -> (n, M0, M1), or a window of it; element by element as `resample.resize`."""
    rows, row_weights = _taps(along[0], maps.shape[1], resampling, window[0])
    cols, col_weights = _taps(along[1], maps.shape[2], resampling, window[1])
    first, last = rows[0, 0], rows[-1, -1]
    wide = _weighted_sum(maps[:, first : last + 1], cols, col_weights, 2)  # (n, h, m1)
    return _weighted_sum(wide, rows - first, row_weights[:, :, None], 1)


def _taps(axis: Axis, grid: int, resampling: Resampling, span: slice) -> tuple[Ints, Maps]:
    """The taps of the output cells of a span."""
    cells, weights = taps_inside(axis, grid, resampling)
    return cells[:, span], weights[:, span]


def _weighted_sum(maps: Maps, cells: Ints, weights: Maps, axis: int) -> Maps:
    """The sum over the taps of one axis."""
    total: Maps = maps.take(cells[0], axis)
    total *= weights[0]
    for tap, weight in zip(cells[1:], weights[1:], strict=True):
        part = maps.take(tap, axis)
        part *= weight
        total += part
    return total


def _foreground_bounds(maps: Maps, along: Axes, protocol: Protocol) -> Window:
    """The rows and columns outside of which no cell is foreground, since a weighted mean of low values is low.

    All of them for a kernel with negative weights, or a threshold that rounding could reach.
    """
    threshold = protocol.threshold if protocol.threshold_at == "end" else 0.0
    inclusive = protocol.inclusive and protocol.threshold_at == "end"
    if protocol.resampling.kernel == "bicubic" or threshold < 0 or inclusive:
        return slice(0, along[0].cells), slice(0, along[1].cells)
    high: Masks = ~np.logical_and.reduce(maps <= 0.999 * threshold, 0)  # (h, w); nan is not low
    rows, cols = (
        _span(np.logical_or.reduce(high, 1 - i), taps_inside(along[i], high.shape[i], protocol.resampling)[0])
        for i in range(2)
    )
    return rows, slice(cols.start // 8 * 8, cols.stop)  # whole octets of bits


def _span(high: Masks, cells: Ints) -> slice:
    """The output cells with a tap on a high input cell; one cell if none has."""
    found = high.nonzero()[0]
    if not len(found):
        return slice(0, 1)
    first, end = cells[-1].searchsorted(found[0]), cells[0].searchsorted(found[-1], "right")
    return slice(int(first), int(end)) if first < end else slice(0, 1)
