"""One row of whole numbers a sentence: all that is kept of an evaluation, and enough to compute every metric again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from riszoo.errors import UserError
from riszoo.metrics.protocols import Protocol

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SHARED = ("index", "no_target", "head")
"""The sentence's place in the split; whether nothing is meant; what a no-target head said (or one of the two below)."""
NO_HEAD, NO_ANSWER = -1, -2
"""The mask alone decides; there is no prediction at all, which no rule may reward."""


@dataclass(frozen=True)
class Counts:
    """What one protocol counted, each (n,) and, but for the boxes, in cells of its frame of comparison."""

    both: Ints  # I
    predicted: Ints  # |P|
    true: Ints  # |G|
    band_both: Ints
    band_either: Ints
    predicted_top: Ints
    predicted_left: Ints
    predicted_bottom: Ints
    predicted_right: Ints
    true_top: Ints
    true_left: Ints
    true_bottom: Ints
    true_right: Ints

    @property
    def either(self) -> Ints:
        """U"""
        return self.predicted + self.true - self.both

    @property
    def predicted_box(self) -> Ints:
        """(n, 4): x0, y0, x1, y1"""
        sides = self.predicted_left, self.predicted_top, self.predicted_right, self.predicted_bottom
        return np.stack(sides, -1)

    @property
    def true_box(self) -> Ints:
        """(n, 4): x0, y0, x1, y1"""
        return np.stack([self.true_left, self.true_top, self.true_right, self.true_bottom], -1)


COUNTS = tuple(field.name for field in fields(Counts))


def width(protocols: Sequence[Protocol]) -> int:
    return len(SHARED) + len(COUNTS) * len(protocols)


@dataclass(frozen=True)
class Rows:
    """The table, sorted by sentence. Build it with `sort`."""

    protocols: tuple[Protocol, ...]
    values: Ints  # (n, width)

    @classmethod
    def sort(cls, protocols: Sequence[Protocol], values: Ints) -> Rows:
        values = values[np.argsort(values[:, 0], kind="stable")]
        again = values[1:, 0][values[1:, 0] == values[:-1, 0]]
        if len(again):
            raise UserError(
                f"sentence {again[0]} of the split was evaluated twice ({len(again)} such); evaluate each sentence"
                " on one process only (with a Trainer: use_distributed_sampler=False)"
            )
        return cls(tuple(protocols), values)

    @classmethod
    def pooled(cls, parts: Sequence[Rows], protocol: Protocol) -> Rows:
        """The rows of several splits under one protocol; a place is then one in its own split."""
        start = len(SHARED)
        width = len(COUNTS)
        places = [start + width * part.protocols.index(protocol) for part in parts]
        blocks = [
            np.concatenate([part.values[:, :start], part.values[:, place : place + width]], -1)
            for part, place in zip(parts, places, strict=True)
        ]
        return cls((protocol,), np.concatenate(blocks))

    def __len__(self) -> int:
        return len(self.values)

    def take(self, chosen: Bools) -> Rows:
        return Rows(self.protocols, self.values[chosen])

    @property
    def index(self) -> Ints:
        return self.values[:, 0]

    @property
    def no_target(self) -> Bools:
        flags: Bools = self.values[:, 1] == 1
        return flags

    @property
    def unanswered(self) -> Bools:
        missing: Bools = self.values[:, 2] == NO_ANSWER
        return missing

    def counts(self, protocol: Protocol) -> Counts:
        start = len(SHARED) + len(COUNTS) * self.protocols.index(protocol)
        return Counts(*self.values[:, start : start + len(COUNTS)].T)

    def says_nothing(self, protocol: Protocol) -> Bools:
        """Whether the model says that nothing is meant: its head, or without one too small a mask.

        A missing answer is taken for the wrong one.
        """
        head = self.values[:, 2]
        small = self.counts(protocol).predicted < protocol.nt_pixels
        return np.where(self.unanswered, ~self.no_target, np.where(head == NO_HEAD, small, head == 1))
