"""Predictions from a model's output: masks with score and box, as objects, files and drawings."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor

from riszoo.batch import Batch, Geometry, Output, valid_cells
from riszoo.data.masks import Mask, shrink
from riszoo.files import write_atomically
from riszoo.inference.drawing import panel
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.resample import above, foreground
from riszoo.metrics.resample import score as map_score


@dataclass(frozen=True)
class Prediction:
    """The prediction for one sentence.

    mask       (H0, W0) bool, at the size that the protocol compares at
    score      mean probability inside the mask; 0 where it is empty
    no_target  whether the no-target head rejects the sentence; None without such a head
    evidence   the model's maps, cropped to the image, by name: one map, or a list of (word, map)
    """

    sentence_id: str
    text: str
    mask: Mask
    score: float
    no_target: bool | None
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def rle(self) -> dict[str, Any]:
        """The mask in COCO's compressed RLE."""
        encoded = coco.encode(np.asfortranarray(self.mask.astype(np.uint8)))
        return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}

    @property
    def box(self) -> list[int]:
        """x, y, width, height of the mask's bounding box; zeros for an empty mask."""
        rows, cols = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        if len(rows) == 0:
            return [0, 0, 0, 0]
        return [int(v) for v in (cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1)]

    def entry(self) -> dict[str, Any]:
        """The prediction as JSON values; `no_target` only from a model with a no-target head."""
        entry = {"id": self.sentence_id, "text": self.text, "segmentation": self.rle, "bbox": self.box,
                 "score": round(self.score, 6)}  # fmt: skip
        return entry if self.no_target is None else {**entry, "no_target": self.no_target}


def predictions(output: Output, batch: Batch, protocol: Protocol) -> Iterator[Prediction]:
    """One prediction per sentence, resized and thresholded by the protocol, without evidence; one mask at a time."""
    rejected = [None] * len(batch) if output.no_target is None else (output.no_target > 0).tolist()
    for i, sample in enumerate(batch.samples):
        geometry = batch.geometry[int(batch.image_index[i])]
        size = protocol.ground_truth.frame or geometry.original
        mask = foreground(output.logits[i : i + 1, 0], [geometry], [size], protocol)[0]
        score = _score(output.logits[i, 0], geometry, protocol) if bool(mask.any()) else 0.0
        yield Prediction(sample.sentence_id, sample.text, mask.cpu().numpy(), score, rejected[i])


def _score(logits: Tensor, geometry: Geometry, protocol: Protocol) -> float:
    """Mean probability of the cells above the threshold inside the image; the highest one where there are none."""
    h, w = logits.shape
    cells = valid_cells(torch.tensor([geometry.valid]), geometry.frame, (h, w))[0].to(logits.device)
    probability = logits[cells].float().sigmoid()
    inside = above(map_score(logits[cells], protocol), protocol)
    return float(probability[inside].mean() if bool(inside.any()) else probability.max())


def evidence_of(output: Output, batch: Batch, sentence: int) -> dict[str, Any]:
    """The evidence maps of one sentence, cropped to the image: one map, or a list of (word, map)."""
    assert batch.tokens is not None
    top, left, bottom, right = batch.geometry[int(batch.image_index[sentence])].valid
    height, width = batch.images.shape[-2:]
    evidence: dict[str, Any] = {}
    for name, maps in output.evidence.items():
        h, w = maps.shape[-2:]
        rows, cols = _cells(top, bottom, h / height), _cells(left, right, w / width)
        cropped = torch.nan_to_num(maps[sentence, :, rows, cols])
        if len(cropped) == 1:
            evidence[name] = cropped[0].float().cpu().numpy()
        else:
            evidence[name] = per_word(cropped, batch.tokens.spans[sentence])
    return evidence


def _cells(first: int, last: int, scale: float) -> slice:
    """Pixels first:last as cells of a map, at least one."""
    start = round(first * scale)
    return slice(start, max(start + 1, round(last * scale)))


def per_word(maps: Tensor, spans: list[tuple[str, int, int]]) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """(L, h, w) maps of tokens -> each word with the mean map of its tokens."""
    return [(word, maps[first:last].float().mean(0).cpu().numpy()) for word, first, last in spans]


def png(mask: Mask) -> bytes:
    """A mask as a PNG file of 0 and 255."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


def write_prediction(path: Path, prediction: Prediction) -> dict[str, Any]:
    """Write the mask as a PNG; returns the entry of the JSON file, with the PNG's name as `file`."""
    write_atomically(path, png(prediction.mask))
    return {**prediction.entry(), "file": path.name}


def draw_predictions(output: Output, batch: Batch, protocol: Protocol, count: int) -> Iterator[Image.Image]:
    """A drawing for each of the first `count` sentences: image, mask with ground truth, evidence."""
    ground_truths = batch.ground_truths.get(protocol.ground_truth.key)
    for i, prediction in enumerate(islice(predictions(output, batch, protocol), count)):
        image_index = int(batch.image_index[i])
        top, left, bottom, right = batch.geometry[image_index].valid
        image = batch.images[image_index, :, top:bottom, left:right].permute(1, 2, 0).cpu().numpy()
        ground_truth = None
        if ground_truths and batch.target_index is not None:
            ground_truth = shrink(ground_truths[int(batch.target_index[i])].cpu().numpy(), image.shape[:2])
        mask = shrink(prediction.mask, image.shape[:2])
        yield panel(image, prediction.text, mask, ground_truth, evidence_of(output, batch, i))
