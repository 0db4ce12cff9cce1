"""The table of an evaluation: one row of integers a sentence, from which every metric can be computed again."""

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
"""Index of the sentence in its split; whether it has no target; the no-target head's prediction, or a code below."""
NO_HEAD, MISSING = -1, -2
"""Codes in `head`: the model has no such head; the sentence has no prediction at all, which no rule may reward."""


@dataclass(frozen=True)
class Counts:
    """What one protocol counts, each (n,). Areas are in pixels of its frame of comparison, boxes are half-open."""

    intersection: Ints  # I
    predicted: Ints  # |P|
    true: Ints  # |G|
    band_intersection: Ints
    band_union: Ints
    predicted_top: Ints
    predicted_left: Ints
    predicted_bottom: Ints
    predicted_right: Ints
    true_top: Ints
    true_left: Ints
    true_bottom: Ints
    true_right: Ints

    @property
    def union(self) -> Ints:
        """U"""
        return self.predicted + self.true - self.intersection

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
    """Columns of a table of these protocols."""
    return len(SHARED) + len(COUNTS) * len(protocols)


@dataclass(frozen=True)
class SentenceTable:
    """The rows, sorted by sentence index; `sort` builds a table."""

    protocols: tuple[Protocol, ...]
    values: Ints  # (n, width)

    @classmethod
    def sort(cls, protocols: Sequence[Protocol], values: Ints) -> SentenceTable:
        """A table of rows in any order; raises if a sentence occurs twice."""
        values = values[np.argsort(values[:, 0], kind="stable")]
        repeated = values[1:, 0][values[1:, 0] == values[:-1, 0]]
        if len(repeated):
            raise UserError(
                f"sentence {repeated[0]} of the split was evaluated twice ({len(repeated)} such); evaluate each"
                " sentence on one process only (with a Trainer: use_distributed_sampler=False)"
            )
        return cls(tuple(protocols), values)

    @classmethod
    def concatenate(cls, parts: Sequence[SentenceTable], protocol: Protocol) -> SentenceTable:
        """The rows of several splits under one protocol; `index` stays the index in each row's own split."""
        return cls((protocol,), np.concatenate([part._columns(protocol) for part in parts]))

    def _columns(self, protocol: Protocol) -> Ints:
        return np.concatenate([self.values[:, : len(SHARED)], self._block(protocol)], -1)

    def _block(self, protocol: Protocol) -> Ints:
        start = len(SHARED) + len(COUNTS) * self.protocols.index(protocol)
        return self.values[:, start : start + len(COUNTS)]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Bools) -> SentenceTable:
        """The rows of a boolean mask."""
        return SentenceTable(self.protocols, self.values[rows])

    @property
    def index(self) -> Ints:
        return self.values[:, 0]

    @property
    def no_target(self) -> Bools:
        """Whether each sentence has no target."""
        flags: Bools = self.values[:, 1] == 1
        return flags

    @property
    def head(self) -> Ints:
        return self.values[:, 2]

    @property
    def missing(self) -> Bools:
        """Whether each sentence lacks a prediction."""
        flags: Bools = self.head == MISSING
        return flags

    def counts(self, protocol: Protocol) -> Counts:
        return Counts(*self._block(protocol).T)

    def predicts_no_target(self, protocol: Protocol) -> Bools:
        """Whether "no target" is predicted: by the head, or without one by too small a mask.

        A missing prediction counts as the wrong one.
        """
        small = self.counts(protocol).predicted < protocol.min_mask_pixels
        return np.where(self.missing, ~self.no_target, np.where(self.head == NO_HEAD, small, self.head == 1))
