"""Pointing: whether the peak of an evidence map lies inside the target."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Map = NDArray[np.floating[Any]]  # (h, w)
Mask = NDArray[np.bool_]  # (H, W) of the same image at any resolution
Hit = bool | None
"""Whether the peak is inside; None for a sentence without a target."""


def peak(values: Map) -> tuple[float, float]:
    """(y, x) of the centre of the largest cell, as fractions of height and width."""
    row, column = divmod(int(np.argmax(values)), values.shape[1])
    return (row + 0.5) / values.shape[0], (column + 0.5) / values.shape[1]


def peak_is_inside(values: Map, target: Mask) -> Hit:
    y, x = peak(values)
    height, width = target.shape
    return bool(target[int(y * height), int(x * width)]) if target.any() else None


def with_peak(image: Image.Image, values: Map) -> Image.Image:
    """The image with a ring around the peak of its map."""
    y, x = peak(values)
    radius = max(image.size) / 22
    centre = (x * image.width, y * image.height)
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    for width, colour in ((4, "black"), (2, "white")):
        draw.circle(centre, radius, outline=colour, width=width)
    return marked
