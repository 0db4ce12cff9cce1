"""Boxes with scores against the boxes of what is meant: GREC's numbers, and those of one box a sentence."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from riszoo.batch import Sample
from riszoo.data.dataset import RISDataset
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.metrics.boxes import (
    BOX_RULES,
    GREC_OVERLAP,
    GREC_SCORE,
    Boxes,
    BoxRule,
    Matching,
    by_score,
    found_among_first,
    match,
)
from riszoo.metrics.console import aligned
from riszoo.metrics.external_files import BoxPrediction, trouble
from riszoo.metrics.results import as_json, write_circumstances

RESULT = "boxes.json"
PERFECT = "Pr@(F1=1, IoU>=0.5)"
DEFINITION = {
    "grec": {"score": f">= {GREC_SCORE}", "overlap": f"GIoU >= {GREC_OVERLAP}", "matching": "greedy, one to one"},
    "true_boxes": "one a target: the extent of its outlines, or around its mask",
    **{name: asdict(rule) for name, rule in BOX_RULES.items()},
}


@dataclass(frozen=True)
class Judged:
    """One sentence. `found` is empty where not exactly one box is meant, or for a missing answer."""

    sample: Sample
    matching: Matching
    answered: bool
    found: Mapping[str, bool]

    @property
    def perfect(self) -> bool:
        return self.answered and self.matching.perfect


@dataclass
class BoxScores:
    """Every sentence of a split. Those without a prediction are never rewarded."""

    split: Split
    judged: list[Judged] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def missing(self) -> list[str]:
        return [one.sample.sentence_id for one in self.judged if not one.answered]

    def grec(self) -> dict[str, float | None]:
        """GREC's headline, and how often nothing is answered where nothing, and something where something, is meant."""
        meant = [one for one in self.judged if one.matching.true]
        nothing = [one for one in self.judged if not one.matching.true]
        return {
            PERFECT: _share(one.perfect for one in self.judged),
            "N-acc": _share(one.perfect for one in nothing),
            "T-acc": _share(one.matching.kept > 0 for one in meant),
        }

    def accuracies(self) -> dict[str, float | None]:
        """Each rule over the sentences that mean exactly one box."""
        single = [one for one in self.judged if one.matching.true == 1]
        return {name: _share(one.found[name] for one in single) for name in COLUMNS}

    def report(self) -> dict[str, Any]:
        """What `boxes.json` holds."""
        return {
            "format": 1,
            "dataset": self.split.dataset,
            "split": self.split.name,
            "chosen": self.split.describe(),
            "definition": DEFINITION,
            "sentences": len(self.judged),
            "no_target_sentences": sum(not one.matching.true for one in self.judged),
            "one_box_sentences": sum(one.matching.true == 1 for one in self.judged),
            "unanswered_sentences": len(self.missing()),
            "grec": self.grec(),
            "Acc@0.5": self.accuracies(),
        }


def _column(name: str, rule: BoxRule, k: int) -> str:
    return name if rule.first == (1,) else f"{name} P@{k}"


COLUMNS = tuple(_column(name, rule, k) for name, rule in BOX_RULES.items() for k in rule.first)


def told(found: Mapping[str, BoxPrediction], split: Split, path: Path, out: Path) -> list[str]:
    """The result's files are written, and what there is to say."""
    scores = score(found, split)
    result, missing = scores.report(), scores.missing()
    write_atomically(out / f"boxes-{split.name}.csv", _table(scores))
    write_circumstances(out, {"predictions": str(path), "missing": len(missing), "extra": len(scores.extra)})
    write_atomically(out / RESULT, as_json(result))
    ignored = "are not in the split; their predictions are ignored"
    return [*trouble({"have no prediction and count as wrong": missing, ignored: scores.extra}), _text(result)]


def score(found: Mapping[str, BoxPrediction], split: Split) -> BoxScores:
    """Every sentence of the split against the boxes filed under its id."""
    scores = BoxScores(split)
    for record, samples, places in RISDataset(split, (1, 1), "squeeze").by_image():
        true = {place: np.array(record.targets[place].segmentation.boxes()).reshape(-1, 4) for place in set(places)}
        for sample, place in zip(samples, places, strict=True):
            scores.judged.append(_judged(sample, found.get(sample.sentence_id), true[place]))
    if not scores.judged:
        raise UserError(f"split '{split.name}' of {split.dataset} has no sentences to score")
    scores.extra = sorted(found.keys() - {one.sample.sentence_id for one in scores.judged})
    return scores


def _judged(sample: Sample, prediction: BoxPrediction | None, true: Boxes) -> Judged:
    true = true[: 0 if sample.no_target else None]
    if prediction is None:
        return Judged(sample, Matching(0, len(true), 0), False, dict.fromkeys(COLUMNS, False))
    matching = match(prediction.boxes, prediction.scores, true)
    ranked = by_score(prediction.boxes, prediction.scores)
    hits: dict[str, bool] = {}
    for name, rule in BOX_RULES.items() if len(true) == 1 else ():
        hits |= {_column(name, rule, k): hit for k, hit in found_among_first(ranked, true[0], rule).items()}
    return Judged(sample, matching, True, hits)


def _share(hits: Iterable[bool]) -> float | None:
    counted = list(hits)
    return 100 * sum(counted) / len(counted) if counted else None


def _table(scores: BoxScores) -> str:
    """One line a sentence as CSV: all numbers can be computed from it again."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    known = ["id", "image", "target", "text", "tags", "answered", "no_target"]
    writer.writerow([*known, "true", "kept", "matched", "F1", *COLUMNS])
    for one in scores.judged:
        sample, matching = one.sample, one.matching
        said = [sample.sentence_id, sample.image_id, sample.target_id, sample.text, ";".join(sample.tags)]
        counted = [int(one.answered), int(sample.no_target), matching.true, matching.kept, matching.pairs]
        hits = [int(one.found[name]) if name in one.found else "" for name in COLUMNS]
        writer.writerow([*said, *counted, matching.f1 if one.answered else 0.0, *hits])
    return file.getvalue()


def _text(result: Mapping[str, Any]) -> str:
    """Two tables for the console."""
    parts = [_line("GREC", result["split"], result["grec"], result["sentences"])]
    if result["one_box_sentences"]:
        parts.append(_line("Acc@0.5, one box", result["split"], result["Acc@0.5"], result["one_box_sentences"]))
    return "\n\n".join(parts)


def _line(title: str, split: str, values: Mapping[str, float | None], n: int) -> str:
    numbers = ["-" if value is None else f"{value:.2f}" for value in values.values()]
    return aligned([[title, *values, "n"], [split, *numbers, str(n)]])
