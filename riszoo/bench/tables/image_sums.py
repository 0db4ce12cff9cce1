"""The sums over each image's sentences that belong to the measured rows: differences between rows need no run folder.

`images.csv.gz` has one line for each row of accuracy.csv without control, with the same key, and lists of one integer
for each image of the split, sorted by image: the sum of the IoUs in units of 1 / IOU_UNIT, the number of sentences in
mIoU, and the sums of I and of U.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from riszoo.bench.rows import ACCURACY, KEY, Row, Table, as_text, circumstances, upsert
from riszoo.errors import UserError
from riszoo.metrics.bootstrap import Ints, sum_by_image
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.results import METRICS, Evaluation, protocols_of, read_evaluation, read_metrics
from riszoo.metrics.summary import chosen_sentences, intersection_and_union, sentence_iou

IOU_UNIT = 10_000
LISTS = ("iou", "counted", "intersection", "union")
IMAGES = Table("images.csv.gz", (*KEY, "split", "protocol", "seed"), ("weights", "sentences", *LISTS))
"""`sentences`: a hash of the split's sentences and ground truths; only rows with the same one are compared."""
SAME = ("weights", "split", "protocol", "oIoU", "mIoU")
"""The columns by which a test recognises its rows of accuracy.csv."""


@dataclass(frozen=True)
class ImageSums:
    """The integers of one row, each (images,)."""

    sentences: str
    iou: Ints
    counted: Ints
    intersection: Ints
    union: Ints

    def parts(self, metric: str) -> tuple[Ints, Ints]:
        """Numerators and denominators whose sums give `mIoU` or `oIoU` as a fraction."""
        return (self.iou, self.counted * IOU_UNIT) if metric == "mIoU" else (self.intersection, self.union)


def sums_of(evaluation: Evaluation, protocol: Protocol) -> ImageSums:
    """The sums of one evaluated split. Sentences that the protocol leaves out of mIoU and oIoU add nothing."""
    table = evaluation.table
    chosen = chosen_sentences(table, protocol)
    iou = np.rint(np.nan_to_num(sentence_iou(table, protocol)) * IOU_UNIT).astype(np.int64)
    intersection, union = intersection_and_union(table, protocol)
    columns = np.stack([iou, np.ones_like(iou), intersection, union], -1) * chosen[:, None]
    return ImageSums(_sentence_hash(evaluation, protocol), *sum_by_image(columns, evaluation.images()).T)


def _sentence_hash(evaluation: Evaluation, protocol: Protocol) -> str:
    """Equal for tests of the same sentences against the same ground truths."""
    areas = evaluation.table.counts(protocol).true.tolist()
    pairs = sorted((sample.sentence_id, area) for sample, area in zip(evaluation.row_samples(), areas, strict=True))
    return hashlib.sha256(repr(pairs).encode()).hexdigest()[:12]


# -- the file ---------------------------------------------------------------------------------------------------------


def record(folder: Path, tests: Sequence[Path]) -> int:
    """Adds the sums of the tests that rows of accuracy.csv come from, and removes those of replaced rows.

    Returns the number of rows recorded. A test belongs to the rows with its weights, splits, protocols and numbers.
    """
    results = [result for test in tests for result in _results(test)]
    made: list[Row] = []

    @cache
    def measured() -> list[Row]:
        """Read when this process is the only one that writes, so that the rows of all others are there."""
        return [row for row in ACCURACY.read(folder) if row["control"] == "none"]

    @cache
    def current() -> set[tuple[str, ...]]:
        return {(*(row[name] for name in IMAGES.key), row["weights"]) for row in measured()}

    def new_rows() -> Iterator[Row]:
        by_result: dict[tuple[str, ...], list[Row]] = {}
        for row in measured():
            by_result.setdefault(tuple(row[name] for name in SAME), []).append(row)
        for own, lists in results:
            made.extend(row | lists for row in by_result.get(own, []))
        yield from made

    upsert(folder, IMAGES, new_rows(), lambda row: (*(row[name] for name in IMAGES.key), row["weights"]) in current())
    return len(made)


def _results(test: Path) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The values of `SAME` and the lists of each split and protocol of a test."""
    weights = str((circumstances(test)["checkpoint"] or {}).get("sha256"))
    for name, entry in read_metrics(test)["splits"].items():
        if entry["chosen"].get("control", "none") != "none":
            continue
        evaluation, split = read_evaluation(test, name), str(entry["split"]).rpartition("/")[2]
        for protocol in protocols_of(entry):
            values = entry["protocols"][protocol.name]["values"]
            sums = sums_of(evaluation, protocol)
            lists = {name: " ".join(map(str, getattr(sums, name).tolist())) for name in LISTS}
            numbers = (as_text(values.get("oIoU")), as_text(values.get("mIoU")))
            yield (weights, split, protocol.name, *numbers), lists | {"sentences": sums.sentences}


def folders_of_tests(root: Path) -> list[Path]:
    """The tests of all runs in a folder."""
    found = sorted(file.parent for file in root.rglob(f"test-*/{METRICS}"))
    if not found:
        raise UserError(f"{root} contains no tests: give --from a folder of runs, such as runs/bench")
    return found


def read_sums(folder: Path) -> dict[tuple[str, ...], ImageSums]:
    """The sums by the values of `IMAGES.key` and the hash of the weights."""
    path = folder / IMAGES.file
    try:
        return {(*(row[name] for name in IMAGES.key), row["weights"]): _parsed(row) for row in IMAGES.read(folder)}
    except ValueError:
        raise UserError(f"{path} is damaged: remove it and run `riszoo tables --from FOLDER` with the runs") from None


def _parsed(row: Row) -> ImageSums:
    lists = [np.array(row[name].split(), np.int64) for name in LISTS]
    if len({len(each) for each in lists}) != 1:
        raise ValueError("lists of different lengths")
    return ImageSums(row["sentences"], *lists)
