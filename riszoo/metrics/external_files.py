"""Predictions of any other code, in files that nobody vouches for: a mask a sentence, or boxes with scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypeIs

from riszoo.errors import UserError
from riszoo.metrics.boxes import Boxes, Floats
from riszoo.metrics.rle import RunLengths

NAMED = 3
_Entries = dict[str, tuple[Mapping[str, Any], str]]


@dataclass(frozen=True)
class MaskPrediction:
    """A mask not yet read. `no_target` is what a no-target head said, where there is one."""

    source: Path | RunLengths
    no_target: bool | None = None


@dataclass(frozen=True)
class BoxPrediction:
    """Any number of boxes, and how sure each is."""

    boxes: Boxes  # (p, 4): x0, y0, x1, y1
    scores: Floats  # (p,)


Predictions = dict[str, MaskPrediction] | dict[str, BoxPrediction]
"""By sentence id."""


def read_predictions(path: Path) -> Predictions:
    """From `<id>.png` files, or from a JSON list or dict of RLEs, or of boxes."""
    if path.is_dir():
        found = {file.stem: MaskPrediction(file) for file in sorted(path.glob("*.png"))}
        if not found:
            raise UserError(f"{path} holds no predictions: a mask is a file named <sentence id>.png")
        return found
    try:
        content = json.loads(path.read_text())
    except OSError:
        raise UserError(f"{path} cannot be read: give a folder of PNG masks, or a JSON file of RLEs or boxes") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON: give a list of {{id, segmentation}}, or a folder of PNGs") from None
    entries = _entries(content, path)
    if any("boxes" in entry for entry, _ in entries.values()):
        return {name: _boxes(entry, where) for name, (entry, where) in entries.items()}
    return {name: _mask(entry, where) for name, (entry, where) in entries.items()}


def are_boxes(found: Predictions) -> TypeIs[dict[str, BoxPrediction]]:
    return any(isinstance(prediction, BoxPrediction) for prediction in found.values())


def trouble(kinds: Mapping[str, Sequence[str]]) -> list[str]:
    """One sentence for each kind of trouble that any sentence is in, naming the first few."""
    return [f"{len(ids)} sentences {what}: {_few(ids)}" for what, ids in kinds.items() if ids]


def _few(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")


def _entries(content: Any, path: Path) -> _Entries:
    """Sentence id -> what is filed for it, and where, for an error."""
    if isinstance(content, dict):
        content = [{"id": name, **_entry(value)} for name, value in content.items()]
    if not isinstance(content, list):
        raise UserError(f"{path} holds neither a list nor a dict of predictions")
    found: _Entries = {}
    for place, item in enumerate(content):
        where = f"prediction {place} of {path}"
        if not isinstance(item, dict) or not isinstance(item.get("id"), str | int):
            raise UserError(f"{where} has no 'id' of a sentence")
        name = str(item["id"])
        if name in found:
            raise UserError(f"{path} has two predictions for sentence '{name}'")
        found[name] = item, where
    return found


def _entry(value: Any) -> Mapping[str, Any]:
    """In a dict, a value is the RLE itself, the list of boxes itself, or an entry that names one of them."""
    if isinstance(value, dict) and value.keys() & {"segmentation", "boxes"}:
        return value
    return {"boxes" if isinstance(value, list) else "segmentation": value}


def _mask(entry: Mapping[str, Any], where: str) -> MaskPrediction:
    said = entry.get("no_target")
    if said is not None and not isinstance(said, bool):
        raise UserError(f"{where}: 'no_target' is {said!r}, which is neither true nor false")
    return MaskPrediction(RunLengths.read(entry.get("segmentation"), where), said)


def _boxes(entry: Mapping[str, Any], where: str) -> BoxPrediction:
    rows = entry.get("boxes")
    if not isinstance(rows, list):
        raise UserError(f"{where} has no list of 'boxes', as others in the file have; where none is found, write []")
    for row in rows:
        _check(row, where)
    table = np.array(rows, np.float64).reshape(-1, 5)
    return BoxPrediction(np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], -1), table[:, 4])


def _check(row: Any, where: str) -> None:
    """A box is five numbers that can be meant."""
    numbers = isinstance(row, list) and len(row) == 5 and all(type(number) in (int, float) for number in row)
    if not numbers or not all(map(_bounded, row)):
        raise UserError(f"{where}: a box is {row!r}, not [x, y, width, height, score] in pixels")
    if min(row[2:4]) < 0:
        raise UserError(f"{where}: box {row!r} has a negative width or height")
    if not 0 <= row[4] <= 1:
        raise UserError(f"{where}: box {row!r} has a score of {row[4]!r}, which is not a probability from 0 to 1")


def _bounded(number: float) -> bool:
    """No image has so many pixels; beyond, areas would no longer be exact. False for NaN, too."""
    return abs(number) < 2**24
