"""Confidence intervals over images: whole images are resampled, so that their sentences stay together.

All sums are of integers, so an interval is the same on every machine.
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
"""1.0 in fixed point: the IoUs of 60,000 sentences add up without overflow."""


def fixed_point(values: Floats) -> Ints:
    """Values in units of 1 / FIXED."""
    parts: Ints = np.rint(values * FIXED).astype(np.int64)
    return parts


def sum_by_image(columns: Ints, images: Ints) -> Ints:
    """(n, k) numbers of sentences -> (images, k) sums; `images` (n,) numbers the images from 0."""
    sums = np.zeros((int(images.max()) + 1, columns.shape[1]), dtype=np.int64)
    np.add.at(sums, images, columns)
    return sums


def resample(sums: Ints, draws: int = DRAWS) -> Ints:
    """(images, k) -> (draws, k): totals over as many images, drawn with replacement."""
    return np.stack([weights @ sums for weights in _weights(len(sums), draws)])


def _weights(images: int, draws: int) -> Iterator[Ints]:
    rng = np.random.default_rng(SEED)
    for _ in range(draws):
        yield np.bincount(rng.integers(images, size=images), minlength=images)


def ratio_interval(numerators: Ints, denominators: Ints, images: Ints) -> tuple[float, float]:
    """The 95 % interval of sum(numerators) / sum(denominators)."""
    totals = resample(sum_by_image(np.stack([numerators, denominators], -1), images))
    return percentile_interval(totals[:, 0] / np.maximum(totals[:, 1], 1))


def percentile_interval(values: Floats) -> tuple[float, float]:
    """The middle 95 % of the values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def sign_flip_p_value(differences: Ints, images: Ints, draws: int = 2000) -> float:
    """The p-value of a paired permutation test that swaps the two runs on whole images."""
    sums = sum_by_image(differences[:, None], images)[:, 0]
    rng = np.random.default_rng(SEED)
    larger = sum(abs(int(rng.choice([-1, 1], len(sums)) @ sums)) >= abs(int(sums.sum())) for _ in range(draws))
    return (1 + larger) / (1 + draws)
