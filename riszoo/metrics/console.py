"""Results as text tables for the console: one a protocol, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Split = Mapping[str, Any]
MISSING = "-"


def render(metrics: Mapping[str, Any]) -> str:
    """The content of `metrics.json` as text."""
    splits: Mapping[str, Split] = metrics["splits"] | metrics.get("pooled", {})
    names = dict.fromkeys(name for split in splits.values() for name in split["protocols"])
    return "\n\n".join(_protocol_table(name, splits) for name in names)


def _protocol_table(name: str, splits: Mapping[str, Split]) -> str:
    measured = {title: split for title, split in splits.items() if name in split["protocols"]}
    definition = next(iter(measured.values()))["protocols"][name]["definition"]
    title = f"{name}: {definition['mirrors']}; compared at {definition['eval_size']} size"
    precision = [f"Pr@{t / 100:g}" for t in definition["precision"] if t % 10 == 0]
    no_target = any(split["no_target_sentences"] for split in measured.values())
    further = ["gIoU", "cIoU", "N-acc", "T-acc", "acc"] if no_target else []
    parts = [
        _numbers(measured, name, ["oIoU", "mIoU", *precision]),
        _numbers(measured, name, [*further, "bIoU", "box@0.5", "IE"]),
        _types(measured, name),
    ]
    return "\n\n".join([title, *filter(None, parts)])


def _numbers(splits: Mapping[str, Split], name: str, columns: Sequence[str]) -> str:
    """One line a split, with the number `n` of sentences; a column that no split has is left out."""
    entries = {title: split["protocols"][name] for title, split in splits.items()}
    columns = [column for column in columns if any(column in entry["values"] for entry in entries.values())]
    if not columns:
        return ""
    lines = [["split", *columns, "n"]]
    for title, entry in entries.items():
        numbers = [_with_interval(entry, column) for column in columns]
        n = entry["values"]["n"] if "mIoU" in columns else splits[title]["sentences"]
        lines.append([title, *numbers, f"{n:.0f}"])
    return _aligned(lines)


def _with_interval(entry: Mapping[str, Any], column: str) -> str:
    number = _number(entry["values"].get(column))
    if column not in entry["intervals"]:
        return number
    low, high = entry["intervals"][column]
    return f"{number} [{low:.1f} {high:.1f}]"


def _types(splits: Mapping[str, Split], name: str) -> str:
    """mIoU of each sentence type; gIoU for types without targets."""
    entries = {title: split["protocols"][name]["by_type"] for title, split in splits.items() if "of" not in split}
    types = sorted({kind for entry in entries.values() for kind in entry})
    if not types:
        return ""
    lines = [["mIoU by type", *entries]]
    lines += [[kind, *(_type_cell(entry.get(kind)) for entry in entries.values())] for kind in types]
    return _aligned(lines)


def _type_cell(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return MISSING
    mean = values["mIoU"] if values["mIoU"] is not None else values.get("gIoU", values.get("acc"))
    return f"{_number(mean)} (n={values['sentences']})"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
