"""The files of a result: `metrics.json`, `run.json` and a table of sentences for each split.

`metrics.json` holds what equal logits determine and nothing else: it is equal to the byte on any number of processes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from riszoo.batch import Sample
from riszoo.data.masks import GroundTruth
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.metrics.bootstrap import FIXED, fixed_point, ratio_interval
from riszoo.metrics.protocols import Protocol, Resampling
from riszoo.metrics.rows import COUNTS, SHARED, Ints, Rows
from riszoo.metrics.summary import Values, chosen_sentences, pair_iou, pooled, sentence_value, summarise

METRICS, RUN = "metrics.json", "run.json"
NOT_STATED = "not stated"
CIRCUMSTANCES = (
    "text_field",
    "token_limit",
    "geometry",
    "size",
    "interpolation",
    "train_sets",
    "leakage_filter",
    "post_processing",
)
"""What a result depends on beyond data and protocol; what a caller leaves out is recorded as not stated."""
_SHORT = {"both": "I", "predicted": "P", "true": "G"}


@dataclass(frozen=True)
class Evaluation:
    """One split's rows and what they are about. `facts` say how its sentences were chosen (`Split.describe()`)."""

    rows: Rows
    samples: Sequence[Sample]  # of the whole split, or at least of every row
    facts: Mapping[str, Any] = field(default_factory=dict)

    def asked(self) -> list[Sample]:
        """The sample of each row."""
        known = {sample.index: sample for sample in self.samples}
        return [known[int(index)] for index in self.rows.index]

    def images(self) -> Ints:
        """(n,) the image of each row, counted from 0."""
        codes: Ints = np.unique([sample.image_id for sample in self.asked()], return_inverse=True)[1].astype(np.int64)
        return codes


def write_results(folder: Path, results: Mapping[str, Evaluation], circumstances: Mapping[str, Any]) -> dict[str, Any]:
    """Write all three kinds of file; `results` has one evaluation a split. Gives back what `metrics.json` holds."""
    metrics: dict[str, Any] = {"format": 1, "splits": {name: report(result) for name, result in results.items()}}
    if together := pooled_reports(results):
        metrics["pooled"] = together
    for name, result in results.items():
        write_atomically(folder / f"sentences-{name}.csv", sentence_table(result))
    write_circumstances(folder, circumstances)
    write_atomically(folder / METRICS, as_json(metrics))
    return metrics


def write_circumstances(folder: Path, circumstances: Mapping[str, Any]) -> None:
    write_atomically(folder / RUN, as_json({**dict.fromkeys(CIRCUMSTANCES, NOT_STATED), **circumstances}))


def report(result: Evaluation) -> dict[str, Any]:
    """What is known of one split: its size, and each protocol with its definition and its numbers."""
    asked = result.asked()
    return {
        "dataset": asked[0].dataset if asked else None,
        "split": asked[0].split if asked else None,
        **_sizes(result.rows),
        "images": len({sample.image_id for sample in asked}),
        "chosen": dict(result.facts),
        "protocols": {protocol.name: _numbers(result, protocol) for protocol in result.rows.protocols},
    }


