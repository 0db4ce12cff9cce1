"""From rows to numbers. Sums are of integers, or exact (fsum), so the order of the rows changes no bit."""

from __future__ import annotations

import math

import numpy as np

from riszoo.metrics.protocols import Protocol
from riszoo.metrics.rows import Bools, Counts, Floats, Ints, Rows

Values = dict[str, float]

_ADDED = {
    "I/U": (0.0, 0.0),
    "I/(U+1e-6)": (0.0, 1e-6),
    "I/(U+1e-5)": (0.0, 1e-5),
    "(I+1e-10)/(U+1e-10)": (1e-10, 1e-10),
}


def summarise(rows: Rows, protocol: Protocol) -> Values:
    """Every number of one protocol, times 100; nan where there is nothing to average. `n`: sentences in mIoU."""
    counts, chosen = rows.counts(protocol), chosen_sentences(rows, protocol)
    inside, either = pooled(rows, protocol)
    iou = pair_iou(rows, protocol)[chosen]
    values = {"oIoU": _ratio(inside[chosen].sum(), either[chosen].sum()), "mIoU": _mean(iou)}
    passed = {t: passes(rows, t, protocol)[chosen] for t in protocol.precision}
    values |= {protocol.pass_name(t): _share(hits) for t, hits in passed.items()}
    boxed = box_passes(counts, protocol.box_tie)
    values["box@0.5"] = _share(boxed[chosen])
    if protocol.inconsistent:
        values["IE"] = _share((boxed != passes(rows, 50, protocol))[chosen])
    if protocol.band:
        values["bIoU"] = _mean(plain_iou(counts.band_both, counts.band_either)[chosen])
    return values | _general(rows, protocol, values) | {"n": float(chosen.sum())}


def chosen_sentences(rows: Rows, protocol: Protocol) -> Bools:
    """The sentences over which oIoU, mIoU and Pr run."""
    return ~rows.no_target if protocol.sentences == "targeted" else np.ones(len(rows), dtype=np.bool_)


def pooled(rows: Rows, protocol: Protocol) -> tuple[Ints, Ints]:
    """What each sentence adds to the sums of I and of U. A target called empty keeps the U of the mask as predicted."""
    counts = rows.counts(protocol)
    lost = rows.says_nothing(protocol) & ~rows.no_target & protocol.ruled
    return np.where(lost, 0, counts.both), counts.either


def pair_iou(rows: Rows, protocol: Protocol) -> Floats:
    """Each sentence's IoU, as it enters mIoU."""
    inside, either = pooled(rows, protocol)
    above, below = _ADDED[protocol.iou]
    iou = (inside + above) / (either + below) if below else plain_iou(inside, either)
    iou = np.where(either == 0, float(protocol.empty), iou)
    return np.where(rows.unanswered, 0.0, iou)


def sentence_value(rows: Rows, protocol: Protocol) -> Floats:
    """Each sentence's IoU; where nothing is meant and the protocol knows it, 1 for saying so and 0 otherwise."""
    iou = pair_iou(rows, protocol)
    if protocol.no_target == "none":
        return iou
    return np.where(rows.no_target, _rejects(rows, protocol), iou)


def plain_iou(inside: Ints, either: Ints) -> Floats:
    return np.divide(inside, either, out=np.zeros(len(inside)), where=either > 0)


def passes(rows: Rows, percent: int, protocol: Protocol) -> Bools:
    """Which pairs pass at a threshold. A plain I/U is compared in whole numbers; a smoothed one as its code does."""
    if protocol.iou != "I/U":
        threshold = float(np.float32(percent / 100)) if protocol.tie == "> float32" else percent / 100
        iou = pair_iou(rows, protocol)
        return iou >= threshold if protocol.tie == ">=" else iou > threshold
    inside, either = pooled(rows, protocol)
    return at_least(100 * inside, percent * either, protocol.tie)


def at_least(part: Ints, whole: Ints, tie: str) -> Bools:
    """An empty union never passes."""
    reached: Bools = (part >= whole) & (whole > 0) if tie == ">=" else part > whole
    return reached


def box_passes(counts: Counts, tie: str) -> Bools:
    """Whether the boxes around both masks have an IoU of 0.5. Boxes are half-open, so areas are exact."""
    predicted, true = counts.predicted_box, counts.true_box
    inside = _area(np.maximum(predicted[:, :2], true[:, :2]), np.minimum(predicted[:, 2:], true[:, 2:]))
    union = _area(predicted[:, :2], predicted[:, 2:]) + _area(true[:, :2], true[:, 2:]) - inside
    if tie == ">= float32":  # the added term is lost beside a union of 32 and more
        reached: Bools = inside.astype(np.float32) / (union.astype(np.float32) + np.float32(1e-6)) >= np.float32(0.5)
        return reached
    return at_least(2 * inside, union, tie)


def _area(low: Ints, high: Ints) -> Ints:
    area: Ints = np.maximum(high - low, 0).prod(-1)
    return area


def _rejects(rows: Rows, protocol: Protocol) -> Bools:
    """Ref-ZOM and LISA look at the mask alone."""
    if protocol.no_target in ("refzom", "lisa"):
        empty: Bools = (rows.counts(protocol).predicted == 0) & ~rows.unanswered
        return empty
    return rows.says_nothing(protocol)


def _general(rows: Rows, protocol: Protocol, values: Values) -> Values:
    """The numbers of sets where a sentence may mean nothing."""
    if protocol.no_target == "none":
        return {}
    if protocol.no_target == "lisa":
        return {"gIoU": values["mIoU"], "cIoU": values["oIoU"]}
    rejected = _rejects(rows, protocol)
    if protocol.no_target == "refzom":
        return {"acc": _share(rejected[rows.no_target])}
    return _with_flags(rows, protocol, rejected)


def _with_flags(rows: Rows, protocol: Protocol, rejected: Bools) -> Values:
    """ReLA's evaluator, and GSVA's, which keeps I where a target is called empty."""
    counts, nothing = rows.counts(protocol), rows.no_target
    lost = rejected & ~nothing & (protocol.no_target == "rela")
    inside = np.where(nothing | lost, 0, counts.both)
    either = np.where(nothing, np.where(rejected, 0, counts.predicted), counts.either)
    iou = np.where(nothing, rejected, plain_iou(inside, either))
    named = bool(nothing.any())  # ReLA prints 0 for both accuracies on a set that always means something
    return {
        "gIoU": _mean(iou),
        "cIoU": _ratio(inside.sum(), either.sum()),
        "N-acc": _share(rejected[nothing]) if named else 0.0,
        "T-acc": _share(~rejected[~nothing]) if named else 0.0,
    }


def _ratio(part: int, whole: int) -> float:
    return 100 * int(part) / int(whole) if whole else math.nan


def _mean(values: Floats) -> float:
    return 100 * math.fsum(values) / len(values) if len(values) else math.nan


def _share(hits: Bools) -> float:
    return _ratio(int(hits.sum()), len(hits))
