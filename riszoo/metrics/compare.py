"""Two runs on the same sentences, read from their files: what differs, how surely, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riszoo.batch import Sample
from riszoo.errors import UserError
from riszoo.metrics.bootstrap import FIXED, by_image, fixed_point, middle, resampled, sign_flip
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.results import Evaluation, read_evaluation, read_metrics
from riszoo.metrics.rows import Bools, Floats, Ints
from riszoo.metrics.summary import chosen_sentences, pooled, sentence_value

SHOWN = 5
LENGTHS = ((1, 2), (3, 5), (6, 9), (10, 10**6))


@dataclass(frozen=True)
class Paired:
    """The sentences that both runs answered, in the first run's order: each (n,)."""

    samples: list[Sample]
    images: Ints
    values: tuple[Floats, Floats]  # a sentence's IoU; 1 or 0 where nothing is meant
    inside: tuple[Ints, Ints]
    either: tuple[Ints, Ints]
    pooled: Bools  # the sentences that enter oIoU

    @property
    def gain(self) -> Floats:
        difference: Floats = self.values[1] - self.values[0]
        return difference


def compare(
    run_a: Path, run_b: Path, protocol: str = "original", split: str | None = None, by: str | None = None
) -> str:
    """What separates run B from run A, as text; differences are B minus A."""
    splits = [split] if split else _common_splits(run_a, run_b)
    parts = []
    for name in splits:
        a, b = read_evaluation(run_a, name), read_evaluation(run_b, name)
        paired = pair(a, b, _protocol(a, protocol, run_a), _protocol(b, protocol, run_b))
        alone = (len(a.rows) - len(paired.samples), len(b.rows) - len(paired.samples))
        parts.append("\n".join([f"{name}, {protocol}: A = {run_a}, B = {run_b}", *describe(paired, by, alone)]))
    return "\n\n".join(parts)


def _common_splits(run_a: Path, run_b: Path) -> list[str]:
    a, b = (read_metrics(run)["splits"] for run in (run_a, run_b))
    common = [name for name in a if name in b]
    if not common:
        raise UserError(f"no split is in both runs: A has {', '.join(a) or 'none'}, B has {', '.join(b) or 'none'}")
    return common


def _protocol(result: Evaluation, name: str, run: Path) -> Protocol:
    own = {protocol.name: protocol for protocol in result.rows.protocols}
    if name not in own:
        raise UserError(f"{run} was not evaluated with protocol '{name}'; it has {', '.join(own)}")
    return own[name]


def pair(a: Evaluation, b: Evaluation, protocol_a: Protocol, protocol_b: Protocol) -> Paired:
    """Both runs' values of the sentences they share; protocol and ground truth must be the same."""
    if protocol_a != protocol_b:
        raise UserError(f"protocol '{protocol_a.name}' was defined differently in the two runs: evaluate one again")
    places = {sample.sentence_id: place for place, sample in enumerate(b.asked())}
    shared = [(i, places[sample.sentence_id]) for i, sample in enumerate(a.asked()) if sample.sentence_id in places]
    if not shared:
        raise UserError("the two runs have no sentence in common: were they evaluated on the same set and split?")
    ours, theirs = (np.array(column) for column in zip(*shared, strict=True))
    if (a.rows.counts(protocol_a).true[ours] != b.rows.counts(protocol_b).true[theirs]).any():
        raise UserError("the two runs were measured against different ground truths: evaluate both on the same data")
    pairs = [(pooled(a.rows, protocol_a), ours), (pooled(b.rows, protocol_b), theirs)]
    return Paired(
        samples=[a.asked()[i] for i in ours],
        images=np.unique(a.images()[ours], return_inverse=True)[1].astype(np.int64),
        values=(_values(a, protocol_a)[ours], _values(b, protocol_b)[theirs]),
        inside=(pairs[0][0][0][ours], pairs[1][0][0][theirs]),
        either=(pairs[0][0][1][ours], pairs[1][0][1][theirs]),
        pooled=chosen_sentences(a.rows, protocol_a)[ours],
    )


def _values(result: Evaluation, protocol: Protocol) -> Floats:
    """A protocol whose empty pairs are nan compares nothing with nothing as equal."""
    return np.nan_to_num(sentence_value(result.rows, protocol))


