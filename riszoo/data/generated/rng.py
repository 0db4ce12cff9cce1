"""Random numbers that are the same on every machine.

Python guarantees the same numbers in every version for `random()` only, so everything is derived from it.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

T = TypeVar("T")


class WeightedChoices(Generic[T]):
    """Values with weights, for `RandomStream.draw`."""

    def __init__(self, weights: Mapping[T, float]) -> None:
        self.values = tuple(weights)
        self.edges = tuple(accumulate(weights.values()))


class RandomStream:
    """Random numbers that follow from a name, such as `riszoo scenes 0 val 17`."""

    def __init__(self, name: str) -> None:
        self.random = random.Random(name).random

    def below(self, count: int) -> int:
        return int(self.random() * count)

    def between(self, low: float, high: float) -> float:
        return low + self.random() * (high - low)

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.random() * len(options))]

    def draw(self, choices: WeightedChoices[T]) -> T:
        return choices.values[bisect(choices.edges, self.random() * choices.edges[-1])]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """Up to `count` of the options, without replacement, in a random order."""
        rest = list(options)
        return [rest.pop(self.below(len(rest))) for _ in range(min(count, len(rest)))]