def pooled_reports(results: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The sentences of all splits of a run taken together, for protocols that do so (ReLA's `full`).

    Splits whose sentences a control changed stay out. There are no intervals: images may be shared between splits.
    """
    plain = {name: result for name, result in results.items() if result.facts.get("control", "none") == "none"}
    found: dict[str, Any] = {}
    for protocol in {p.name: p for result in plain.values() for p in result.rows.protocols if p.full}.values():
        own = {name: result.rows for name, result in plain.items() if protocol in result.rows.protocols}
        if len(own) > 1:
            rows = Rows.pooled(list(own.values()), protocol)
            entry = found.setdefault(str(protocol.full), _sizes(rows) | {"of": sorted(own), "protocols": {}})
            entry["protocols"][protocol.name] = _told(rows, protocol) | {"intervals": {}, "by_type": {}}
    return found


def _sizes(rows: Rows) -> dict[str, int]:
    return {
        "sentences": len(rows),
        "no_target_sentences": int(rows.no_target.sum()),
        "unanswered_sentences": int(rows.unanswered.sum()),
    }


def _told(rows: Rows, protocol: Protocol) -> dict[str, Any]:
    return {
        "definition": protocol.definition() | {"no_target_said_by": _no_target_said_by(rows, protocol)},
        "values": _without_nan(summarise(rows, protocol)),
    }


def _numbers(result: Evaluation, protocol: Protocol) -> dict[str, Any]:
    return _told(result.rows, protocol) | {
        "intervals": intervals(result, protocol),
        "by_type": by_type(result, protocol),
    }


def _no_target_said_by(rows: Rows, protocol: Protocol) -> str:
    if len(rows) and (rows.values[:, 2] >= 0).all():
        return "head"
    return "empty mask" if protocol.nt_pixels == 1 else f"fewer than {protocol.nt_pixels} pixels"


def intervals(result: Evaluation, protocol: Protocol) -> dict[str, list[float]]:
    """95 % intervals over images, for what can be averaged."""
    chosen = chosen_sentences(result.rows, protocol)
    inside, either = (counts[chosen] for counts in pooled(result.rows, protocol))
    iou, images = pair_iou(result.rows, protocol)[chosen], result.images()[chosen]
    found = {}
    if either.sum():
        found["oIoU"] = ratio_interval(inside, either, images)
    if len(iou) and np.isfinite(iou).all():
        found["mIoU"] = ratio_interval(fixed_point(iou), np.full(len(iou), FIXED), images)
    return {name: [100 * low, 100 * high] for name, (low, high) in found.items()}


def by_type(result: Evaluation, protocol: Protocol) -> dict[str, dict[str, float | None]]:
    """The same numbers for each kind of sentence. With `subsets: tags` a sentence counts under every tag it has."""
    tags = [sample.tags if protocol.subsets == "tags" else sample.tags[:1] for sample in result.asked()]
    chosen = {tag: np.array([tag in own for own in tags]) for tag in sorted({tag for own in tags for tag in own})}
    return {
        tag: _without_nan(summarise(result.rows.take(rows), protocol)) | {"sentences": int(rows.sum())}
        for tag, rows in chosen.items()
    }


def _without_nan(values: Values) -> dict[str, float | None]:
    """JSON knows no nan."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def as_json(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _count_columns(protocol: Protocol) -> list[str]:
    return [f"{protocol.name}.{_SHORT.get(name, name)}" for name in COUNTS]


def sentence_table(result: Evaluation) -> str:
    """One line a sentence as CSV: what was asked, and every count, from which all numbers can be computed again."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ["id", "image", "target", "dataset", "split", "text", "tags", *SHARED]
    for protocol in result.rows.protocols:
        header += [f"{protocol.name}.{name}" for name in ("IoU", "U", "pred_nt")] + _count_columns(protocol)
    writer.writerow(header)
    blocks = [_protocol_columns(result.rows, protocol) for protocol in result.rows.protocols]
    for place, sample in enumerate(result.asked()):
        known = [
            sample.sentence_id,
            sample.image_id,
            sample.target_id,
            sample.dataset,
            sample.split,
            sample.text,
            ";".join(sample.tags),
        ]
        shared = result.rows.values[place, : len(SHARED)].tolist()
        writer.writerow([*known, *shared, *(value for block in blocks for value in block[place])])
    return file.getvalue()


def _protocol_columns(rows: Rows, protocol: Protocol) -> list[tuple[float, ...]]:
    counts = rows.counts(protocol)
    columns = [sentence_value(rows, protocol), counts.either, rows.says_nothing(protocol).astype(np.int64)]
    columns += [getattr(counts, name) for name in COUNTS]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def read_metrics(folder: Path) -> dict[str, Any]:
    """`metrics.json` of a run."""
    try:
        content = json.loads((folder / METRICS).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {METRICS}: evaluate the run first, or name another folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{folder / METRICS} is not valid JSON: evaluate the run again") from None
    if not isinstance(content, dict) or not isinstance(content.get("splits"), dict):
        raise UserError(f"{folder / METRICS} is not a result of riszoo: it has no 'splits'")
    return content


def read_evaluation(folder: Path, split: str) -> Evaluation:
    """A run read again from its files, without the model."""
    metrics = read_metrics(folder)["splits"]
    if split not in metrics:
        raise UserError(f"{folder} has no results on split '{split}'; it has {', '.join(sorted(metrics)) or 'none'}")
    protocols = [_protocol(entry["definition"]) for entry in metrics[split]["protocols"].values()]
    path = folder / f"sentences-{split}.csv"
    try:
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: evaluate the run again") from None
    columns = [*SHARED, *(name for protocol in protocols for name in _count_columns(protocol))]
    try:
        values = np.array([[int(line[name]) for name in columns] for line in lines], np.int64)
        samples = [_sample(line) for line in lines]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} does not fit {METRICS} beside it: evaluate the run again") from None
    rows = Rows.sort(protocols, values.reshape(-1, len(columns)))
    return Evaluation(rows, samples, metrics[split]["chosen"])


def _sample(line: Mapping[str, str]) -> Sample:
    return Sample(
        sentence_id=line["id"],
        index=int(line["index"]),
        dataset=line["dataset"],
        split=line["split"],
        image_id=line["image"],
        target_id=line["target"],
        text=line["text"],
        tags=tuple(filter(None, line["tags"].split(";"))),
        no_target=line["no_target"] == "1",
    )


def _protocol(definition: Mapping[str, Any]) -> Protocol:
    """The protocol as it was when the result was written."""
    known = {f.name: definition[f.name] for f in fields(Protocol) if f.name in definition}
    ground_truth = dict(known["ground_truth"])
    ground_truth["frame"] = tuple(ground_truth["frame"]) if ground_truth["frame"] else None
    known["ground_truth"] = GroundTruth(**ground_truth)
    known["precision"] = tuple(known["precision"])
    known["resampling"] = Resampling(**known["resampling"])
    known["via"] = Resampling(**known["via"]) if known["via"] else None
    return Protocol(**known)
