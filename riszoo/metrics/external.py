"""Masks that any other code predicted: read from a folder of PNG files or a JSON file of RLEs, and evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from riszoo.batch import Sample
from riszoo.data.dataset import RISDataset
from riszoo.data.masks import GroundTruth, Mask, Rles, shrink
from riszoo.data.readers import validation
from riszoo.data.record import Record, Split
from riszoo.errors import UserError
from riszoo.metrics.counts import count
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.results import Evaluation
from riszoo.metrics.sentence_table import MISSING, NO_HEAD, Ints, SentenceTable

NAMED_IDS = 3
"""Sentence ids that a warning lists."""


@dataclass(frozen=True)
class MaskPrediction:
    """A mask that is not decoded yet. `no_target` is the prediction of a no-target head, None without one."""

    source: Path | Rles
    no_target: bool | None = None


def read_predictions(path: Path) -> dict[str, MaskPrediction]:
    """The predictions by sentence id, from a folder of `<id>.png` files or a JSON list or dict of RLEs."""
    if path.is_dir():
        found = {file.stem: MaskPrediction(file) for file in sorted(path.glob("*.png"))}
        if not found:
            raise UserError(f"{path} holds no predictions: a mask is a file named <sentence id>.png")
        return found
    try:
        content = json.loads(path.read_text())
    except OSError:
        raise UserError(f"{path} cannot be read: give a folder of PNG masks or a JSON file of RLEs") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON: give a list of {{id, segmentation}}, or a folder of PNGs") from None
    return _from_json(content, path)


def _from_json(content: Any, path: Path) -> dict[str, MaskPrediction]:
    if isinstance(content, dict):
        content = [{"id": sentence_id, "segmentation": rle} for sentence_id, rle in content.items()]
    if not isinstance(content, list):
        raise UserError(f"{path} is neither a list nor a dict of predictions")
    found: dict[str, MaskPrediction] = {}
    for i, entry in enumerate(content):
        where = f"prediction {i} of {path}"
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str | int):
            raise UserError(f"{where} has no 'id' of a sentence")
        sentence_id = str(entry["id"])
        if sentence_id in found:
            raise UserError(f"{path} has two predictions for sentence '{sentence_id}'")
        found[sentence_id] = _prediction(entry, where)
    return found


def _prediction(entry: Mapping[str, Any], where: str) -> MaskPrediction:
    no_target = entry.get("no_target")
    if no_target is not None and not isinstance(no_target, bool):
        raise UserError(f"{where}: 'no_target' is {no_target!r}, which is neither true nor false")
    rle = entry.get("segmentation")
    try:
        runs = validation.read_rle(rle)
    except validation.RecordError as error:
        raise UserError(f"{where}: {error}") from None
    assert isinstance(rle, dict)
    return MaskPrediction(Rles(validation.size(*rle["size"]), (runs,)), no_target)


@dataclass
class ScoredPredictions:
    """The evaluation, and the ids of sentences whose predictions have a problem."""

    evaluation: Evaluation
    missing: list[str] = field(default_factory=list)  # no prediction: IoU 0
    unusable: list[str] = field(default_factory=list)  # another size than the image, or not readable: IoU 0
    unexpected: list[str] = field(default_factory=list)  # no such sentence in the split: ignored

    def problem_counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in ("missing", "unusable", "unexpected")}

    def warnings(self) -> list[str]:
        """One sentence for each problem that occurs, with the first few ids."""
        problems = {
            "have no prediction and count as IoU 0": self.missing,
            "have a prediction that cannot be used and count as IoU 0": self.unusable,
            "are not in the split; their predictions are ignored": self.unexpected,
        }
        return [f"{len(ids)} sentences {problem}: {_first(ids)}" for problem, ids in problems.items() if ids]


def _first(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED_IDS]) + (", ..." if len(ids) > NAMED_IDS else "")


def score(predictions: Mapping[str, MaskPrediction], split: Split, protocols: Sequence[Protocol]) -> ScoredPredictions:
    """Every sentence of the split evaluated against the predicted mask with its id.

    The masks are binary and at the image's own size: no threshold is applied, and a protocol that compares in
    another frame shrinks them by nearest neighbour.
    """
    samples: list[Sample] = []
    blocks: list[Ints] = []
    missing: list[str] = []
    unusable: list[str] = []
    for record, group, target_indices in RISDataset(split, (1, 1), "squeeze").by_image():
        predicted = [predictions.get(sample.sentence_id) for sample in group]
        masks = [None if prediction is None else _decode(prediction, record.size) for prediction in predicted]
        for sample, prediction, mask in zip(group, predicted, masks, strict=True):
            if prediction is None:
                missing.append(sample.sentence_id)
            elif mask is None:
                unusable.append(sample.sentence_id)
        shared = _shared_columns(group, predicted, masks)
        blocks.append(np.concatenate([shared, _counts(masks, record, target_indices, protocols)], -1))
        samples += group
    if not samples:
        raise UserError(f"split '{split.name}' of {split.dataset} has no sentences to score")
    evaluation = Evaluation(SentenceTable.sort(protocols, np.concatenate(blocks)), samples, split.describe())
    unexpected = sorted(predictions.keys() - {sample.sentence_id for sample in samples})
    return ScoredPredictions(evaluation, missing, unusable, unexpected)


def _shared_columns(
    samples: Sequence[Sample], predictions: Sequence[MaskPrediction | None], masks: Sequence[Mask | None]
) -> Ints:
    """(n, 3): index in the split, whether the sentence has no target, what a no-target head predicted."""
    lines = []
    for sample, prediction, mask in zip(samples, predictions, masks, strict=True):
        head = NO_HEAD if prediction is None or prediction.no_target is None else int(prediction.no_target)
        lines.append([sample.index, int(sample.no_target), MISSING if mask is None else head])
    return np.array(lines, np.int64)


def _counts(
    masks: Sequence[Mask | None], record: Record, target_indices: Sequence[int], protocols: Sequence[Protocol]
) -> Ints:
    """(n, 13 a protocol): all sentences of one image together; each ground truth is drawn once."""
    empty = np.zeros(record.size, np.bool_)
    predicted = np.stack([empty if mask is None else mask for mask in masks])
    true = {p.ground_truth.key: _draw(record, target_indices, p.ground_truth) for p in protocols}
    blocks = []
    for protocol in protocols:
        frame = protocol.ground_truth.frame
        resized = predicted if frame is None else np.stack([shrink(mask, frame) for mask in predicted])
        pair = torch.from_numpy(resized), torch.from_numpy(true[protocol.ground_truth.key])
        blocks.append(count(*pair, [frame or record.size] * len(masks), protocol.band).numpy())
    return np.concatenate(blocks, -1)


def _draw(record: Record, target_indices: Sequence[int], ground_truth: GroundTruth) -> Mask:
    """(n, h, w): the ground truth of each sentence."""
    masks = {i: record.targets[i].segmentation.draw(ground_truth) for i in sorted(set(target_indices))}
    return np.stack([masks[i] for i in target_indices])


def _decode(prediction: MaskPrediction, size: tuple[int, int]) -> Mask | None:
    """The predicted mask; None if it has another size than the image or is not readable."""
    if isinstance(prediction.source, Rles):
        return prediction.source.draw(GroundTruth()) if prediction.source.size == size else None
    try:
        with Image.open(prediction.source) as image:
            if (image.height, image.width) != size or len(image.getbands()) != 1:
                return None
            mask: Mask = np.asarray(image) != 0
            return mask
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None
