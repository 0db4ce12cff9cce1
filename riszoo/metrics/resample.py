"""The resize of all protocols: a map over the network's frame, sampled at the cell centres of another frame.

It is separable: each output cell is a weighted sum of the input cells listed by its taps. Only element-wise products
and sums are used, so the values of a map are bit-equal whatever else is in the batch.

Letters: n maps of h x w cells in, M0 x M1 cells out (the largest in the batch; a smaller map ends earlier), m cells
along one axis, k taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from riszoo.batch import Geometry
from riszoo.metrics.protocols import Kernel, Protocol, Resampling

Size = tuple[int, int]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Values = TypeVar("Values", Tensor, NDArray[Any])
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

    def coordinates(self, grid: int, align_corners: bool) -> Floats:
        """(m,): the centre of each output cell, where input cell i of `grid` has its centre at i."""
        cell = np.arange(self.cells, dtype=np.float64)
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


def taps(coordinates: Floats, kernel: Kernel) -> tuple[Floats, Floats]:
    """(m,) -> the input cells of each output cell and their weights, (k, m) each; cells may be off the grid."""
    if kernel == "nearest":
        return np.floor(coordinates + 0.5)[None], np.ones((1, len(coordinates)))
    first = np.floor(coordinates)
    t = coordinates - first
    if kernel == "bilinear":
        return np.array([first, first + 1]), np.array([1 - t, t])
    weights = np.array([_outer(t + 1), _inner(t), _inner(1 - t), _outer(2 - t)])
    return first + np.arange(-1.0, 3.0)[:, None], weights


def _inner(x: Floats) -> Floats:
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1


def _outer(x: Floats) -> Floats:
    return ((x - 5) * x + 8) * x * _CUBIC - 4 * _CUBIC


def resize(maps: Tensor, along: Sequence[Axes], resampling: Resampling) -> Tensor:
    """(n, h, w) float32 -> (n, M0, M1)."""
    n, h, w = maps.shape
    (rows, row_weights), (cols, col_weights) = (
        tuple(part.to(maps.device, non_blocking=True) for part in _batched_taps(axis, grid, resampling))
        for axis, grid in zip(zip(*along, strict=True), (h, w), strict=True)
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
    distinct = dict.fromkeys(axes)
    pairs = [_as_tensors(axis, grid, resampling) for axis in (distinct if len(distinct) == 1 else axes)]
    cells, weights = (torch.nn.utils.rnn.pad_sequence([pair[i] for pair in pairs], batch_first=True) for i in range(2))
    return cells, weights


@lru_cache(maxsize=512)
@torch.inference_mode(False)  # the cached tensors are also used where gradients flow
def _as_tensors(axis: Axis, grid: int, resampling: Resampling) -> tuple[Tensor, Tensor]:
    """(m, k): the taps of `taps_inside`."""
    cells, weights = (torch.from_numpy(part.T) for part in taps_inside(axis, grid, resampling))
    return cells, weights


@lru_cache(maxsize=512)
def taps_inside(axis: Axis, grid: int, resampling: Resampling) -> tuple[Ints, NDArray[np.float32]]:
    """(k, m): taps on the grid. Those beyond the border repeat its last cell or have weight 0. Read only."""
    cells, weights = taps(axis.coordinates(grid, resampling.align_corners), resampling.kernel)
    if resampling.border == "image":
        cells = cells.clip(*axis.image_cells(grid))
    elif resampling.border == "zero":
        weights = weights * ((cells >= 0) & (cells < grid))
    return cells.clip(0, grid - 1).astype(np.int64), weights.astype(np.float32)


def foreground(logits: Tensor, geometries: Sequence[Geometry], sizes: Sequence[Size], protocol: Protocol) -> Tensor:
    """(n, h, w) logits over each network frame -> (n, M0, M1) bool: the masks, False beyond each size."""
    maps, along = score(logits, protocol), axes(geometries, sizes)
    if protocol.to_frame is not None:
        maps = resize(maps, frame_axes([geometry.frame for geometry in geometries]), protocol.to_frame)
    if protocol.threshold_at == "end":
        mask = above(resize(maps, along, protocol.resampling), protocol)
    else:
        mask = resize(above(maps, protocol).float(), along, protocol.resampling) > 0
    if len(set(sizes)) == 1:
        return mask
    ends = torch.tensor(sizes).T  # (2, n)
    rows, cols = (torch.arange(mask.shape[1 + i]) < ends[i][:, None] for i in range(2))
    return mask & (rows[:, :, None] & cols[:, None, :]).to(mask.device, non_blocking=True)


def score(logits: Tensor, protocol: Protocol) -> Tensor:
    """The logit or its sigmoid, computed in 64 bit so that vector and scalar instructions round to the same float32."""
    if protocol.score == "logit":
        return logits.float()
    source = logits.cpu() if logits.device.type == "mps" else logits  # MPS has no float64
    return source.double().sigmoid().float().to(logits.device)


def above(values: Values, protocol: Protocol) -> Values:
    """Where float32 values are above the threshold, compared in 32 bit, in PyTorch and NumPy alike."""
    return values >= protocol.threshold if protocol.inclusive else values > protocol.threshold
