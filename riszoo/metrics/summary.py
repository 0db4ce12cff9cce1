"""Metrics of a sentence table. Sums are of integers or exact (fsum), so the order of rows changes no bit."""

from __future__ import annotations

import math

import numpy as np

from riszoo.metrics.protocols import Protocol
from riszoo.metrics.sentence_table import Bools, Counts, Floats, Ints, SentenceTable

Values = dict[str, float]

_SMOOTHING = {
    "I/U": (0.0, 0.0),
    "I/(U+1e-6)": (0.0, 1e-6),
    "I/(U+1e-5)": (0.0, 1e-5),
    "(I+1e-10)/(U+1e-10)": (1e-10, 1e-10),
}


def summarise(table: SentenceTable, protocol: Protocol) -> Values:
    """Every metric of one protocol, times 100; nan for a mean over no sentences. `n`: the sentences in mIoU."""
    counts, chosen = table.counts(protocol), chosen_sentences(table, protocol)
    intersection, union = intersection_and_union(table, protocol)
    iou = sentence_iou(table, protocol)[chosen]
    values = {"oIoU": _ratio(intersection[chosen].sum(), union[chosen].sum()), "mIoU": _mean(iou)}
    for percent in protocol.precision:
        values[protocol.precision_name(percent)] = _share(passes(table, percent, protocol)[chosen])
    box_found = box_passes(counts, protocol.box_tie)
    values["box@0.5"] = _share(box_found[chosen])
    if protocol.report_ie:
        values["IE"] = _share((box_found != passes(table, 50, protocol))[chosen])
    if protocol.band:
        values["bIoU"] = _mean(plain_iou(counts.band_intersection, counts.band_union)[chosen])
    return values | _no_target_values(table, protocol, values) | {"n": float(chosen.sum())}


def chosen_sentences(table: SentenceTable, protocol: Protocol) -> Bools:
    """The sentences in oIoU, mIoU and Pr."""
    return ~table.no_target if protocol.sentences == "targeted" else np.ones(len(table), dtype=np.bool_)


def intersection_and_union(table: SentenceTable, protocol: Protocol) -> tuple[Ints, Ints]:
    """What each sentence adds to the sums of I and U; the U of a rejected target includes the mask as predicted."""
    counts = table.counts(protocol)
    punished = table.predicts_no_target(protocol) & ~table.no_target & protocol.punish_rejected
    return np.where(punished, 0, counts.intersection), counts.union


def sentence_iou(table: SentenceTable, protocol: Protocol) -> Floats:
    """Each sentence's IoU in mIoU."""
    intersection, union = intersection_and_union(table, protocol)
    above, below = _SMOOTHING[protocol.iou]
    iou = (intersection + above) / (union + below) if below else plain_iou(intersection, union)
    iou = np.where(union == 0, float(protocol.empty_iou), iou)
    return np.where(table.missing, 0.0, iou)


def sentence_value(table: SentenceTable, protocol: Protocol) -> Floats:
    """Each sentence's IoU; for a no-target sentence, 1 if it is predicted so and 0 otherwise."""
    iou = sentence_iou(table, protocol)
    if protocol.no_target == "none":
        return iou
    return np.where(table.no_target, _rejected(table, protocol), iou)


def plain_iou(intersection: Ints, union: Ints) -> Floats:
    """I/U, and 0 for an empty union."""
    return np.divide(intersection, union, out=np.zeros(len(intersection)), where=union > 0)


def passes(table: SentenceTable, percent: int, protocol: Protocol) -> Bools:
    """Which sentences pass at a threshold. I/U is compared in integers, a smoothed IoU as the mirrored code does.

    A pair of two empty masks passes where its IoU is 1.
    """
    if protocol.iou != "I/U":
        threshold = float(np.float32(percent / 100)) if protocol.tie == "> float32" else percent / 100
        iou = sentence_iou(table, protocol)
        return iou >= threshold if protocol.tie == ">=" else iou > threshold
    intersection, union = intersection_and_union(table, protocol)
    both_empty: Bools = (union == 0) & ~table.missing & (protocol.empty_iou == "1")
    return both_empty | _reaches(100 * intersection, percent * union, protocol.tie)


def box_passes(counts: Counts, tie: str) -> Bools:
    """Whether the boxes around both masks have an IoU of 0.5."""
    predicted, true = counts.predicted_box, counts.true_box
    intersection = _area(np.maximum(predicted[:, :2], true[:, :2]), np.minimum(predicted[:, 2:], true[:, 2:]))
    union = _area(predicted[:, :2], predicted[:, 2:]) + _area(true[:, :2], true[:, 2:]) - intersection
    if tie == ">= float32":  # the added term vanishes beside a union of 32 or more
        smoothed = union.astype(np.float32) + np.float32(1e-6)
        passed: Bools = intersection.astype(np.float32) / smoothed >= np.float32(0.5)
        return passed
    return _reaches(2 * intersection, union, tie)


def _area(low: Ints, high: Ints) -> Ints:
    area: Ints = np.maximum(high - low, 0).prod(-1)
    return area


def _reaches(part: Ints, whole: Ints, tie: str) -> Bools:
    """part >= whole or part > whole; an empty whole is never reached."""
    reached: Bools = (part >= whole) & (whole > 0) if tie == ">=" else part > whole
    return reached


def _rejected(table: SentenceTable, protocol: Protocol) -> Bools:
    """Whether "no target" is predicted; Ref-ZOM and LISA judge by the mask alone."""
    if protocol.no_target in ("refzom", "lisa"):
        empty: Bools = (table.counts(protocol).predicted == 0) & ~table.missing
        return empty
    return table.predicts_no_target(protocol)


def _no_target_values(table: SentenceTable, protocol: Protocol, values: Values) -> Values:
    """The metrics of sets with no-target sentences."""
    if protocol.no_target == "none":
        return {}
    if protocol.no_target == "lisa":
        return {"gIoU": values["mIoU"], "cIoU": values["oIoU"]}
    rejected = _rejected(table, protocol)
    if protocol.no_target == "refzom":
        return {"acc": _share(rejected[table.no_target])}
    return _rela_values(table, protocol, rejected)


def _rela_values(table: SentenceTable, protocol: Protocol, rejected: Bools) -> Values:
    """ReLA's evaluator, and GSVA's, which keeps the I of a rejected target."""
    counts, no_target = table.counts(protocol), table.no_target
    punished = rejected & ~no_target & (protocol.no_target == "rela")
    intersection = np.where(no_target | punished, 0, counts.intersection)
    union = np.where(no_target, np.where(rejected, 0, counts.predicted), counts.union)
    iou = np.where(no_target, rejected, plain_iou(intersection, union))
    accuracies = {"N-acc": _share(rejected[no_target]), "T-acc": _share(~rejected[~no_target])}
    if not no_target.any():  # there ReLA prints 0 for both
        accuracies = dict.fromkeys(accuracies, math.nan if protocol.name == "original" else 0.0)
    return {"gIoU": _mean(iou), "cIoU": _ratio(intersection.sum(), union.sum()), **accuracies}


def _ratio(part: int, whole: int) -> float:
    return 100 * int(part) / int(whole) if whole else math.nan


def _mean(values: Floats) -> float:
    return 100 * math.fsum(values) / len(values) if len(values) else math.nan


def _share(passed: Bools) -> float:
    return _ratio(int(passed.sum()), len(passed))
