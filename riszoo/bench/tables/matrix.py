"""The matrix "is A better than B?" of each scale of a data set, and what its splits can tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from riszoo import recipes
from riszoo.bench.rows import Row
from riszoo.bench.tables.differences import Comparison, compare_rows
from riszoo.bench.tables.entries import ORIGINAL, SETTING
from riszoo.bench.tables.formats import Grid, markdown, render
from riszoo.bench.tables.image_sums import IMAGES, ImageSums
from riszoo.bench.tables.results import Results
from riszoo.errors import UserError

LEGEND = (
    "Is A better than B? The mIoU of A minus that of B, on the same images; ± is half of an interval that all pairs of "
    "a split keep together with 95 %. *open*: the interval contains 0."
)


def comparisons(results: Results, data: str, splits: Sequence[str], metric: str) -> dict[str, dict[str, Comparison]]:
    """By scale and split, the rows that can be compared: plain ones under `original` whose sums are recorded."""
    accuracy = [
        row
        for row in results.accuracy
        if row["data"] == data and not row["variant"] and (row["control"], row["protocol"]) == ("none", ORIGINAL)
    ]
    scales = sorted({row["scale"] for row in accuracy}, key=lambda scale: (scale != recipes.default_scale(data), scale))
    found = {scale: _of_scale(results, scale, accuracy, splits, metric) for scale in scales}
    return {scale: splits_of_scale for scale, splits_of_scale in found.items() if splits_of_scale}


def _of_scale(
    results: Results, scale: str, accuracy: Sequence[Row], splits: Sequence[str], metric: str
) -> dict[str, Comparison]:
    """By split, the comparison of the rows of one scale."""
    names = _names([row for row in accuracy if row["scale"] == scale])
    found = {}
    for split in splits:
        evaluated: dict[str, list[ImageSums | None]] = {}
        for row in accuracy:
            if (row["scale"], row["split"]) == (scale, split):
                key = (*(row[name] for name in IMAGES.key), row["weights"])
                evaluated.setdefault(names[_setting(row)], []).append(results.sums.get(key))
        rows = _comparable({name: [each for each in own if each] for name, own in evaluated.items() if all(own)})
        if len(rows) > 1:
            found[split] = compare_rows(rows, metric)
    return found


def _setting(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in SETTING)


def _names(accuracy: Sequence[Row]) -> dict[tuple[str, ...], str]:
    """The model's name for each setting of a scale, with the training set where several rows are of one model."""
    settings = list(dict.fromkeys(map(_setting, accuracy)))
    count = Counter(model for model, *_ in settings)
    return {s: s[0] if count[s[0]] == 1 else f"{s[0]} ({s[2]})" for s in settings}


def _comparable(rows: dict[str, list[ImageSums]]) -> dict[str, list[ImageSums]]:
    """The rows measured on the same sentences as most others."""
    hashes = Counter(each.sentences for own in rows.values() for each in own)
    if not hashes:
        return {}
    ((usual, _),) = hashes.most_common(1)
    return {name: own for name, own in rows.items() if all(each.sentences == usual for each in own)}


def matrix(found: dict[str, Comparison]) -> Grid:
    """Of one scale: a line for each split and row A, a column for each row B."""
    names = list(dict.fromkeys(name for comparison in found.values() for name in comparison.names))
    lines = [["split", "A", *(f"than {name}" for name in names)]]
    for split, comparison in found.items():
        lines += [[split, a, *(_cell(comparison, a, b) for b in names)] for a in comparison.names]
    return lines


def _cell(comparison: Comparison, a: str, b: str) -> str:
    difference = comparison.differences.get((a, b))
    return f"{difference.verdict} {difference.value:+.2f} ± {difference.half:.2f}" if difference else ""


def matrix_section(results: Results, data: str, splits: Sequence[str]) -> str:
    """A matrix for each scale, with the legend; empty if fewer than two rows can be compared."""
    found = comparisons(results, data, splits, "mIoU")
    if not found:
        return ""
    overall = comparisons(results, data, splits, "oIoU")
    parts = [LEGEND]
    for scale, of_scale in found.items():
        parts += [
            f"Scale {scale}:",
            markdown(matrix(of_scale), 2).rstrip("\n"),
            _significant(of_scale, overall[scale]),
            _sources_of_spread(of_scale),
        ]
    return "\n\n".join(parts)


def _significant(found: dict[str, Comparison], overall: dict[str, Comparison]) -> str:
    """Above what a difference is significant."""
    parts = []
    for single, pairs in ((True, "between rows of one training each"), (False, "with a row of several trainings")):
        halves = [
            (
                split,
                each.largest_half(of_single_trainings=single),
                overall[split].largest_half(of_single_trainings=single),
            )
            for split, each in found.items()
        ]
        largest = ", ".join(f"{split} {half:.1f} ({other:.1f})" for split, half, other in halves if half and other)
        if largest:
            parts.append(f"{pairs} {largest}")
    return f"Every larger difference in mIoU (oIoU) is significant: {'; '.join(parts)} points." if parts else ""


def formatted_matrix(results: Results, data: str, form: str) -> str:
    """The matrix of every scale in one of `FORMATS`."""
    splits = recipes.get("data", data).content["common"]["data"]["test_splits"]
    found = comparisons(results, data, splits, "mIoU")
    if not found:
        raise UserError(
            f"fewer than two rows of '{data}' can be compared: measure them with riszoo bench --data {data}"
        )
    printed = []
    for scale, of_scale in found.items():
        heading, *lines = matrix(of_scale)
        printed.append(render([["scale", *heading], *([scale, *line] for line in lines)], form, 3))
    return "\n".join(printed)


def _sources_of_spread(found: dict[str, Comparison]) -> str:
    """One standard deviation over images and over trainings, on the first split."""
    split, comparison = next(iter(found.items()))
    text = (
        f"Two sources of spread, as standard deviations of a row's mIoU on {split}: the choice of its "
        f"{comparison.images:,} images, {_range(comparison.over_images.values())}; "
    )
    if not comparison.over_trainings:
        return text + (
            "the seed of the training, not measured, since every row is one training: the matrix compares these "
            "trainings (`riszoo bench --seeds 3` measures it)."
        )
    return text + (
        f"the seed of the training, {_range(comparison.over_trainings.values())}. The intervals include both for rows "
        "of several seeds."
    )


def _range(values: Collection[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"
