"""`riszoo leaderboard`: all claimed, measured and reproduced results in one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riszoo import recipes
from riszoo.bench.html.environment import environment
from riszoo.bench.tables.entries import METRICS, Entry, read_entries
from riszoo.errors import UserError
from riszoo.files import write_atomically

COSTS = {"GFLOP": "GFLOP", "ms": "latency in ms", "parameters": "parameters in millions"}
"""Facts of an entry that the plot can have as its horizontal axis, with the axis's label."""


def write_leaderboard(folder: Path, out: Path) -> None:
    """Writes the page about the CSV files of a folder."""
    entries = read_entries(folder)
    sets = data_sets(entries)
    if not sets:
        raise UserError(f"{folder} has no results: give --benchmarks a folder with accuracy.csv or paper.csv")
    names = {each["name"] for each in sets}
    content = {"sets": sets, "costs": COSTS, "entries": [as_json(entry) for entry in entries if entry.data in names]}
    page = environment().get_template("leaderboard.html.j2").render(content=content)
    write_atomically(out, page)
    print(f"leaderboard: {out}, {len(page) / 1e6:.1f} MB, open it in a browser")


def data_sets(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The data sets that have a number on one of their splits: name, title, and the splits and metrics with numbers."""
    found = []
    for name in recipes.names("data"):
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


def as_json(entry: Entry) -> dict[str, Any]:
    """An entry as the page's script reads it, with its numbers by metric and split."""
    numbers: dict[str, dict[str, Any]] = {}
    for (metric, split), number in entry.numbers.items():
        cell = {"text": number.text, "value": number.value, "interval": number.interval, "leaked": number.leaked}
        numbers.setdefault(metric, {})[split] = cell
    return {name: value for name, value in vars(entry).items() if name != "claims"} | {"numbers": numbers}
