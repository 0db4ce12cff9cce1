"""Pointing: whether the peak of an evidence map lies inside the target."""

from __future__ import annotations

import numpy as np
from PIL import Image

from riszoo.bench.html.pointing import peak, peak_is_inside, with_peak

MAP = np.zeros((4, 4))
MAP[1, 2] = 1.0  # its centre is at 3/8 of the height and 5/8 of the width


def target(top: int, left: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """A target of 20 x 20 pixels in an image of 80 x 160."""
    mask = np.zeros((80, 160), dtype=bool)
    mask[top : top + 20, left : left + 20] = True
    return mask


def test_the_peak_is_the_centre_of_the_largest_cell() -> None:
    assert peak(MAP) == (0.375, 0.625)


def test_a_peak_is_inside_or_outside_the_target() -> None:
    assert peak_is_inside(MAP, target(20, 90)) is True
    assert peak_is_inside(MAP, target(20, 0)) is False
    assert peak_is_inside(MAP, np.zeros((80, 160), dtype=bool)) is None, "a sentence without a target"


def test_the_ring_is_drawn_around_the_peak() -> None:
    image = Image.new("RGB", (160, 80), "red")
    changed = np.argwhere((np.asarray(with_peak(image, MAP)) != np.asarray(image)).any(-1))
    assert np.allclose(changed.mean(0), (30, 100), atol=1)
    assert abs(changed - (30, 100)).max() < 10
