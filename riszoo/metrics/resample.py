"""The one resize: a map over the network's frame, read at the cell centres of another frame.

Separable, by gathering: each new cell is a weighted sum of the old cells named by its taps. Only element-wise products
and sums are used, so a map's values do not depend, bit for bit, on what else is in the batch.

Letters: n maps, each h x w or H x W in, M0 x M1 out (the largest in the batch; a smaller one ends earlier), k taps.
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
_CUBIC = -0.75  # the constant that PyTorch and OpenCV share


class Axis(NamedTuple):
    """One axis of a resize: where its new cells lie on the old grid.

    The image covers `inside` cells of a frame of `frame` cells, from cell `offset` on; the old grid covers the whole
    frame, and the new one of `cells` cells covers the image alone.
    """

    inside: int
    offset: int
    frame: int
    cells: int

    def positions(self, grid: int, align_corners: bool) -> Tensor:
        """(m,) float64: the place of each new cell's centre among the old centres, the first being 0."""
        cell = torch.arange(self.cells, dtype=torch.float64)
        if align_corners:
            place = self.offset + cell * (self.inside - 1) / max(self.cells - 1, 1)
            return place * (grid - 1) / max(self.frame - 1, 1)
        return ((cell + 0.5) * self.inside / self.cells + self.offset) * grid / self.frame - 0.5

    def box(self, grid: int) -> tuple[int, int]:
        """The first and the last cell of the old grid that hold image."""
        first = self.offset * grid // self.frame
        return first, -(-(self.offset + self.inside) * grid // self.frame) - 1


Axes = tuple[Axis, Axis]


def axes(geometries: Sequence[Geometry], sizes: Sequence[Size]) -> list[Axes]:
    """How each image lies in its frame, along y and along x, and how many cells it is compared at."""
    return [_axes(geometry, size) for geometry, size in zip(geometries, sizes, strict=True)]


@lru_cache(maxsize=512)
def _axes(geometry: Geometry, size: Size) -> Axes:
    along = zip(geometry.inside, geometry.offset, geometry.frame, size, strict=True)
    y, x = (Axis(*numbers) for numbers in along)
    return y, x


def whole(frames: Sequence[Size]) -> list[Axes]:
    """From a grid over the frame to every cell of the frame itself."""
    return [(Axis(h, 0, h, h), Axis(w, 0, w, w)) for h, w in frames]


def taps(positions: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """(n, m) places -> the old cells that each new one reads and how much, (n, m, k) each, still beyond the border."""
    if kernel == "nearest":
        return (positions + 0.5).floor()[..., None], torch.ones_like(positions)[..., None]
    first = positions.floor()
    t = positions - first
    if kernel == "bilinear":
        return torch.stack([first, first + 1], -1), torch.stack([1 - t, t], -1)
    weights = torch.stack([_outer(t + 1), _inner(t), _inner(1 - t), _outer(2 - t)], -1)
    return first[..., None] + torch.arange(-1.0, 3.0, dtype=torch.float64), weights


def _inner(x: Tensor) -> Tensor:
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1


def _outer(x: Tensor) -> Tensor:
    return ((x - 5) * x + 8) * x * _CUBIC - 4 * _CUBIC


def resize(maps: Tensor, along: Sequence[Axes], how: Resampling, window: Window | None = None) -> Tensor:
    """(n, h, w) float32 -> (n, M0, M1), or a window of it."""
    n, h, w = maps.shape
    within = window or (slice(None), slice(None))
    (rows, row_weights), (cols, col_weights) = (
        tuple(part[:, span].to(maps.device, non_blocking=True) for part in _stacked(lines, grid, how))
        for lines, grid, span in zip(zip(*along, strict=True), (h, w), within, strict=True)
    )
    # columns first: the grid's few rows are gathered by cell, the many new rows then copied whole
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


def _stacked(lines: Sequence[Axis], grid: int, how: Resampling) -> tuple[Tensor, Tensor]:
    """The taps of one axis, (n, m, k) each, or (1, m, k) where all maps lie alike; a shorter one repeats cell 0."""
    own = {line: _taps_inside(line, grid, how) for line in dict.fromkeys(lines)}
    if len(own) == 1:
        ((cells, weights),) = own.values()
        return cells[None], weights[None]
    each = [own[line] for line in lines]
    cells, weights = (torch.nn.utils.rnn.pad_sequence([one[i] for one in each], batch_first=True) for i in range(2))
    return cells, weights


@lru_cache(maxsize=512)
@torch.inference_mode(False)  # what is kept serves with and without gradients
def _taps_inside(axis: Axis, grid: int, how: Resampling) -> tuple[Tensor, Tensor]:
    """Taps that stay on the grid: beyond the border they repeat its last cell, or weigh nothing. Read only."""
    cells, weights = taps(axis.positions(grid, how.align_corners), how.kernel)
    if how.border == "image":
        cells = cells.clamp(*axis.box(grid))
    elif how.border == "zero":
        weights = weights * ((cells >= 0) & (cells < grid))
    return cells.clamp(0, grid - 1).long(), weights.float()


def foreground(logits: Tensor, geometries: Sequence[Geometry], sizes: Sequence[Size], protocol: Protocol) -> Tensor:
    """(n, h, w) logits over each network frame -> (n, M0, M1) bool: the protocol's mask, False beyond each size."""
    maps, along = _last_maps(logits, geometries, protocol), axes(geometries, sizes)
    mask = _decided(resize(maps, along, protocol.resampling), protocol)
    if len(set(sizes)) == 1:
        return mask
    ends = torch.tensor(sizes).T  # (2, n)
    rows, cols = (torch.arange(mask.shape[1 + i]) < ends[i][:, None] for i in range(2))
    return mask & (rows[:, :, None] & cols[:, None, :]).to(mask.device, non_blocking=True)


def foreground_window(logits: Tensor, geometry: Geometry, size: Size, protocol: Protocol) -> tuple[Tensor, Size]:
    """Maps that lie alike -> the window that holds all of their foreground, and its corner. Looks at their values."""
    maps, along = _last_maps(logits, [geometry], protocol), axes([geometry], [size])
    window = _reach(maps, along[0], protocol)
    mask = _decided(resize(maps, along, protocol.resampling, window), protocol)
    return mask, (window[0].start, window[1].start)


def _last_maps(logits: Tensor, geometries: Sequence[Geometry], protocol: Protocol) -> Tensor:
    """What the last resize starts from."""
    maps = _score(logits, protocol)
    if protocol.via is not None:
        maps = resize(maps, whole([g.frame for g in geometries]), protocol.via)
    return _above(maps, protocol).float() if protocol.when == "frame" else maps


def _decided(maps: Tensor, protocol: Protocol) -> Tensor:
    return _above(maps, protocol) if protocol.when == "end" else maps > 0


def _reach(maps: Tensor, along: Axes, protocol: Protocol) -> Window:
    """Rows and columns beyond which nothing can be foreground: a weighted mean of low values is low.

    Not so with a kernel that has negative weights, or a threshold that rounding could reach: then it is everything.
    """
    threshold = protocol.threshold if protocol.when == "end" else 0.0
    inclusive = protocol.inclusive and protocol.when == "end"
    if protocol.resampling.kernel == "bicubic" or threshold < 0 or inclusive:
        return slice(0, along[0].cells), slice(0, along[1].cells)
    low, (_, h, w) = 0.999 * threshold, maps.shape
    rows, cols = (maps.amax(others).detach().numpy() <= low for others in ((0, 2), (0, 1)))
    (down, _), (across, _) = (_taps_inside(*line, protocol.resampling) for line in zip(along, (h, w), strict=True))
    return _span(rows, down.numpy()), _span(cols, across.numpy())


def _span(low: NDArray[np.bool_], cells: NDArray[np.int64]) -> slice:
    """The new cells that read any old cell that is not low (a nan is not); one where there is none."""
    high = np.flatnonzero(~low)
    if not len(high):
        return slice(0, 1)
    first, end = cells[:, -1].searchsorted(high[0]), cells[:, 0].searchsorted(high[-1], "right")
    return slice(int(first), int(end)) if first < end else slice(0, 1)


def _score(logits: Tensor, protocol: Protocol) -> Tensor:
    """In 64 bit, a sigmoid computed by vector or by scalar instructions rounds to the same 32-bit number."""
    if protocol.score == "logit":
        return logits.float()
    able = logits.cpu() if logits.device.type == "mps" else logits  # Apple's devices have no 64-bit numbers
    return able.double().sigmoid().float().to(logits.device)


def _above(maps: Tensor, protocol: Protocol) -> Tensor:
    """NumPy compares several times as fast as PyTorch does on a CPU; both with the threshold in 32 bit."""
    if maps.device.type != "cpu":
        return maps >= protocol.threshold if protocol.inclusive else maps > protocol.threshold
    values, threshold = maps.detach().numpy(), np.float32(protocol.threshold)
    return torch.from_numpy(values >= threshold if protocol.inclusive else values > threshold)
