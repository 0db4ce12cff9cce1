"""The tables of measurements alone: the summary of the README, speed and ablations."""

from __future__ import annotations

import re
from collections.abc import Sequence

from riszoo import recipes
from riszoo.bench.plan import ablations
from riszoo.bench.rows import Row
from riszoo.bench.tables.data_table import origin, shown_text, unmeasured_models, without_empty_columns
from riszoo.bench.tables.entries import MEASURED, ORIGINAL, Entry, Number, mean, number
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


# -- speed and ablations ----------------------------------------------------------------------------------------------


def speed_table(rows: Sequence[Row]) -> str:
    if not rows:
        return "No speed is recorded yet: `riszoo bench` measures it.\n"
    lines = [["model", "scale", "device", "parameters", "trained", "GFLOP, 1 sentence", "GFLOP, 7", "ms, 1 sentence",
              "ms, 7", "training images/s", "peak memory, MiB"]]  # fmt: skip
    for row in rows:
        name = row["model"] + (f" ({row['variant']})" if row["variant"] else "")
        counts = [f"{int(row[key]):,}" for key in ("parameters", "trained_parameters")]
        costs = [f"{float(row[key]):.2f}" for key in ("gflop_1_sentence", "gflop_7_sentences")]
        times = [
            f"{float(row[key]):.1f} ± {float(row[f'{key}_spread']):.1f}" for key in ("ms_1_sentence", "ms_7_sentences")
        ]
        rest = [f"{float(row['train_images_per_s']):.1f}", f"{float(row['peak_memory_mib']):,.0f}"]
        lines.append([f"**{name}**", row["scale"], row["device"], *counts, *costs, *times, *rest])
    legend = (
        "One image, batch 1, after a warm-up: median ± interquartile range. Training: whole optimiser steps on data in "
        "memory. Memory: of the accelerator, or of the whole process on a CPU."
    )
    return f"{markdown(lines)}\n{legend}\n"


def ablation_tables(rows: Sequence[Row], name: str) -> str:
    """The measured tables of one file, then the commands that measure the others."""
    rows = [row for row in rows if row["protocol"] == ORIGINAL and row["model"] == name]
    parts, commands = [f"**{name}**"], []
    for table, content in ablations(name).items():
        title = content.get("title", table)
        measured, constant = (
            {
                variant: [row for row in rows if row["variant"] == f"{table}/{variant}" and row["control"] == control]
                for variant in content["rows"]
            }
            for control in ("none", "constant")
        )
        if not any(measured.values()):
            commands.append(f"- {title}: `riszoo bench --ablation {name}/{table}`")
            continue
        legend = _ablation_origin([row for found in measured.values() for row in found])
        if content.get("claim"):
            legend = f"The paper's order, on its own data, best last: {', '.join(content['claim'])}. {legend}"
        if any(constant.values()):
            legend = f"{CONSTANT_LEGEND} {legend}"
        parts += [_ablation_table(title, measured, constant), legend]
    if commands:
        parts += ["Not measured yet:", "\n".join(commands)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


CONSTANT_LEGEND = (
    "Constant: mIoU with keys and values of zero in the decoder; a row marked *unused* loses nothing beyond its "
    "interval by that, so it is not a measurement of its keys and values."
)


def _constant(own: Sequence[Row], changed: Sequence[Row]) -> str:
    """The mIoU of the rows with constant keys and values, marked if it is not below the interval of the rows' own."""
    value, low = mean(changed, "mIoU"), mean(own, "mIoU_low")
    unused = value is not None and low is not None and value >= low
    return shown_text(number(changed, "mIoU")) + " *unused*" * unused


def _ablation_origin(rows: Sequence[Row]) -> str:
    commit, device, scale = (", ".join(sorted({row[name] for row in rows})) for name in ("commit", "device", "scale"))
    return f"Measured at commit {commit} on {device}, scale {scale}."


def _ablation_table(title: str, measured: dict[str, list[Row]], constant: dict[str, list[Row]]) -> str:
    """A line for each measured variant: its numbers on each data set and split, what is left of mIoU with constant keys
    and values, and the length of its training."""
    columns = list(dict.fromkeys((row["data"], row["split"]) for rows in measured.values() for row in rows))
    heading = [f"{data} {split} {metric}" for data, split in columns for metric in ("mIoU", "oIoU", "constant")]
    lines = [[title, *heading, "seeds", "training sentences"]]
    for variant, rows in measured.items():
        cells = []
        for column in columns:
            own, changed = (
                [row for row in found if (row["data"], row["split"]) == column] for found in (rows, constant[variant])
            )
            cells += [shown_text(number(own, "mIoU")), shown_text(number(own, "oIoU")), _constant(own, changed)]
        length = mean(rows, "training_sentences")
        seeds = str(len({row["seed"] for row in rows}))
        if rows:
            lines.append([variant, *cells, seeds, "" if length is None else f"{length:,.0f}"])
    return markdown(without_empty_columns(lines))
