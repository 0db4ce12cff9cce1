"""Contrast of two colours (WCAG 2), and how different they look to people with a colour vision deficiency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Triple = NDArray[np.float64]
DEFICIENCIES: dict[str, Any] = {
    "normal sight": np.eye(3),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""What is seen of linear RGB: Machado, Oliveira and Fernandes 2009, severity 1."""
TO_LMS = np.array(
    (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
)
TO_LAB = np.array(
    (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
)
"""OKLab: Ottosson 2020."""


def linear(colour: str) -> Triple:
    """`#rrggbb` as linear RGB, each 0..1."""
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """From 1 to 21."""
    low, high = sorted(float(linear(colour) @ (0.2126, 0.7152, 0.0722)) for colour in (a, b))
    return (high + 0.05) / (low + 0.05)


def difference(a: str, b: str, sight: str = "normal sight") -> float:
    """The distance in OKLab, times 100: black and white differ by 100."""
    one, other = (TO_LAB @ np.cbrt(TO_LMS @ np.clip(DEFICIENCIES[sight] @ linear(c), 0, 1)) for c in (a, b))
    return float(100 * np.linalg.norm(one - other))
