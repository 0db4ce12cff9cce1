"""Paired comparison of two runs on the same sentences, read from their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riszoo.batch import Sample
from riszoo.errors import UserError, without_controls
from riszoo.metrics.bootstrap import (
    FIXED,
    fixed_point,
    percentile_interval,
    resample,
    sign_flip_p_value,
    sum_by_image,
)
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.results import Evaluation, read_evaluation, read_metrics, result_folder
from riszoo.metrics.sentence_table import Bools, Floats, Ints
from riszoo.metrics.summary import chosen_sentences, intersection_and_union, sentence_value

SHOWN = 5
"""Sentences listed as the largest gains, and as the largest losses."""
LENGTHS = ((1, 2), (3, 5), (6, 9), (10, 10**6))
"""Groups of sentences by their number of words."""


@dataclass(frozen=True)
class PairedSentences:
    """The sentences with a row in both runs, in the order of run A: each (n,), pairs are (A, B)."""

    samples: list[Sample]
    images: Ints
    values: tuple[Floats, Floats]  # each sentence's IoU; 1 or 0 for a no-target sentence
    intersections: tuple[Ints, Ints]
    unions: tuple[Ints, Ints]
    in_overall: Bools  # the sentences in oIoU

    @property
    def gain(self) -> Floats:
        difference: Floats = self.values[1] - self.values[0]
        return difference


def compare(
    run_a: Path, run_b: Path, protocol: str = "original", split: str | None = None, by: str | None = None
) -> str:
    """The differences between run B and run A as text, B minus A; each a run's folder or a test's."""
    run_a, run_b = result_folder(run_a), result_folder(run_b)
    splits = [split] if split else _common_splits(run_a, run_b)
    parts = []
    for name in splits:
        a, b = read_evaluation(run_a, name), read_evaluation(run_b, name)
        paired = pair(a, b, _protocol(a, protocol, run_a), _protocol(b, protocol, run_b))
        unpaired = (len(a.table) - len(paired.samples), len(b.table) - len(paired.samples))
        parts.append("\n".join([f"{name}, {protocol}: A = {run_a}, B = {run_b}", *describe(paired, by, unpaired)]))
    return "\n\n".join(parts)


def _common_splits(run_a: Path, run_b: Path) -> list[str]:
    a, b = (read_metrics(run)["splits"] for run in (run_a, run_b))
    common = [name for name in a if name in b]
    if not common:
        raise UserError(f"no split is in both runs: A has {', '.join(a) or 'none'}, B has {', '.join(b) or 'none'}")
    return common


def _protocol(evaluation: Evaluation, name: str, run: Path) -> Protocol:
    protocols = {protocol.name: protocol for protocol in evaluation.table.protocols}
    if name not in protocols:
        raise UserError(f"{run} was not evaluated with protocol '{name}'; it has {', '.join(protocols)}")
    return protocols[name]


def pair(a: Evaluation, b: Evaluation, protocol_a: Protocol, protocol_b: Protocol) -> PairedSentences:
    """The sentences in both evaluations; the protocol and the ground truths must be the same."""
    if protocol_a != protocol_b:
        raise UserError(f"protocol '{protocol_a.name}' was defined differently in the two runs: evaluate one again")
    samples_a = a.row_samples()
    row_of = {_key(sample): row for row, sample in enumerate(b.row_samples())}
    rows = [(i, row_of[_key(sample)]) for i, sample in enumerate(samples_a) if _key(sample) in row_of]
    if not rows:
        raise UserError("the two runs have no sentence in common: were they evaluated on the same set and split?")
    rows_a, rows_b = (np.array(column) for column in zip(*rows, strict=True))
    if (a.table.counts(protocol_a).true[rows_a] != b.table.counts(protocol_b).true[rows_b]).any():
        raise UserError("the two runs were measured against different ground truths: evaluate both on the same data")
    intersection_a, union_a = intersection_and_union(a.table, protocol_a)
    intersection_b, union_b = intersection_and_union(b.table, protocol_b)
    return PairedSentences(
        samples=[samples_a[i] for i in rows_a],
        images=np.unique(a.images()[rows_a], return_inverse=True)[1].astype(np.int64),
        values=(_values(a, protocol_a)[rows_a], _values(b, protocol_b)[rows_b]),
        intersections=(intersection_a[rows_a], intersection_b[rows_b]),
        unions=(union_a[rows_a], union_b[rows_b]),
        in_overall=chosen_sentences(a.table, protocol_a)[rows_a],
    )


def _key(sample: Sample) -> tuple[str, str, str]:
    """A sentence's id alone may repeat in a data set's files."""
    return sample.image_id, sample.target_id, sample.sentence_id


def _values(evaluation: Evaluation, protocol: Protocol) -> Floats:
    """nan, which some protocols give to two empty masks, counts as 0."""
    return np.nan_to_num(sentence_value(evaluation.table, protocol))


def describe(paired: PairedSentences, by: str | None = None, unpaired: tuple[int, int] = (0, 0)) -> list[str]:
    """The lines of the comparison; `unpaired` are the sentences left out of A and of B."""
    lines = [f"  {len(paired.samples)} sentences about {int(paired.images.max()) + 1} images in both runs"]
    if any(unpaired):
        lines.append(f"  left out: {unpaired[0]} sentences only in A, {unpaired[1]} only in B")
    lines += [_mean_line(paired), _overall_line(paired), _wins_line(paired)]
    lines += ["", *_group_lines(paired, by), "", *_extreme_lines(paired)]
    return lines


def _mean_line(paired: PairedSentences) -> str:
    """The mean over sentences; a no-target sentence counts 1 if it is predicted so (as in gIoU)."""
    gain = fixed_point(paired.gain)
    totals = resample(sum_by_image(np.stack([gain, np.full(len(gain), FIXED)], -1), paired.images))
    interval = percentile_interval(totals[:, 0] / totals[:, 1])
    p_value = sign_flip_p_value(gain, paired.images)
    return _difference("mean IoU", _mean(paired.values[0]), _mean(paired.values[1]), interval) + f", p = {p_value:.4f}"


def _overall_line(paired: PairedSentences) -> str:
    chosen = paired.in_overall
    columns = [column[chosen] for run in range(2) for column in (paired.intersections[run], paired.unions[run])]
    if not columns[1].sum() or not columns[3].sum():
        return "  oIoU      not defined: all masks are empty"
    totals = resample(sum_by_image(np.stack(columns, -1), paired.images[chosen]))
    differences = totals[:, 2] / np.maximum(totals[:, 3], 1) - totals[:, 0] / np.maximum(totals[:, 1], 1)
    a, b = columns[0].sum() / columns[1].sum(), columns[2].sum() / columns[3].sum()
    return _difference("oIoU", float(a), float(b), percentile_interval(differences))


def _difference(name: str, a: float, b: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return (
        f"  {name:9} A {100 * a:.2f}  B {100 * b:.2f}  difference {100 * (b - a):+.2f}"
        f"  95 % interval [{100 * low:+.2f}, {100 * high:+.2f}]"
    )


def _wins_line(paired: PairedSentences) -> str:
    wins_b, wins_a = int((paired.gain > 0).sum()), int((paired.gain < 0).sum())
    return f"  B is better on {wins_b} sentences, A on {wins_a}, equal on {len(paired.gain) - wins_a - wins_b}"


def _group_lines(paired: PairedSentences, by: str | None) -> list[str]:
    """The means of groups of sentences, by type (first tag) or by length (number of words)."""
    by = by or ("type" if any(sample.tags for sample in paired.samples) else "length")
    group_of = _type if by == "type" else _length
    names = [group_of(sample) for sample in paired.samples]
    order = sorted(set(names), key=_first_number if by == "length" else str)
    members = {group: np.array([name == group for name in names]) for group in order}
    return [f"  by {by}:", *(_group_line(paired, group, rows) for group, rows in members.items())]


def _group_line(paired: PairedSentences, group: str, members: Bools) -> str:
    a, b = (_mean(values[members]) for values in paired.values)
    return f"    {group:20} n {int(members.sum()):6}  A {100 * a:6.2f}  B {100 * b:6.2f}  {100 * (b - a):+6.2f}"


def _type(sample: Sample) -> str:
    return sample.tags[0] if sample.tags else "(none)"


def _length(sample: Sample) -> str:
    words = max(1, len(sample.text.split()))
    low, high = next(bounds for bounds in LENGTHS if words <= bounds[1])
    return f"{low} words or more" if high == LENGTHS[-1][1] else f"{low} to {high} words"


def _first_number(group: str) -> int:
    return int(group.split()[0])


def _extreme_lines(paired: PairedSentences) -> list[str]:
    """The sentences on which B gains and loses most."""
    order = np.argsort(paired.gain, kind="stable")
    losses = [int(i) for i in order[:SHOWN] if paired.gain[i] < 0]
    wins = [int(i) for i in order[::-1][:SHOWN] if paired.gain[i] > 0]
    return [*_listed(paired, "B gains most on:", wins), *_listed(paired, "B loses most on:", losses)]


def _listed(paired: PairedSentences, title: str, rows: Sequence[int]) -> list[str]:
    gains = [(paired.samples[row], paired.gain[row]) for row in rows]
    lines = [without_controls(f"    {100 * gain:+7.2f}  {sample.sentence_id}  {sample.text}") for sample, gain in gains]
    return [f"  {title}", *lines] if lines else []


def _mean(values: Floats) -> float:
    return float(values.mean())
