"""How far a number would move with other images: whole images are drawn again, their sentences stay together.

Everything is added up in integers, so an interval is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DRAWS = 1000
SEED = 20
FIXED = 2**32
"""An IoU as a whole number of parts: 60,000 sentences add up without overflow."""


def fixed_point(values: Floats) -> Ints:
    parts: Ints = np.rint(values * FIXED).astype(np.int64)
    return parts


def by_image(columns: Ints, images: Ints) -> Ints:
    """(n, k) numbers of sentences -> (images, k) sums; `images` (n,) counts from 0."""
    sums = np.zeros((int(images.max()) + 1, columns.shape[1]), dtype=np.int64)
    np.add.at(sums, images, columns)
    return sums


def resampled(sums: Ints, draws: int = DRAWS) -> Ints:
    """(images, k) -> (draws, k): totals over as many images, drawn with replacement."""
    return np.stack([weights @ sums for weights in _weights(len(sums), draws)])


def _weights(images: int, draws: int) -> Iterator[Ints]:
    rng = np.random.default_rng(SEED)
    for _ in range(draws):
        yield np.bincount(rng.integers(images, size=images), minlength=images)


def ratio_interval(parts: Ints, wholes: Ints, images: Ints) -> tuple[float, float]:
    """The middle 95 % of sum(parts) / sum(wholes)."""
    totals = resampled(by_image(np.stack([parts, wholes], -1), images))
    return middle(totals[:, 0] / np.maximum(totals[:, 1], 1))


def middle(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def sign_flip(differences: Ints, images: Ints, draws: int = 2000) -> float:
    """How often chance alone, which swaps the two runs on a whole image or does not, gives as large a difference."""
    sums = by_image(differences[:, None], images)[:, 0]
    rng = np.random.default_rng(SEED)
    larger = sum(abs(int(rng.choice([-1, 1], len(sums)) @ sums)) >= abs(int(sums.sum())) for _ in range(draws))
    return (1 + larger) / (1 + draws)
