"""Turning and scaling a cut-out in integer arithmetic, so that every machine draws the same pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from riszoo.data.collage.library import Cutout, Level

TURN = math.radians(3)
GRAIN = 1 << 12
"""One, in the integer units of a sine."""
FINE, WEIGHT = 16, 8
"""Bits after the point: of a position in a cut-out, and of an interpolation weight."""
SHARPEST = 1.4
"""At most so many pixels of a level fall on a pixel of the image, along a side."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A drawn thing, and the row and column of its first pixel in the image; it may reach outside."""

    top: int
    left: int
    pixels: Level  # (h, w, 4): premultiplied RGB and alpha

    def inside(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """The part of the patch that is inside an image."""
        return _overlap(self.top, self.pixels.shape[0], shape[0]), _overlap(self.left, self.pixels.shape[1], shape[1])

    def window(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of an image that is under the patch."""
        rows, columns = self.inside(image.shape)
        return image[rows.start + self.top : rows.stop + self.top, columns.start + self.left : columns.stop + self.left]


def _overlap(start: int, length: int, limit: int) -> slice:
    first = min(max(0, -start), length)
    return slice(first, max(first, min(length, limit - start)))


@lru_cache(maxsize=64)
def cos_sin(turn: int) -> tuple[int, int]:
    """Cosine and sine of so many steps, in units of 1 / GRAIN."""
    return round(math.cos(turn * TURN) * GRAIN), round(math.sin(turn * TURN) * GRAIN)


def warp(
    cutout: Cutout, centre: tuple[float, float], reach: tuple[float, float], scale: float, turn: int, flipped: bool
) -> Patch | None:
    """A cut-out centred at (x, y), `scale` pixels of the image for each of its own; None if it covers no pixel.

    `reach` is half of the width and height of its turned box. Values are interpolated between the four nearest pixels
    of the level whose size is nearest to the drawn one.
    """
    level, step = _level(cutout, 1 / scale)
    top, left = math.floor(centre[1] - reach[1]) - 1, math.floor(centre[0] - reach[0]) - 1
    bottom, right = math.ceil(centre[1] + reach[1]) + 1, math.ceil(centre[0] + reach[0]) + 1
    if bottom - top < 4 or right - left < 4:
        return None
    cos, sin = cos_sin(turn)
    along, across = round(step * cos * (1 << FINE) / GRAIN), round(step * sin * (1 << FINE) / GRAIN)
    # centres of pixels, from the centre of the thing, in 1 / 2 ** WEIGHT of a pixel
    dx = ((2 * np.arange(left, right) + 1) << (WEIGHT - 1)) - round(centre[0] * (1 << WEIGHT))
    dy = ((2 * np.arange(top, bottom) + 1) << (WEIGHT - 1)) - round(centre[1] * (1 << WEIGHT))
    x = (along * dx + across * dy[:, None]) >> WEIGHT  # (h, w), in 1 / 2 ** FINE of a pixel of the level
    y = (along * dy[:, None] - across * dx) >> WEIGHT
    height, width = level.shape[:2]
    x = (-x if flipped else x) + (width << (FINE - 1))
    return Patch(top, left, _interpolated(level, x, y + (height << (FINE - 1))))


def _level(cutout: Cutout, step: float) -> tuple[Level, float]:
    """The level to draw from, and the pixels of it that fall on one pixel of the image along a side."""
    index = 0
    while step > SHARPEST and index < len(cutout.levels) - 1:
        step, index = step / 2, index + 1
    return cutout.levels[index], step


def _interpolated(level: Level, x: NDArray[np.int64], y: NDArray[np.int64]) -> Level:
    """The values at positions in a level, transparent outside of it."""
    height, width = level.shape[:2]
    padded = np.pad(level, ((1, 1), (1, 1), (0, 0))).reshape(-1, 4).view(np.uint32).ravel()
    x, y = (
        np.clip(value + (1 << (FINE - 1)), 0, (length << FINE) + (1 << FINE) - 1)  # from the centre of the border
        for value, length in ((x, width), (y, height))
    )
    first = (y >> FINE) * (width + 2) + (x >> FINE)  # (h, w) the upper left of four pixels
    shift, mask = FINE - WEIGHT, (1 << WEIGHT) - 1
    right, down = ((x >> shift) & mask).astype(np.uint32), ((y >> shift) & mask).astype(np.uint32)
    one = np.uint32(1 << WEIGHT)
    total = np.zeros((*first.shape, 4), np.uint32)
    for offset, weight in (
        (0, (one - right) * (one - down)),
        (1, right * (one - down)),
        (width + 2, (one - right) * down),
        (width + 3, right * down),
    ):
        total += padded[first + offset].view(np.uint8).reshape(*first.shape, 4) * weight[..., None]
    return ((total + (1 << (2 * WEIGHT - 1))) >> (2 * WEIGHT)).astype(np.uint8)
