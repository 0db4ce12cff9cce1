"""Masks that any other code predicted: read from a folder of PNG files or a JSON file of RLEs, and evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from riszoo.batch import Sample
from riszoo.data.dataset import RISDataset
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.images import FORMATS
from riszoo.data.masks import Mask, Rles, Size, shrink
from riszoo.data.readers import validation
from riszoo.data.record import Record, Split
from riszoo.errors import LONGEST_NAME, UserError, without_controls
from riszoo.files import file_names
from riszoo.metrics.bits import count_bits
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.results import Evaluation
from riszoo.metrics.sentence_table import MISSING, NO_HEAD, Ints, SentenceTable

NAMED_IDS = 3
"""Sentence ids that a warning lists."""
SHOWN_CHARACTERS = 70
"""Characters of each that it shows."""


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
            raise UserError(f"{path} contains no predictions: a mask is a file named <sentence id>.png")
        return found
    try:
        if path.is_file():
            validation.check_bytes(path)
        content = json.loads(path.read_bytes(), object_pairs_hook=partial(_without_repeats, path))
    except OSError:
        raise UserError(f"{path} cannot be read: give a folder of PNG masks or a JSON file of RLEs") from None
    except UserError:
        raise
    except (ValueError, RecursionError, MemoryError):
        raise UserError(f"{path} is not valid JSON: give a list of {{id, segmentation}}, or a folder of PNGs") from None
    return _from_json(content, path)


def _without_repeats(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of JSON's names and values; a repeated name would hide a prediction."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"{path} has '{name[:LONGEST_NAME]}' twice in one object: keep one of them")
        found[name] = value
    return found


def _from_json(content: Any, path: Path) -> dict[str, MaskPrediction]:
    if isinstance(content, dict):
        content = [{"id": sentence_id, "segmentation": rle} for sentence_id, rle in content.items()]
    if not isinstance(content, list):
        raise UserError(f"{path} is neither a list nor a dict of predictions: give a list of {{id, segmentation}}")
    if not content:
        raise UserError(f"{path} contains no predictions: give a list of {{id, segmentation}}")
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
    unusable: dict[str, str] = field(default_factory=dict)  # with the reason: IoU 0
    unexpected: list[str] = field(default_factory=list)  # no such sentence in the split: ignored

    def problem_counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in ("missing", "unusable", "unexpected")}

    def warnings(self) -> list[str]:
        """One sentence for each problem that occurs, with the first few ids."""
        problems = {
            "have no prediction and count as IoU 0": self.missing,
            "have a prediction that cannot be used and count as IoU 0": [
                f"{i} ({r})" for i, r in self.unusable.items()
            ],
            "are not in the split; their predictions are ignored": self.unexpected,
        }
        return [f"{len(ids)} sentences {problem}: {_first(ids)}" for problem, ids in problems.items() if ids]

    def check_any(self, path: Path) -> None:
        """Raise UserError, with the reasons, where not a single prediction could be used."""
        if len(self.missing) + len(self.unusable) < len(self.evaluation.samples):
            return
        reasons = [f"{i}: {reason}" for i, reason in self.unusable.items()]
        raise UserError(f"none of the predictions in {path} can be used: {_first(reasons)}")


def _first(words: Sequence[str]) -> str:
    shown = [word if len(word) <= SHOWN_CHARACTERS else f"{word[:SHOWN_CHARACTERS]}..." for word in words[:NAMED_IDS]]
    return without_controls(", ".join(shown)) + (", ..." if len(words) > NAMED_IDS else "")


def score(predictions: Mapping[str, MaskPrediction], split: Split, protocols: Sequence[Protocol]) -> ScoredPredictions:
    """Every sentence of the split evaluated against the predicted mask with its id.

    The masks are binary and at the image's own size: no threshold is applied, and a protocol that compares in
    another frame shrinks them by nearest neighbour.
    """
    samples: list[Sample] = []
    blocks: list[Ints] = []
    missing: list[str] = []
    unusable: dict[str, str] = {}
    predictions = by_sentence(predictions, split.sentence_ids())
    for record, group, target_indices in RISDataset(split, (1, 1), "squeeze").by_image():
        predicted = [predictions.get(sample.sentence_id) for sample in group]
        masks: list[Mask | None] = []
        for sample, prediction in zip(group, predicted, strict=True):
            decoded = None if prediction is None else _decode(prediction, record.size)
            if decoded is None:
                missing.append(sample.sentence_id)
            elif isinstance(decoded, str):
                unusable[sample.sentence_id] = decoded
            masks.append(None if isinstance(decoded, str) else decoded)
        shared = _shared_columns(group, predicted, masks)
        blocks.append(np.concatenate([shared, _counts(masks, record, target_indices, protocols)], -1))
        samples += group
    if not samples:
        raise UserError(f"split '{split.name}' of {split.dataset} has no sentences to score")
    evaluation = Evaluation(SentenceTable.sort(protocols, np.concatenate(blocks)), samples, split.describe())
    unexpected = sorted(predictions.keys() - {sample.sentence_id for sample in samples})
    return ScoredPredictions(evaluation, missing, unusable, unexpected)


def check_ids(predictions: Mapping[str, MaskPrediction], split: Split, path: Path) -> None:
    """Raise UserError where no prediction belongs to a sentence of the split, before its images are read."""
    ids = split.sentence_ids()
    if ids and by_sentence(predictions, ids).keys().isdisjoint(ids):
        raise UserError(
            f"no prediction in {path} belongs to a sentence of the split: its ids are such as "
            f"{_first(sorted(predictions))}, and the split's are such as {_first(ids)}"
        )


def by_sentence(predictions: Mapping[str, MaskPrediction], ids: Sequence[str]) -> dict[str, MaskPrediction]:
    """The predictions by sentence id, where files may have the names that `riszoo predict` gives them."""
    found = dict(predictions)
    for sentence_id, name in zip(ids, file_names(ids), strict=True):
        if sentence_id not in found and name in found and isinstance(found[name].source, Path):
            found[sentence_id] = found.pop(name)
    return found


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
        blocks.append(count_bits(resized, true[protocol.ground_truth.key], protocol.band))
    return np.concatenate(blocks, -1)


def _draw(record: Record, target_indices: Sequence[int], ground_truth: GroundTruth) -> Mask:
    """(n, h, w): the ground truth of each sentence."""
    masks = {i: record.targets[i].segmentation.draw(ground_truth) for i in sorted(set(target_indices))}
    return np.stack([masks[i] for i in target_indices])


def _decode(prediction: MaskPrediction, size: Size) -> Mask | str:
    """The predicted mask, or the reason why it cannot be used."""
    source = prediction.source
    if isinstance(source, Rles):
        return source.draw(GroundTruth()) if source.size == size else _other_size(source.size, size)
    try:
        with Image.open(source, formats=FORMATS) as image:
            if (image.height, image.width) != size:
                return _other_size((image.height, image.width), size)
            if len(image.getbands()) != 1:
                return f"it has {len(image.getbands())} channels instead of one"
            mask: Mask = np.asarray(image) != 0
            return mask
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        return "the file is not a readable image"


def mask_or_empty(prediction: MaskPrediction | None, size: Size) -> Mask:
    """The predicted mask; an empty one where it is missing or cannot be used."""
    decoded = None if prediction is None else _decode(prediction, size)
    return decoded if isinstance(decoded, np.ndarray) else np.zeros(size, np.bool_)


def _other_size(found: Size, size: Size) -> str:
    return f"{found[1]} x {found[0]} pixels, its image {size[1]} x {size[0]}"
