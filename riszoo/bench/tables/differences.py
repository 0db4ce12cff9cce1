"""Which of two measured rows is better: paired differences over the same images, and over trainings with other seeds.

Letters: K rows, S trainings (seeds) of a row, I images of the split, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from riszoo.bench.tables.image_sums import ImageSums
from riszoo.metrics.bootstrap import resample

Floats = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The metric of A minus that of B in percent. `half`: the half-width of the interval, corrected for all pairs."""

    value: float
    half: float

    @property
    def verdict(self) -> str:
        """Whether A is better than B."""
        if abs(self.value) <= self.half:
            return "open"
        return "yes" if self.value > 0 else "no"

    @property
    def reversed(self) -> Difference:
        return Difference(-self.value, self.half)


@dataclass(frozen=True)
class Comparison:
    """All pairs of rows on one split by one metric.

    over_images     of each row the standard deviation that the choice of images causes, in points
    over_trainings  of each row with several seeds the standard deviation of one training
    """

    metric: str
    images: int
    names: tuple[str, ...]
    differences: Mapping[tuple[str, str], Difference]
    over_images: Mapping[str, float]
    over_trainings: Mapping[str, float]

    def largest_half(self, *, of_single_trainings: bool) -> float | None:
        """Any difference larger than this is decided: of two rows of one training each, or of the other pairs."""
        halves = [
            difference.half
            for pair, difference in self.differences.items()
            if self.over_trainings.keys().isdisjoint(pair) == of_single_trainings
        ]
        return max(halves, default=None)


def compare_rows(rows: Mapping[str, Sequence[ImageSums]], metric: str) -> Comparison:
    """Compares every pair of rows, each a list of one evaluation for each seed, all of the same sentences."""
    spreads = {name: _Spread.of(evaluations, metric) for name, evaluations in rows.items()}
    pairs = list(combinations(rows, 2))
    found = {(a, b): _difference(spreads[a], spreads[b], len(pairs)) for a, b in pairs}
    return Comparison(
        metric=metric,
        images=next(iter(spreads.values())).images,
        names=tuple(rows),
        differences=found | {(b, a): difference.reversed for (a, b), difference in found.items()},
        over_images={name: float(spread.draws.std(ddof=1)) for name, spread in spreads.items()},
        over_trainings={name: s.over_trainings for name, s in spreads.items() if s.over_trainings is not None},
    )


@dataclass(frozen=True)
class _Spread:
    """One row: its mean over seeds, the same over resampled images, and the spread of its trainings, in percent."""

    value: float
    draws: Floats  # (D,), of the same draws of images for every row
    images: int
    seeds: int
    over_trainings: float | None

    @classmethod
    def of(cls, evaluations: Sequence[ImageSums], metric: str) -> _Spread:
        parts = [evaluation.parts(metric) for evaluation in evaluations]
        columns = np.stack([column for pair in parts for column in pair], -1)  # (I, 2 S)
        values, draws = _percent(columns.sum(0)[None])[0], _percent(resample(columns))
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        return cls(float(values.mean()), draws.mean(-1), len(columns), len(values), spread)


def _percent(totals: NDArray[np.int64]) -> Floats:
    """(D, 2 S) numerators and denominators in turn -> (D, S)"""
    ratios: Floats = 100 * totals[:, ::2] / np.maximum(totals[:, 1::2], 1)
    return ratios


def _difference(a: _Spread, b: _Spread, pairs: int) -> Difference:
    """Of rows with seeds of their own. Bonferroni's correction lets all pairs hold together with `CONFIDENCE`."""
    parts = [((a.draws - b.draws).var(ddof=1), a.images - 1)]
    parts += [(s.over_trainings**2 / s.seeds, s.seeds - 1) for s in (a, b) if s.over_trainings is not None]
    return _with_interval(a.value - b.value, parts, 1 - (1 - CONFIDENCE) / pairs)


def paired_difference(a: Sequence[ImageSums], b: Sequence[ImageSums], metric: str) -> Difference:
    """Of two rows with one evaluation for each seed, both in the order of the same seeds, on the same sentences."""
    own, other = _Spread.of(a, metric), _Spread.of(b, metric)
    parts = [((own.draws - other.draws).var(ddof=1), own.images - 1)]
    if own.seeds > 1:
        values = [_Spread.of([x], metric).value - _Spread.of([y], metric).value for x, y in zip(a, b, strict=True)]
        parts.append((np.var(values, ddof=1) / own.seeds, own.seeds - 1))
    return _with_interval(own.value - other.value, parts, CONFIDENCE)


def _with_interval(value: float, parts: Sequence[tuple[float, int]], confidence: float) -> Difference:
    """The variances of `parts` (over images, of paired draws; of the mean over trainings) add up.

    Each stands beside its degrees of freedom; those of the sum are Welch's.
    """
    variance = sum(part for part, _ in parts)
    weights = sum(part**2 / max(freedom, 1) for part, freedom in parts)
    freedom = variance**2 / weights if weights else 1.0
    return Difference(value, float(student_t(confidence, freedom) * variance**0.5))


def student_t(confidence: float, freedom: float) -> float:
    """The t that |T| stays below with this probability, T of Student's distribution."""
    angles = np.linspace(0, np.pi / 2, 200_001)  # T = sqrt(freedom) tan(angle), whose density is cos^(freedom - 1)
    density = np.cos(angles) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(freedom**0.5 * np.tan(np.interp(confidence, mass / mass[-1], angles)))
