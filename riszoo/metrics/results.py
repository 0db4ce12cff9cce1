"""The files of a result: `metrics.json`, `run.json` and a sentence table for each split.

`metrics.json` depends on the logits alone: equal logits give equal bytes on any number of processes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from riszoo.batch import Sample
from riszoo.data.ground_truth import GroundTruth
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.metrics.bootstrap import FIXED, fixed_point, ratio_interval
from riszoo.metrics.protocols import Protocol, Resampling
from riszoo.metrics.sentence_table import COUNTS, SHARED, Ints, SentenceTable
from riszoo.metrics.summary import (
    Values,
    chosen_sentences,
    intersection_and_union,
    sentence_iou,
    sentence_value,
    summarise,
)

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
"""What a result depends on besides data and protocol; a value that the caller does not give is `NOT_STATED`."""
_SHORT = {"intersection": "I", "predicted": "P", "true": "G"}
"""Columns of the CSV whose usual letter is shorter than the name."""


@dataclass(frozen=True)
class Evaluation:
    """The sentence table of one split and its samples; `chosen` says how the sentences were chosen."""

    table: SentenceTable
    samples: Sequence[Sample]  # at least those of the table's rows
    chosen: Mapping[str, Any] = field(default_factory=dict)  # Split.describe()

    def row_samples(self) -> list[Sample]:
        """The sample of each row."""
        by_index = {sample.index: sample for sample in self.samples}
        return [by_index[int(index)] for index in self.table.index]

    def images(self) -> Ints:
        """(n,) the image of each row, numbered from 0."""
        image_ids = [sample.image_id for sample in self.row_samples()]
        numbers: Ints = np.unique(image_ids, return_inverse=True)[1].astype(np.int64)
        return numbers


# -- writing ----------------------------------------------------------------------------------------------------------


def write_results(
    folder: Path, evaluations: Mapping[str, Evaluation], circumstances: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the files of evaluations by split; returns the content of `metrics.json`."""
    metrics: dict[str, Any] = {"format": 1, "splits": {name: report(each) for name, each in evaluations.items()}}
    if pooled := pooled_reports(evaluations):
        metrics["pooled"] = pooled
    for name, evaluation in evaluations.items():
        write_atomically(sentences_file(folder, name), table_csv(evaluation))
    write_atomically(folder / RUN, _as_json({**dict.fromkeys(CIRCUMSTANCES, NOT_STATED), **circumstances}))
    write_atomically(folder / METRICS, _as_json(metrics))
    return metrics


def check_replaces(folder: Path, split: str, predictions: Path) -> None:
    """Raise UserError where results of other splits or masks would be lost by writing those of `split`."""
    try:
        others = read_metrics(folder)["splits"].keys() - {split}
    except UserError:  # nothing there that could be read again
        return
    if others:
        raise UserError(f"{folder} has the results of {', '.join(sorted(others))}: name another folder with --out")
    try:
        scored = Path(json.loads((folder / RUN).read_bytes())["predictions"])
    except (OSError, ValueError, KeyError, TypeError):  # nothing that says whose they are
        return
    if scored != predictions and scored.exists():
        raise UserError(f"{folder} has the results of {scored}: name another folder with --out")


def sentences_file(folder: Path, split: str) -> Path:
    """The table of a split's sentences; a split of mixed data is named `set/split`."""
    return folder / f"sentences-{split.replace('/', '-')}.csv"


def report(evaluation: Evaluation) -> dict[str, Any]:
    """One split: its size, and each protocol with its definition and numbers."""
    samples = evaluation.row_samples()
    return {
        "dataset": samples[0].dataset if samples else None,
        "split": samples[0].split if samples else None,
        **_sizes(evaluation.table),
        "images": len({sample.image_id for sample in samples}),
        "chosen": dict(evaluation.chosen),
        "protocol_order": [protocol.name for protocol in evaluation.table.protocols],
        "protocols": {
            protocol.name: _values(evaluation.table, protocol)
            | {"intervals": intervals(evaluation, protocol), "by_type": by_type(evaluation, protocol)}
            for protocol in evaluation.table.protocols
        },
    }


