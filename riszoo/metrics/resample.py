"""The resize of all protocols: a map over the network's frame, sampled at the cell centres of another frame.

It is separable: each output cell is a weighted sum of the input cells listed by its taps. Only element-wise products
and sums are used, so the values of a map are bit-equal whatever else is in the batch.

Letters: n maps of h x w cells in, M0 x M1 cells out (the largest in the batch; a smaller map ends earlier), m cells
along one axis, k taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from riszoo.batch import Geometry
from riszoo.metrics.protocols import Kernel, Protocol, Resampling

Size = tuple[int, int]
Window = tuple[slice, slice]  # rows and columns
_CUBIC = -0.75  # as in PyTorch and OpenCV


class Axis(NamedTuple):
    """One axis of a resize: the coordinates of the output cells on the input grid.

    The image covers `inside` cells of a frame of `frame` cells, from cell `offset` on. The input grid covers the whole
    frame, the output grid of `cells` cells covers the image alone.
    """

    inside: int
    offset: int
    frame: int
    cells: int

    def coordinates(self, grid: int, align_corners: bool) -> Tensor:
        """(m,) float64: the centre of each output cell, where input cell i of `grid` has its centre at i."""
        cell = torch.arange(self.cells, dtype=torch.float64)
        if align_corners:
            in_frame = self.offset + cell * (self.inside - 1) / max(self.cells - 1, 1)
            return in_frame * (grid - 1) / max(self.frame - 1, 1)
        return ((cell + 0.5) * self.inside / self.cells + self.offset) * grid / self.frame - 0.5

    def image_cells(self, grid: int) -> tuple[int, int]:
        """The first and the last input cell that the image covers."""
        first = self.offset * grid // self.frame
        return first, -(-(self.offset + self.inside) * grid // self.frame) - 1


Axes = tuple[Axis, Axis]


def axes(geometries: Sequence[Geometry], sizes: Sequence[Size]) -> list[Axes]:
    """The axes y and x from each network frame to its image at a size in cells."""
    return [_axes(geometry, size) for geometry, size in zip(geometries, sizes, strict=True)]


@lru_cache(maxsize=512)
def _axes(geometry: Geometry, size: Size) -> Axes:
    along = zip(geometry.inside, geometry.offset, geometry.frame, size, strict=True)
    y, x = (Axis(*numbers) for numbers in along)
    return y, x


def frame_axes(frames: Sequence[Size]) -> list[Axes]:
    """The axes from a grid over the frame to all pixels of the frame."""
    return [(Axis(h, 0, h, h), Axis(w, 0, w, w)) for h, w in frames]


def taps(coordinates: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """(n, m) -> the input cells of each output cell and their weights, (n, m, k) each; cells may be off the grid."""
    if kernel == "nearest":
        return (coordinates + 0.5).floor()[..., None], torch.ones_like(coordinates)[..., None]
    first = coordinates.floor()
    t = coordinates - first
    if kernel == "bilinear":
        return torch.stack([first, first + 1], -1), torch.stack([1 - t, t], -1)
    weights = torch.stack([_outer(t + 1), _inner(t), _inner(1 - t), _outer(2 - t)], -1)
    return first[..., None] + torch.arange(-1.0, 3.0, dtype=torch.float64), weights


def _inner(x: Tensor) -> Tensor:
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1


def _outer(x: Tensor) -> Tensor:
    return ((x - 5) * x + 8) * x * _CUBIC - 4 * _CUBIC


def resize(maps: Tensor, along: Sequence[Axes], resampling: Resampling, window: Window | None = None) -> Tensor:
    """(n, h, w) float32 -> (n, M0, M1), or a window of it."""
    n, h, w = maps.shape
    window = window or (slice(None), slice(None))
    (rows, row_weights), (cols, col_weights) = (
        tuple(part[:, span].to(maps.device, non_blocking=True) for part in _batched_taps(axis, grid, resampling))
        for axis, grid, span in zip(zip(*along, strict=True), (h, w), window, strict=True)
    )
    # columns first: the few input rows are gathered cell by cell, the many output rows are then copied whole
    wide = torch.zeros(())
    for k in range(cols.shape[-1]):
        part = maps.gather(2, cols[:, None, :, k].expand(n, h, -1)) * col_weights[:, None, :, k]
        wide = part if k == 0 else wide + part  # (n, h, M1)
    stacked = wide.flatten(0, 1)  # (n h, M1)
    first_row = torch.arange(n, device=maps.device)[:, None] * h
    out = torch.zeros(())
    for k in range(rows.shape[-1]):
        part = stacked.index_select(0, (first_row + rows[..., k]).flatten()).view(n, -1, wide.shape[-1])
        part.mul_(row_weights[:, :, None, k])
        out = part if k == 0 else out.add_(part)  # (n, M0, M1)
    return out


def _batched_taps(axes: Sequence[Axis], grid: int, resampling: Resampling) -> tuple[Tensor, Tensor]:
    """The taps of n axes, (n, m, k) each, or (1, m, k) if all are the same; shorter ones are padded with zeros."""
    distinct = {axis: _taps_inside(axis, grid, resampling) for axis in dict.fromkeys(axes)}
    if len(distinct) == 1:
        ((cells, weights),) = distinct.values()
        return cells[None], weights[None]
    pairs = [distinct[axis] for axis in axes]
    cells, weights = (torch.nn.utils.rnn.pad_sequence([pair[i] for pair in pairs], batch_first=True) for i in range(2))
    return cells, weights


@lru_cache(maxsize=512)
@torch.inference_mode(False)  # the cached tensors are also used where gradients flow
def _taps_inside(axis: Axis, grid: int, resampling: Resampling) -> tuple[Tensor, Tensor]:
    """Taps on the grid: those beyond the border repeat its last cell or have weight 0. Read only."""
    cells, weights = taps(axis.coordinates(grid, resampling.align_corners), resampling.kernel)
    if resampling.border == "image":
        cells = cells.clamp(*axis.image_cells(grid))
    elif resampling.border == "zero":
        weights = weights * ((cells >= 0) & (cells < grid))
    return cells.clamp(0, grid - 1).long(), weights.float()


def foreground(logits: Tensor, geometries: Sequence[Geometry], sizes: Sequence[Size], protocol: Protocol) -> Tensor:
    """(n, h, w) logits over each network frame -> (n, M0, M1) bool: the masks, False beyond each size."""
    maps, along = _input_of_last_resize(logits, geometries, protocol), axes(geometries, sizes)
    mask = _binary(resize(maps, along, protocol.resampling), protocol)
    if len(set(sizes)) == 1:
        return mask
    ends = torch.tensor(sizes).T  # (2, n)
    rows, cols = (torch.arange(mask.shape[1 + i]) < ends[i][:, None] for i in range(2))
    return mask & (rows[:, :, None] & cols[:, None, :]).to(mask.device, non_blocking=True)


def foreground_window(logits: Tensor, geometry: Geometry, size: Size, protocol: Protocol) -> tuple[Tensor, Size]:
    """Masks of maps with one geometry, cut to a window that contains all foreground, and the window's corner.

    It reads the values of the maps, which would synchronise a device.
    """
    maps, along = _input_of_last_resize(logits, [geometry], protocol), axes([geometry], [size])
    window = _foreground_bounds(maps, along[0], protocol)
    mask = _binary(resize(maps, along, protocol.resampling, window), protocol)
    return mask, (window[0].start, window[1].start)


def _input_of_last_resize(logits: Tensor, geometries: Sequence[Geometry], protocol: Protocol) -> Tensor:
    maps = _score(logits, protocol)
    if protocol.to_frame is not None:
        maps = resize(maps, frame_axes([g.frame for g in geometries]), protocol.to_frame)
    return _above(maps, protocol).float() if protocol.threshold_at == "frame" else maps


def _binary(maps: Tensor, protocol: Protocol) -> Tensor:
    return _above(maps, protocol) if protocol.threshold_at == "end" else maps > 0


def _foreground_bounds(maps: Tensor, along: Axes, protocol: Protocol) -> Window:
    """The rows and columns outside of which no cell is foreground, since a weighted mean of low values is low.

    All of them for a kernel with negative weights, or a threshold that rounding could reach.
    """
    threshold = protocol.threshold if protocol.threshold_at == "end" else 0.0
    inclusive = protocol.inclusive and protocol.threshold_at == "end"
    if protocol.resampling.kernel == "bicubic" or threshold < 0 or inclusive:
        return slice(0, along[0].cells), slice(0, along[1].cells)
    low, (_, h, w) = 0.999 * threshold, maps.shape
    rows, cols = (maps.amax(others).detach().numpy() <= low for others in ((0, 2), (0, 1)))
    (down, _), (across, _) = (_taps_inside(*line, protocol.resampling) for line in zip(along, (h, w), strict=True))
    return _span(rows, down.numpy()), _span(cols, across.numpy())


def _span(low: NDArray[np.bool_], cells: NDArray[np.int64]) -> slice:
    """The output cells with a tap on an input cell that is not low (nan is not low); one cell if none has."""
    high = np.flatnonzero(~low)
    if not len(high):
        return slice(0, 1)
    first, end = cells[:, -1].searchsorted(high[0]), cells[:, 0].searchsorted(high[-1], "right")
    return slice(int(first), int(end)) if first < end else slice(0, 1)


def _score(logits: Tensor, protocol: Protocol) -> Tensor:
    """The logit or its sigmoid, computed in 64 bit so that vector and scalar instructions round to the same float32."""
    if protocol.score == "logit":
        return logits.float()
    source = logits.cpu() if logits.device.type == "mps" else logits  # MPS has no float64
    return source.double().sigmoid().float().to(logits.device)


def _above(maps: Tensor, protocol: Protocol) -> Tensor:
    """Compare with the threshold in 32 bit; on a CPU, NumPy is several times as fast as PyTorch."""
    if maps.device.type != "cpu":
        return maps >= protocol.threshold if protocol.inclusive else maps > protocol.threshold
    values, threshold = maps.detach().numpy(), np.float32(protocol.threshold)
    return torch.from_numpy(values >= threshold if protocol.inclusive else values > threshold)
