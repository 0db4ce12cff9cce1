"""From a model's output to masks that can be handed on: PNG files, RLE, a box and a score."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor

from riszoo.batch import Batch, Geometry, Output, valid_cells
from riszoo.data.masks import Mask
from riszoo.files import write_atomically
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.resample import foreground


@dataclass(frozen=True)
class Prediction:
    """What a model says to one sentence. `nothing` is the no-target head's word, None without such a head.

    `evidence` holds the model's maps, cut to the image: one for the sentence, or a list of (word, map).
    """

    sentence_id: str
    text: str
    mask: Mask  # at the size the protocol compares at
    score: float
    nothing: bool | None
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def rle(self) -> dict[str, Any]:
        encoded = coco.encode(np.asfortranarray(self.mask.astype(np.uint8)))
        return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}

    @property
    def box(self) -> list[int]:
        """x, y, width, height around the mask; all zero where it is empty."""
        rows, cols = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        if len(rows) == 0:
            return [0, 0, 0, 0]
        return [int(v) for v in (cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1)]

    def entry(self) -> dict[str, Any]:
        """As JSON carries it."""
        found = {"id": self.sentence_id, "text": self.text, "segmentation": self.rle, "bbox": self.box,
                 "score": round(self.score, 6)}  # fmt: skip
        return found if self.nothing is None else {**found, "no_target": self.nothing}


def predictions(output: Output, batch: Batch, protocol: Protocol) -> list[Prediction]:
    """One prediction a sentence, resized and made binary as the protocol says."""
    found = []
    says = [None] * len(batch) if output.no_target is None else (output.no_target > 0).tolist()
    for i, sample in enumerate(batch.samples):
        geometry = batch.geometry[int(batch.image_index[i])]
        size = protocol.ground_truth.frame or geometry.original
        mask = foreground(output.logits[i : i + 1, 0], [geometry], [size], protocol)[0]
        score = _score(output.logits[i, 0], geometry) if bool(mask.any()) else 0.0
        found.append(Prediction(sample.sentence_id, sample.text, mask.cpu().numpy(), score, says[i]))
    return found


def _score(logits: Tensor, geometry: Geometry) -> float:
    """Mean probability of the image's cells that are more likely inside than not; of its best one without such."""
    h, w = logits.shape
    cells = valid_cells(torch.tensor([geometry.valid]), geometry.frame, (h, w))[0].to(logits.device)
    likely = logits[cells].float().sigmoid()
    return float(likely[likely > 0.5].mean() if bool((likely > 0.5).any()) else likely.max())


def png(mask: Mask) -> bytes:
    """Black and white, one bit of meaning: 0 or 255."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


def write_predictions(folder: Path, found: list[Prediction]) -> list[dict[str, Any]]:
    """A PNG a sentence; returns the entries for the RLE file."""
    folder.mkdir(parents=True, exist_ok=True)
    for prediction in found:
        write_atomically(folder / f"{prediction.sentence_id}.png", png(prediction.mask))
    return [prediction.entry() for prediction in found]


def per_word(maps: Tensor, spans: list[tuple[str, int, int]]) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """(L, h, w) evidence of tokens -> the mean map of each word's tokens."""
    return [(word, maps[first:last].float().mean(0).cpu().numpy()) for word, first, last in spans]


def evidence_of(output: Output, batch: Batch, sentence: int) -> dict[str, Any]:
    """Each evidence map of one sentence cut to the image: one map, or one a word."""
    assert batch.tokens is not None
    top, left, bottom, right = batch.geometry[int(batch.image_index[sentence])].valid
    frame = batch.images.shape[-2:]
    cut: dict[str, Any] = {}
    for name, maps in output.evidence.items():
        h, w = maps.shape[-2:]
        rows = slice(round(top * h / frame[0]), max(round(top * h / frame[0]) + 1, round(bottom * h / frame[0])))
        cols = slice(round(left * w / frame[1]), max(round(left * w / frame[1]) + 1, round(right * w / frame[1])))
        one = torch.nan_to_num(maps[sentence, :, rows, cols])
        words = per_word(one, batch.tokens.spans[sentence])
        cut[name] = one[0].float().cpu().numpy() if len(one) == 1 else words
    return cut
