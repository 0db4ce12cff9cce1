"""Pointing: whether the peak of an evidence map lies inside the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Map = NDArray[np.floating[Any]]  # (h, w)
Mask = NDArray[np.bool_]  # (H, W) of the same image at any resolution
Hit = bool | None
"""Whether the peak is inside; None for a sentence without a target."""


class Pointing(NamedTuple):
    """One run's evidence of one name over several sentences."""

    hits: int
    sentences: int

    @property
    def percent(self) -> float:
        return 100 * self.hits / max(1, self.sentences)


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


def count(hits: Sequence[Mapping[str, Hit]]) -> dict[str, Pointing]:
    """Each name's hits over the sentences with a target."""
    names = dict.fromkeys(name for each in hits for name in each)
    found = {name: [each[name] for each in hits if each.get(name) is not None] for name in names}
    return {name: Pointing(sum(map(bool, values)), len(values)) for name, values in found.items() if values}