def describe(paired: Paired, by: str | None = None, alone: tuple[int, int] = (0, 0)) -> list[str]:
    lines = [f"  {len(paired.samples)} sentences about {int(paired.images.max()) + 1} images in both runs"]
    if any(alone):
        lines.append(f"  left out: {alone[0]} sentences that only A answered, {alone[1]} that only B answered")
    lines += [mean_line(paired), overall_line(paired), wins_line(paired)]
    lines += ["", *kinds(paired, by), "", *extremes(paired)]
    return lines


def mean_line(paired: Paired) -> str:
    """The mean over sentences; where some mean nothing, a right refusal counts 1 (as in gIoU)."""
    gain = fixed_point(paired.gain)
    totals = resampled(by_image(np.stack([gain, np.full(len(gain), FIXED)], -1), paired.images))
    interval = middle(totals[:, 0] / totals[:, 1])
    chance = sign_flip(gain, paired.images)
    return _difference("mean IoU", _mean(paired.values[0]), _mean(paired.values[1]), interval) + f", p = {chance:.4f}"


def overall_line(paired: Paired) -> str:
    kept = paired.pooled
    columns = [column[kept] for run in range(2) for column in (paired.inside[run], paired.either[run])]
    if not columns[1].sum() or not columns[3].sum():
        return "  oIoU      nothing to add up"
    totals = resampled(by_image(np.stack(columns, -1), paired.images[kept]))
    drawn = totals[:, 2] / np.maximum(totals[:, 3], 1) - totals[:, 0] / np.maximum(totals[:, 1], 1)
    a, b = columns[0].sum() / columns[1].sum(), columns[2].sum() / columns[3].sum()
    return _difference("oIoU", float(a), float(b), middle(drawn))


def _difference(name: str, a: float, b: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return (
        f"  {name:9} A {100 * a:.2f}  B {100 * b:.2f}  difference {100 * (b - a):+.2f}"
        f"  95 % interval [{100 * low:+.2f}, {100 * high:+.2f}]"
    )


def wins_line(paired: Paired) -> str:
    wins_b, wins_a = int((paired.gain > 0).sum()), int((paired.gain < 0).sum())
    return f"  B is better on {wins_b} sentences, A on {wins_a}, equal on {len(paired.gain) - wins_a - wins_b}"


def kinds(paired: Paired, by: str | None) -> list[str]:
    """The mean of each kind of sentence, by its first tag or by its number of words."""
    by = by or ("type" if any(sample.tags for sample in paired.samples) else "length")
    kind_of = _type if by == "type" else _length
    names = [kind_of(sample) for sample in paired.samples]
    order = sorted(set(names), key=_by_length if by == "length" else str)
    return [f"  by {by}:", *(_kind_line(paired, kind, np.array([name == kind for name in names])) for kind in order)]


def _kind_line(paired: Paired, kind: str, own: Bools) -> str:
    a, b = (_mean(values[own]) for values in paired.values)
    return f"    {kind:20} n {int(own.sum()):6}  A {100 * a:6.2f}  B {100 * b:6.2f}  {100 * (b - a):+6.2f}"


def _type(sample: Sample) -> str:
    return sample.tags[0] if sample.tags else "(none)"


def _length(sample: Sample) -> str:
    words = max(1, len(sample.text.split()))
    low, high = next(bounds for bounds in LENGTHS if words <= bounds[1])
    return f"{low} words or more" if high == LENGTHS[-1][1] else f"{low} to {high} words"


def _by_length(kind: str) -> int:
    return int(kind.split()[0])


def extremes(paired: Paired) -> list[str]:
    """Where B gains and loses most."""
    order = np.argsort(paired.gain, kind="stable")
    losses = [int(i) for i in order[:SHOWN] if paired.gain[i] < 0]
    wins = [int(i) for i in order[::-1][:SHOWN] if paired.gain[i] > 0]
    return [
        *_listed(paired, "B gains most on:", wins),
        *_listed(paired, "B loses most on:", losses),
    ]


def _listed(paired: Paired, title: str, places: Sequence[int]) -> list[str]:
    lines = [
        f"    {100 * paired.gain[i]:+7.2f}  {paired.samples[i].sentence_id}  {paired.samples[i].text}" for i in places
    ]
    return [f"  {title}", *lines] if lines else []


def _mean(values: Floats) -> float:
    return float(values.mean())
