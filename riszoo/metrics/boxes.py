"""When a box counts as found, and how GREC counts several of them: the rules alone, no files.

A box is four numbers, x0 y0 x1 y1; its sides are x1 - x0 and y1 - y0. Letters: p predicted boxes, t true ones.
Areas of whole-numbered boxes are exact, and each rule makes at most one division, so a tie is a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[Any]  # (..., 4), whole numbers or not
Numbers = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class BoxRule:
    """What a box must do to count as found.

    measure     IoU, or the generalised one: IoU less the share of the common hull that neither box covers
    tie         a measure of exactly 0.5 counts, or not
    added       a term in the IoU's denominator; in 32 bit, as its code has it, it is lost beside a large union
    inclusive   x1 and y1 are pixels of the box, so that each side is one longer
    first       the best of so many boxes, by score, is judged: one number for each
    """

    measure: Literal["IoU", "GIoU"] = "IoU"
    tie: Literal[">=", ">"] = ">="
    added: float = 0.0
    inclusive: bool = False
    first: tuple[int, ...] = (1,)


BOX_RULES = {
    "transvg": BoxRule(),
    "mcn": BoxRule(tie=">"),
    "mdetr": BoxRule("GIoU", first=(1, 5, 10)),
    "polyformer": BoxRule(added=1e-6),
    "inclusive": BoxRule(inclusive=True),
}
"""By whose code has it: TransVG, SeqTR, ZSGNet; MCN, SimREC; MDETR's P@k; PolyFormer; the oldest code."""

GREC_SCORE, GREC_OVERLAP = 0.7, 0.5


@dataclass(frozen=True)
class Overlap:
    """Areas of pairs of boxes: their meeting (I), their union (U), the smallest box around both."""

    inside: Numbers
    either: Numbers
    hull: Numbers

    @classmethod
    def of(cls, one: Boxes, other: Boxes, inclusive: bool = False) -> Overlap:
        """Pairs by broadcasting."""
        inside = _area(np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:]), inclusive)
        hull = _area(np.minimum(one[..., :2], other[..., :2]), np.maximum(one[..., 2:], other[..., 2:]), inclusive)
        own, theirs = (_area(boxes[..., :2], boxes[..., 2:], inclusive) for boxes in (one, other))
        return cls(inside, own + theirs - inside, hull)

    def generalised(self) -> Floats:
        """I/U - (C - U)/C as one fraction; 0 where a pair has no area at all."""
        above = self.inside * self.hull - (self.hull - self.either) * self.either
        below = self.either * self.hull
        shares: Floats = np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
        return shares


def _area(low: Boxes, high: Boxes, inclusive: bool) -> Numbers:
    sides = np.maximum(high - low + int(inclusive), 0)
    area: Numbers = sides[..., 0] * sides[..., 1]
    return area


def found(one: Boxes, other: Boxes, rule: BoxRule) -> Bools:
    """Whether each pair passes at 0.5. Two boxes without area never do."""
    pair = Overlap.of(one, other, rule.inclusive)
    if rule.measure == "GIoU":
        reached: Bools = (pair.generalised() >= 0.5) & (pair.either > 0)
    elif rule.added:
        below = pair.either.astype(np.float32) + np.float32(rule.added)
        reached = pair.inside.astype(np.float32) / below >= np.float32(0.5)
    else:
        reached = at_least(2 * pair.inside, pair.either, rule.tie)
    return reached


def at_least(part: Numbers, whole: Numbers, tie: str) -> Bools:
    """An empty union never passes."""
    reached: Bools = (part >= whole) & (whole > 0) if tie == ">=" else part > whole
    return reached


def found_among_first(ranked: Boxes, true: Boxes, rule: BoxRule) -> dict[int, bool]:
    """(p, 4) boxes from the highest score down, (4,) the true one -> for each k, whether one of the first k passes."""
    hits = found(ranked, true[None], rule)
    return {k: bool(hits[:k].any()) for k in rule.first}


def by_score(boxes: Boxes, scores: Floats) -> Boxes:
    """From the highest score down, equal ones in the order given."""
    ranked: Boxes = boxes[np.argsort(-scores, kind="stable")]
    return ranked


@dataclass(frozen=True)
class Matching:
    """What GREC counts in one sentence: boxes kept, boxes meant, and the pairs made of them."""

    kept: int
    true: int
    pairs: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); where nothing is meant, 1 for no box and 0 for any."""
        return 2 * self.pairs / (self.kept + self.true) if self.true else float(self.kept == 0)

    @property
    def perfect(self) -> bool:
        return self.pairs == self.kept == self.true


def match(boxes: Boxes, scores: Floats, true: Boxes) -> Matching:
    """GREC's: boxes of score 0.7 and more, paired one to one with the true ones, the best generalised IoU first."""
    kept = by_score(boxes, scores)[: int((scores >= GREC_SCORE).sum())]
    return Matching(len(kept), len(true), _pairs(Overlap.of(kept[:, None], true[None]).generalised()))


def _pairs(overlaps: Floats) -> int:
    """(p, t) -> the pairs that a greedy choice makes; of equals the higher score goes first, then the earlier box."""
    left, pairs = overlaps.copy(), 0
    while left.size and left.max() >= GREC_OVERLAP:
        box, true = np.unravel_index(left.argmax(), left.shape)
        left[box], left[:, true] = -np.inf, -np.inf
        pairs += 1
    return pairs
