"""`riszoo leaderboard`: all claimed, measured and reproduced results in one HTML file that needs no network."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riszoo import recipes
from riszoo.bench.html.environment import environment
from riszoo.bench.rows import TYPES, Row, number_in
from riszoo.bench.tables.entries import CLAIMED, METRICS, Entry, read_entries
from riszoo.errors import UserError
from riszoo.files import write_atomically

AXES = {
    "year": "year",
    "GFLOP": "GFLOP, one image and one sentence",
    "ms": "latency in ms, one image and one sentence",
    "parameters": "parameters in millions",
}
"""What the plot can have as its horizontal axis: the year, or a fact of an entry."""
Types = dict[str, dict[str, dict[str, float]]]
"""split -> type of sentence -> mIoU, oIoU, number of sentences."""


def write_leaderboard(folder: Path, out: Path) -> None:
    """Writes the page about the CSV files of a folder."""
    entries = read_entries(folder)
    sets = data_sets(entries)
    if not sets:
        raise UserError(f"{folder} has no results: give --benchmarks a folder with accuracy.csv or paper.csv")
    names, rows = {each["name"] for each in sets}, TYPES.read(folder)
    shown = [as_json(entry, rows) for entry in entries if entry.data in names]
    content = {"sets": sets, "axes": AXES, "entries": shown}
    page = environment().get_template("leaderboard.html.j2").render(content=content)
    write_atomically(out, page)
    print(f"leaderboard: {out}, {len(page) / 1e6:.1f} MB, open it in a browser")


def data_sets(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The data sets that have a number on one of their splits, those with the most entries first.

    Each has its name, its title, and the splits and metrics with numbers.
    """
    found = []
    for name in sorted(recipes.names("data"), key=lambda name: -sum(entry.data == name for entry in entries)):
        recipe = recipes.get("data", name)
        columns = {column for entry in entries if entry.data == name for column in entry.numbers}
        splits = [
            split
            for split in recipe.content["common"]["data"]["test_splits"]
            if split in {split for _, split in columns}
        ]
        metrics = [metric for metric in METRICS if any((metric, split) in columns for split in splits)]
        if metrics:
            found.append({"name": name, "title": recipe.title.split(":")[0], "splits": splits, "metrics": metrics})
    return found


def as_json(entry: Entry, types: Sequence[Row]) -> dict[str, Any]:
    """An entry as the page's script reads it, with its numbers by metric and split, and by type of sentence."""
    numbers: dict[str, dict[str, Any]] = {}
    for (metric, split), number in entry.numbers.items():
        cell = {"text": number.text, "value": number.value, "interval": number.interval, "leaked": number.leaked}
        numbers.setdefault(metric, {})[split] = cell
    shown = {name: value for name, value in vars(entry).items() if name != "claims"}
    return shown | {"numbers": numbers, "types": {} if entry.kind == CLAIMED else by_type(entry, types)}


def by_type(entry: Entry, rows: Sequence[Row]) -> Types:
    """The results of a measured entry for each type of sentence, means over its seeds."""
    weights = entry.facts.get("weights", "").split(", ")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        same = (row["data"], row["protocol"]) == (entry.data, entry.protocol) and row["weights"] in weights
        if same and row["mIoU"]:
            groups.setdefault((row["split"], row["type"]), []).append(row)
    found: Types = {}
    for (split, name), group in groups.items():
        means = {
            metric: round(statistics.fmean(number_in(row, metric, TYPES) for row in group), 2)
            for metric in ("mIoU", "oIoU")
            if all(row[metric] for row in group)
        }
        found.setdefault(split, {})[name] = means | {"sentences": int(group[0]["sentences"])}
    return found
