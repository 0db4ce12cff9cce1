"""An image that is much larger than the network's frame, in overlapping windows whose logits are blended.

The logits of all windows and of the whole image lie on one grid over the image, the canvas, as fine as a window's own
logits. A protocol resizes and thresholds it as it does the logits of a frame, so memory does not grow with the number
of windows.

Letters: N sentences, h x w the logits of a frame, Y x X the canvas.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from riszoo.batch import Geometry
from riszoo.metrics.protocols import Resampling
from riszoo.metrics.resample import Size, axes, resize

OVERLAP = 0.25
"""The share of a window's side that it has in common with the next one, at least."""

Window = tuple[slice, slice]


class Canvas:
    """The windows of an image and the grid on which their logits are blended.

    Args:
        image: height and width
        tile: the side of a window, in pixels of the image
        grid: height and width of a frame's logits
    """

    def __init__(self, image: Size, tile: int, grid: Size) -> None:
        self.image = image
        side = max(grid)
        self.size: Size = math.ceil(image[0] * side / tile), math.ceil(image[1] * side / tile)
        rows, cols = spans(self.size[0], side), spans(self.size[1], side)
        self.windows: list[Window] = [(row, col) for row in rows for col in cols]
        self.total = self.weight = torch.zeros(())

    @property
    def geometry(self) -> Geometry:
        """The canvas as a frame that the image fills."""
        return Geometry.fit("squeeze", self.image, self.size)

    def pixels(self, window: Window) -> Window:
        """The image's pixels below a window."""
        rows, cols = (
            slice(round(span.start * length / cells), round(span.stop * length / cells))
            for span, length, cells in zip(window, self.image, self.size, strict=True)
        )
        return rows, cols

    def add(self, window: Window, logits: Tensor, geometry: Geometry) -> None:
        """Add a window's logits (N, h, w) over its frame; they count less towards its borders."""
        size = window[0].stop - window[0].start, window[1].stop - window[1].start
        weight = _hat(size[0])[:, None] * _hat(size[1])
        if self.total.ndim == 0:
            self.total = logits.new_zeros((len(logits), *self.size), dtype=torch.float32)
            self.weight = torch.zeros(self.size)
        self.total[:, window[0], window[1]] += weight.to(logits.device) * _over_image(logits, geometry, size)
        self.weight[window] += weight

    def blended(self, whole: Tensor, geometry: Geometry) -> Tensor:
        """(N, 1, Y, X): the mean of the windows' logits and those of the whole image, (N, h, w) over its frame."""
        windows = self.total / self.weight.to(self.total.device)
        return ((windows + _over_image(whole, geometry, self.size)) / 2)[:, None]


def spans(length: int, side: int) -> list[slice]:
    """Evenly spaced spans of `side` cells that cover `length` cells; one where they fit into `side`."""
    if length <= side:
        return [slice(0, length)]
    count = math.ceil((length - side) / ((1 - OVERLAP) * side)) + 1
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    return [slice(start, start + side) for start in starts]


def _hat(cells: int) -> Tensor:
    """(cells,) weights that rise from the ends to the middle, none of them 0."""
    index = torch.arange(cells)
    return (torch.minimum(index, cells - 1 - index) + 1) / cells


def _over_image(logits: Tensor, geometry: Geometry, size: Size) -> Tensor:
    """(N, h, w) over a frame -> (N, *size) over its image alone."""
    count = len(logits)
    return resize(logits.float(), axes([geometry] * count, [size] * count), Resampling())
