"""The tables of measurements alone: the summary of the README, and speed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from riszoo import recipes
from riszoo.bench.rows import SPEED, Row, number_in
from riszoo.bench.tables.data_table import origin, shown_text, unmeasured_models, without_empty_columns
from riszoo.bench.tables.entries import MEASURED, ORIGINAL, Entry, Number
from riszoo.bench.tables.formats import markdown

SUMMARY_SPLITS = ("val", "testA", "testB", "unseen")


def summary_table(entries: Sequence[Entry]) -> str:
    """The measured tiny models: paper, size, mIoU with intervals, language gap and training time."""
    shown = [e for e in entries if e.kind == MEASURED and (e.facts["scale"], e.protocol) == ("tiny", ORIGINAL)]
    shown.sort(key=lambda entry: entry.rank([("mIoU", split) for split in SUMMARY_SPLITS]))
    if not shown:
        return "Nothing is measured yet: `riszoo bench` measures every model.\n"
    heading = ["model", "paper", "parameters", *SUMMARY_SPLITS, "language gap", "minutes"]
    lines = [
        [
            f"**{entry.method}**",
            _paper(entry.method),
            entry.facts.get("parameters", ""),
            *(_with_interval(entry.number("mIoU", split)) for split in SUMMARY_SPLITS),
            entry.facts.get("language gap", ""),
            entry.facts.get("training minutes", ""),
        ]
        for entry in shown
    ]
    legend = (
        "mIoU under the protocol `original`, with 95 % intervals over images. Language gap: the mIoU lost on val "
        "with the sentences of other images. "
    )
    if any("±" in found.text for entry in shown for found in entry.numbers.values()):
        legend += "±: mean and standard deviation over trainings with several seeds; other numbers are of one. "
    minutes = any(entry.facts.get("training minutes") for entry in shown)
    legend += f"{'Minutes: one training. ' if minutes else ''}Measured at {origin(shown)}."
    unmeasured = unmeasured_models("scenes", {entry.method for entry in shown})
    return f"{markdown(without_empty_columns([heading, *lines]), 2)}\n{legend}\n\n{unmeasured}".rstrip("\n") + "\n"


def _paper(model: str) -> str:
    """A link to the paper that a recipe names."""
    recipe = recipes.find("models", model)
    reference = str(recipe.content.get("reference", "")) if recipe else ""
    found = re.match(r"arXiv (\d{4}\.\d{5})", reference)
    return f"[{found[0]}](https://arxiv.org/abs/{found[1]})" if found else reference


def _with_interval(found: Number | None) -> str:
    interval = f" [{found.interval[0]:.1f}, {found.interval[1]:.1f}]" if found and found.interval else ""
    return shown_text(found) + interval


# -- speed ------------------------------------------------------------------------------------------------------------


def speed_table(rows: Sequence[Row]) -> str:
    if not rows:
        return "No speed is recorded yet: `riszoo bench` measures it.\n"
    lines = [["model", "data set", "scale", "device", "parameters", "trained", "GFLOP, 1 sentence", "GFLOP, 7",
              "ms, 1 sentence", "ms, 7", "training images/s", "peak memory, MiB"]]  # fmt: skip
    for row in rows:
        name = row["model"] + (f" ({row['variant']})" if row["variant"] else "")
        counts = [f"{number_in(row, key, SPEED):,.0f}" for key in ("parameters", "trained_parameters")]
        costs = [f"{number_in(row, key, SPEED):.2f}" for key in ("gflop_1_sentence", "gflop_7_sentences")]
        times = [
            f"{number_in(row, key, SPEED):.1f} ± {number_in(row, f'{key}_spread', SPEED):.1f}"
            for key in ("ms_1_sentence", "ms_7_sentences")
        ]
        rest = [
            f"{number_in(row, 'train_images_per_s', SPEED):.1f}",
            f"{number_in(row, 'peak_memory_mib', SPEED):,.0f}",
        ]
        lines.append([f"**{name}**", row["data"], row["scale"], row["device"], *counts, *costs, *times, *rest])
    legend = (
        "One image, batch 1, after a warm-up: median ± interquartile range. Training: whole optimiser steps on data in "
        "memory. Memory: of the accelerator, or of the whole process on a CPU."
    )
    return f"{markdown(lines)}\n{legend}\n"