def pooled_reports(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The sentences of all splits of a run taken together, for protocols with `pooled_as` (ReLA's `full`).

    Splits with changed sentences (a control) are excluded. There are no intervals: splits may share images.
    """
    tables = {n: each.table for n, each in evaluations.items() if each.chosen.get("control", "none") == "none"}
    pooled: dict[str, Any] = {}
    for protocol in {p.name: p for table in tables.values() for p in table.protocols if p.pooled_as}.values():
        parts = {name: table for name, table in tables.items() if protocol in table.protocols}
        if len(parts) > 1:
            table = SentenceTable.concatenate(list(parts.values()), protocol)
            entry = pooled.setdefault(str(protocol.pooled_as), _sizes(table) | {"of": sorted(parts), "protocols": {}})
            entry["protocols"][protocol.name] = _values(table, protocol) | {"intervals": {}, "by_type": {}}
    return pooled


def _sizes(table: SentenceTable) -> dict[str, int]:
    return {
        "sentences": len(table),
        "no_target_sentences": int(table.no_target.sum()),
        "missing_predictions": int(table.missing.sum()),
    }


def _values(table: SentenceTable, protocol: Protocol) -> dict[str, Any]:
    return {
        "definition": protocol.definition() | {"no_target_from": _no_target_from(table, protocol)},
        "values": _without_nan(summarise(table, protocol)),
    }


def _no_target_from(table: SentenceTable, protocol: Protocol) -> str:
    answers = table.head[~table.missing]
    if len(answers) and (answers >= 0).all():
        return "head"
    return "empty mask" if protocol.min_mask_pixels == 1 else f"fewer than {protocol.min_mask_pixels} pixels"


def intervals(evaluation: Evaluation, protocol: Protocol) -> dict[str, list[float]]:
    """95 % intervals over images of oIoU and mIoU, if they are defined."""
    table = evaluation.table
    chosen = chosen_sentences(table, protocol)
    intersection, union = (counts[chosen] for counts in intersection_and_union(table, protocol))
    iou, images = sentence_iou(table, protocol)[chosen], evaluation.images()[chosen]
    found = {}
    if union.sum():
        found["oIoU"] = ratio_interval(intersection, union, images)
    if len(iou) and np.isfinite(iou).all():
        found["mIoU"] = ratio_interval(fixed_point(iou), np.full(len(iou), FIXED), images)
    return {name: [100 * low, 100 * high] for name, (low, high) in found.items()}


def by_type(evaluation: Evaluation, protocol: Protocol) -> dict[str, dict[str, float | None]]:
    """The metrics of each sentence type; with `subsets: tags`, of each tag."""
    tags = [s.tags if protocol.subsets == "tags" else s.tags[:1] for s in evaluation.row_samples()]
    members = {tag: np.array([tag in each for each in tags]) for tag in sorted({tag for each in tags for tag in each})}
    return {
        tag: _without_nan(summarise(evaluation.table.take(rows), protocol)) | {"sentences": int(rows.sum())}
        for tag, rows in members.items()
    }


def _without_nan(values: Values) -> dict[str, float | None]:
    """JSON has no nan."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def table_csv(evaluation: Evaluation) -> str:
    """One line a sentence: the sample and every count, from which all metrics can be computed again."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ["id", "image", "target", "dataset", "split", "text", "tags", *SHARED]
    for protocol in evaluation.table.protocols:
        derived = [f"{protocol.name}.{name}" for name in ("IoU", "U", "predicts_no_target")]
        header += derived + _count_columns(protocol)
    writer.writerow(header)
    shared = evaluation.table.values[:, : len(SHARED)].tolist()
    blocks = [_protocol_values(evaluation.table, protocol) for protocol in evaluation.table.protocols]
    for row, s in enumerate(evaluation.row_samples()):
        sample = [s.sentence_id, s.image_id, s.target_id, s.dataset, s.split, s.text, ";".join(s.tags)]
        sample = [text.replace("\r", " ") for text in sample]  # which csv does not quote before Python 3.13
        writer.writerow([*sample, *shared[row], *(value for block in blocks for value in block[row])])
    return file.getvalue()


def _count_columns(protocol: Protocol) -> list[str]:
    return [f"{protocol.name}.{_SHORT.get(name, name)}" for name in COUNTS]


def _protocol_values(table: SentenceTable, protocol: Protocol) -> list[tuple[float, ...]]:
    counts = table.counts(protocol)
    columns = [sentence_value(table, protocol), counts.union, table.predicts_no_target(protocol).astype(np.int64)]
    columns += [getattr(counts, name) for name in COUNTS]
    return list(zip(*(column.tolist() for column in columns), strict=True))


# -- reading ----------------------------------------------------------------------------------------------------------


def result_folder(path: Path) -> Path:
    """The path itself if it contains results; of a run's folder, its newest test, or else its newest validation."""
    if (path / METRICS).is_file():
        return path
    for step in ("test", "validate"):
        found = [file.parent for file in path.glob(f"{step}-*/{METRICS}")]
        if found:
            return max(found, key=lambda folder: _time(folder.name))
    raise UserError(f"{path} contains no results: name a folder with {METRICS}, or test the run first")


def _time(name: str) -> tuple[str, int]:
    """When an evaluation was written, by its folder's name: `<verb>-<data>-<time>`, or `-<number>` behind the time."""
    found = re.search(r"(\d{8}-\d{6})(?:-(\d+))?$", name)
    return (found[1], int(found[2] or 0)) if found else ("", 0)


def read_metrics(folder: Path) -> dict[str, Any]:
    """The content of a run's `metrics.json`; the protocols of each split are in the order they were asked for."""
    path = folder / METRICS
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder} has no {METRICS}: evaluate the run first, or name another folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is not valid JSON: evaluate the run again") from None
    if not isinstance(content, dict) or not isinstance(content.get("splits"), dict):
        raise UserError(f"{path} is not a result of riszoo: it has no 'splits'")
    try:
        for entry in content["splits"].values():
            entry["protocols"] = {name: entry["protocols"][name] for name in entry["protocol_order"]}
    except (AttributeError, KeyError, TypeError):
        raise UserError(
            f"{path} does not say in which order its protocols were given: evaluate the run again"
        ) from None
    return content


def protocols_of(entry: Mapping[str, Any]) -> list[Protocol]:
    """The protocols of one split's entry in `metrics.json`, as they were when the result was written."""
    return [_protocol(result["definition"]) for result in entry["protocols"].values()]


def read_evaluation(folder: Path, split: str) -> Evaluation:
    """One split of a run, from its files."""
    splits = read_metrics(folder)["splits"]
    if split not in splits:
        raise UserError(f"{folder} has no results on split '{split}'; it has {', '.join(sorted(splits)) or 'none'}")
    path = sentences_file(folder, split)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: evaluate the run again") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): evaluate the run again") from None
    try:
        protocols = protocols_of(splits[split])
        columns = [*SHARED, *(name for protocol in protocols for name in _count_columns(protocol))]
        values = np.array([[int(line[name]) for name in columns] for line in lines], np.int64)
        samples = [_sample(line) for line in lines]
    except (KeyError, OverflowError, TypeError, ValueError):
        raise UserError(f"{path} and {METRICS} do not belong together: evaluate the run again") from None
    return Evaluation(SentenceTable.sort(protocols, values.reshape(-1, len(columns))), samples, splits[split]["chosen"])


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
    values = {f.name: definition[f.name] for f in fields(Protocol)}
    frame = values["ground_truth"]["frame"]
    values["ground_truth"] = GroundTruth(**{**values["ground_truth"], "frame": tuple(frame) if frame else None})
    values["precision"] = tuple(values["precision"])
    values["resampling"] = Resampling(**values["resampling"])
    values["to_frame"] = Resampling(**values["to_frame"]) if values["to_frame"] else None
    return Protocol(**values)
