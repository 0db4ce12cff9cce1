"""The results of `riszoo segment`: files in a folder, or lines of JSON on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from riszoo.data.images import resize
from riszoo.data.masks import shrink
from riszoo.data.record import Pixels
from riszoo.errors import without_controls
from riszoo.files import write_atomically
from riszoo.inference.drawing import captioned, overlay, panel, save
from riszoo.inference.predictions import Prediction, write_prediction

MAX_SIDE = 1600
"""Longer side of an overlay, in pixels; masks keep the image's own size."""


class Results:
    """Writes masks, overlays and predictions.json.

    Args:
        folder: for the files; None: none are written
        as_json: print each prediction as a line of JSON, in place of a sentence
        explain: draw the evidence maps too
    """

    def __init__(self, folder: Path | None, *, as_json: bool, explain: bool) -> None:
        self.folder, self.as_json, self.explain = folder, as_json, explain
        self.entries: list[dict[str, Any]] = []

    def add(self, image: str, pixels: Pixels, prediction: Prediction) -> None:
        """Write and print one prediction."""
        if self.folder is None:
            entry = prediction.entry()
        else:
            entry = _write(self.folder, pixels, prediction, self.explain)
            self.entries.append({**entry, "image": image})
        if self.as_json:
            print(json.dumps({**entry, "image": image}, ensure_ascii=False), flush=True)
        else:
            print(without_controls(f"{image}: '{prediction.text}': {_summary(prediction)}"), flush=True)

    def close(self) -> None:
        """Write the file of all predictions whose masks are in the folder, also those of earlier calls."""
        if self.folder is None or not self.entries:
            return
        file = self.folder / "predictions.json"
        entries = self._earlier(self.folder, file) + self.entries
        write_atomically(file, json.dumps(entries, ensure_ascii=False, indent=1) + "\n")
        if not self.as_json:
            masks = "1 mask with its overlay" if len(self.entries) == 1 else f"{len(self.entries)} masks with overlays"
            print(f"{masks}: {self.folder}, as RLE: {file}")

    def _earlier(self, folder: Path, file: Path) -> list[Any]:
        """The entries of earlier calls whose masks are still there and have not been replaced."""
        try:
            entries = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return []
        own = {entry["id"] for entry in self.entries}
        masks = {path.stem for path in folder.glob("*.png") if path.is_file()} - own
        return [
            entry
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"] in masks
        ]


def _write(folder: Path, pixels: Pixels, prediction: Prediction, explain: bool) -> dict[str, Any]:
    """Write mask, overlay and evidence of one prediction; returns its entry for the JSON file."""
    entry = write_prediction(folder / f"{prediction.sentence_id}.png", prediction)
    height, width = pixels.shape[:2]
    ratio = min(1.0, MAX_SIDE / max(height, width))
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    image, mask = resize(pixels, size), prediction.mask
    if ratio < 1:
        mask = shrink(mask, size)
    drawn = captioned(overlay(image, mask), prediction.text)
    save(drawn, folder / f"{prediction.sentence_id}-overlay.png")
    if explain:
        drawn = panel(image, prediction.text, mask, evidence=prediction.evidence)
        save(drawn, folder / f"{prediction.sentence_id}-evidence.png")
    return entry


def _summary(prediction: Prediction) -> str:
    """Score and box of a prediction, in words."""
    if not prediction.mask.any() or prediction.no_target:
        return "no target found"
    height, width = prediction.mask.shape
    x, y, w, h = prediction.box
    return f"score {prediction.score:.2f}, box {w} x {h} at ({x}, {y}) of {width} x {height}"
