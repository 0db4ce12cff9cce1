"""The outlines of the shapes, in integers so that every machine draws the same pixels."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Outline = NDArray[np.int64]  # x0, y0, x1, y1, ...

GRAIN = 1 << 12
"""The radius of a shape's enclosing circle in the integer units of an outline."""

FAMILIES = {
    "round": ("circle", "ring", "heart", "moon"),
    "angular": ("square", "triangle", "star", "cross"),
}
SHAPES = FAMILIES["round"] + FAMILIES["angular"]
TURN = math.radians(5)
RING_HOLE = 0.5


def _arc(radius: float, start: float, stop: float, steps: int, x: float = 0.0) -> list[Point]:
    angles = [start + (stop - start) * k / steps for k in range(steps + 1)]
    return [(x + radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _regular(corners: int, start: float) -> list[Point]:
    return _arc(1.0, start, start + math.tau * (corners - 1) / corners, corners - 1)


def _heart() -> list[Point]:
    points = []
    for t in (math.tau * k / 40 for k in range(40)):
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3, -y))
    return points


def _moon() -> list[Point]:
    """A disc minus a smaller one at its right; the circles cross at x."""
    offset, small = 0.45, 0.8
    x = (offset**2 + 1 - small**2) / (2 * offset)
    outer, inner = math.acos(x), math.acos((x - offset) / small)
    return _arc(1, outer, math.tau - outer, 36) + _arc(small, math.tau - inner, inner, 24, offset)


def _star() -> list[Point]:
    tips = _regular(5, -math.pi / 2)
    dents = [(0.45 * x, 0.45 * y) for x, y in _regular(5, -math.pi / 2 + math.pi / 5)]
    return [point for pair in zip(tips, dents, strict=True) for point in pair]


def _cross() -> list[Point]:
    a, b = 0.34, 1.0
    return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]


def _centred(points: list[Point]) -> list[Point]:
    """The points moved and scaled so that the unit circle around the centre of their box encloses them."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x0, y0 = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    radius = max(math.hypot(x - x0, y - y0) for x, y in points)
    return [((x - x0) / radius, (y - y0) / radius) for x, y in points]


def _shoelace(points: list[Point]) -> float:
    pairs = zip(points, [*points[1:], points[0]], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


_POINTS = {
    "circle": _regular(48, 0),
    "ring": _regular(48, 0),
    "heart": _centred(_heart()),
    "moon": _centred(_moon()),
    "square": _regular(4, math.pi / 4),
    "triangle": _regular(3, -math.pi / 2),
    "star": _star(),
    "cross": _centred(_cross()),
}
AREA = {name: _shoelace(points) for name, points in _POINTS.items()}
AREA["ring"] *= 1 - RING_HOLE**2
"""The area of each shape for an enclosing circle of radius 1."""


@lru_cache(maxsize=256)
def outline(shape: str, turn: int) -> Outline:
    """The corners of a shape turned by `turn` steps."""
    cos, sin = math.cos(turn * TURN), math.sin(turn * TURN)
    turned = [(x * cos - y * sin, x * sin + y * cos) for x, y in _POINTS[shape]]
    return np.array([round(value * GRAIN) for point in turned for value in point])
