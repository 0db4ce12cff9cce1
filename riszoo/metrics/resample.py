"""The one resize: a map over the network's frame, read at the cell centres of another frame.

Separable, by gathering: each new cell is a weighted sum of the old cells named by its taps. Only element-wise products
and sums are used, so a map's values do not depend, bit for bit, on what else is in the batch.

Letters: n maps, each h x w or H x W in, M0 x M1 out (the largest in the batch; a smaller one ends earlier), k taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from riszoo.batch import Geometry
from riszoo.metrics.protocols import Kernel, Protocol, Resampling

Size = tuple[int, int]
_CUBIC = -0.75  # the constant that PyTorch and OpenCV share


@dataclass(frozen=True)
class Axis:
    """One axis of a resize, for each map: where its new cells lie on the old grid.

    The picture covers `inside` cells of a frame of `frame` cells, from cell `offset` on; the grid of `grid` cells
    covers the whole frame, and the new frame of `cells` cells covers the picture alone. All (n,) float64.
    """

    inside: Tensor
    offset: Tensor
    frame: Tensor
    cells: Tensor

    def positions(self, grid: int, longest: int, align_corners: bool) -> Tensor:
        """(n, longest): the place of each new cell's centre among the old centres, the first being 0."""
        cell = torch.arange(longest, dtype=torch.float64)
        inside, offset, frame, cells = (a[:, None] for a in (self.inside, self.offset, self.frame, self.cells))
        if align_corners:
            place = offset + cell * (inside - 1) / (cells - 1).clamp(min=1)
            return place * (grid - 1) / (frame - 1).clamp(min=1)
        return ((cell + 0.5) * inside / cells + offset) * grid / frame - 0.5

    def box(self, grid: int) -> tuple[Tensor, Tensor]:
        """(n, 1) each: the first and the last cell of the grid that hold picture."""
        first = (self.offset * grid / self.frame).floor()
        last = ((self.offset + self.inside) * grid / self.frame).ceil() - 1
        return first[:, None], last[:, None]


def axes(geometries: Sequence[Geometry], sizes: Sequence[Size]) -> list[Axis]:
    """How each picture lies in its frame, along y and along x, and how many cells it is compared at."""
    rows = [(g.inside, g.offset, g.frame, size) for g, size in zip(geometries, sizes, strict=True)]
    table = torch.tensor(rows, dtype=torch.float64)  # (n, 4, 2)
    return [Axis(*table[:, :, axis].unbind(1)) for axis in range(2)]


def whole(frames: Sequence[Size]) -> list[Axis]:
    """From a grid over the frame to every cell of the frame itself."""
    return axes([Geometry("squeeze", frame, frame, (1.0, 1.0), (0, 0)) for frame in frames], frames)


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


def resize(maps: Tensor, along: Sequence[Axis], how: Resampling) -> Tensor:
    """(n, h, w) float32 -> (n, M0, M1)."""
    n, h, w = maps.shape
    (rows, row_weights), (cols, col_weights) = (
        _taps_inside(axis, grid, how, maps.device) for axis, grid in zip(along, (h, w), strict=True)
    )
    # columns first: the grid's few rows are gathered by cell, the many new rows then copied whole
    wide = torch.zeros(())
    for k in range(cols.shape[-1]):
        part = maps.gather(2, cols[:, None, :, k].expand(-1, h, -1)) * col_weights[:, None, :, k]
        wide = part if k == 0 else wide + part  # (n, h, M1)
    stacked = wide.flatten(0, 1)  # (n h, M1)
    first_row = torch.arange(n, device=maps.device)[:, None] * h
    out = torch.zeros(())
    for k in range(rows.shape[-1]):
        part = stacked.index_select(0, (first_row + rows[..., k]).flatten()).view(n, -1, wide.shape[-1])
        part.mul_(row_weights[:, :, None, k])
        out = part if k == 0 else out.add_(part)  # (n, M0, M1)
    return out


def _taps_inside(axis: Axis, grid: int, how: Resampling, device: torch.device) -> tuple[Tensor, Tensor]:
    """Taps that stay on the grid: beyond the border they repeat its last cell, or weigh nothing."""
    longest = int(axis.cells.max())
    cells, weights = taps(axis.positions(grid, longest, how.align_corners), how.kernel)
    if how.border == "picture":
        first, last = axis.box(grid)
        cells = cells.clamp(min=first[..., None], max=last[..., None])
    elif how.border == "zero":
        weights = weights * ((cells >= 0) & (cells < grid))
    cells = cells.clamp(0, grid - 1).long()
    return cells.to(device, non_blocking=True), weights.float().to(device, non_blocking=True)


def foreground(logits: Tensor, geometries: Sequence[Geometry], sizes: Sequence[Size], protocol: Protocol) -> Tensor:
    """(n, h, w) logits over each network frame -> (n, M0, M1) bool: the protocol's mask, False beyond each size."""
    maps = _score(logits, protocol)
    if protocol.via is not None:
        maps = resize(maps, whole([g.frame for g in geometries]), protocol.via)
    if protocol.when == "frame":
        maps = _above(maps, protocol).float()
    along = axes(geometries, sizes)
    maps = resize(maps, along, protocol.resampling)
    mask = _above(maps, protocol) if protocol.when == "end" else maps > 0
    if len(set(sizes)) == 1:
        return mask
    rows, cols = (torch.arange(maps.shape[1 + i]) < axis.cells[:, None] for i, axis in enumerate(along))
    return mask & (rows[:, :, None] & cols[:, None, :]).to(mask.device, non_blocking=True)


def _score(logits: Tensor, protocol: Protocol) -> Tensor:
    """In 64 bit, a sigmoid computed by vector or by scalar instructions rounds to the same 32-bit number."""
    if protocol.score == "logit":
        return logits.float()
    able = logits.cpu() if logits.device.type == "mps" else logits  # Apple's devices have no 64-bit numbers
    return able.double().sigmoid().float().to(logits.device)


def _above(maps: Tensor, protocol: Protocol) -> Tensor:
    return maps >= protocol.threshold if protocol.inclusive else maps > protocol.threshold
