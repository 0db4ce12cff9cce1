"""Metrics for masks, or boxes, that any other code produced: a folder of PNG files, or a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from riszoo.batch import Sample
from riszoo.data.dataset import RISDataset
from riszoo.data.masks import GroundTruth, Mask, shrink
from riszoo.data.record import Record, Split
from riszoo.errors import UserError
from riszoo.metrics.counts import count
from riszoo.metrics.external_files import MaskPrediction, trouble
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.results import Evaluation
from riszoo.metrics.rle import RunLengths, decode
from riszoo.metrics.rows import NO_ANSWER, NO_HEAD, Ints, Rows


@dataclass
class Scored:
    """The evaluation, and the ids of predictions that were not as expected. Missing and misfit ones count as IoU 0."""

    evaluation: Evaluation
    missing: list[str] = field(default_factory=list)
    misfit: list[str] = field(default_factory=list)  # of another size than the image, or unreadable
    extra: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        return trouble(
            {
                "have no prediction and count as IoU 0": self.missing,
                "have a prediction that cannot be used and count as IoU 0": self.misfit,
                "are not in the split; their predictions are ignored": self.extra,
            }
        )


def score(found: Mapping[str, MaskPrediction], split: Split, protocols: Sequence[Protocol]) -> Scored:
    """Every sentence of the split against the mask filed under its id.

    The masks are ready, at the image's own size: no threshold is applied, and a protocol that compares elsewhere
    shrinks them by nearest neighbour.
    """
    scored = Scored(Evaluation(Rows(tuple(protocols), np.zeros((0, 0), np.int64)), []))
    samples: list[Sample] = []
    blocks = []
    for record, asked, places in RISDataset(split, (1, 1), "squeeze").by_image():
        answers = [found.get(sample.sentence_id) for sample in asked]
        masks = [_mask(answer, record.size) for answer in answers]
        scored.missing += [sample.sentence_id for sample, answer in zip(asked, answers, strict=True) if answer is None]
        lost = [answer is not None and mask is None for answer, mask in zip(answers, masks, strict=True)]
        scored.misfit += [sample.sentence_id for sample, gone in zip(asked, lost, strict=True) if gone]
        blocks.append(np.concatenate([_shared(asked, answers, masks), _counts(masks, record, places, protocols)], -1))
        samples += asked
    if not samples:
        raise UserError(f"split '{split.name}' of {split.dataset} has no sentences to score")
    scored.extra += sorted(found.keys() - {sample.sentence_id for sample in samples})
    scored.evaluation = Evaluation(Rows.sort(protocols, np.concatenate(blocks)), samples, split.describe())
    return scored


def _shared(samples: Sequence[Sample], answers: Sequence[MaskPrediction | None], masks: Sequence[Mask | None]) -> Ints:
    """(n, 3): place in the split, whether nothing is meant, what a head said."""
    lines = []
    for sample, answer, mask in zip(samples, answers, masks, strict=True):
        said = NO_HEAD if answer is None or answer.no_target is None else int(answer.no_target)
        lines.append([sample.index, int(sample.no_target), NO_ANSWER if mask is None else said])
    return np.array(lines, np.int64)


def _counts(masks: Sequence[Mask | None], record: Record, places: Sequence[int], protocols: Sequence[Protocol]) -> Ints:
    """(n, 13 a protocol): every sentence of one image at once, each target drawn once a variant."""
    empty = np.zeros(record.size, np.bool_)
    predicted = np.stack([empty if mask is None else mask for mask in masks])
    true = {protocol.ground_truth.key: _drawn(record, places, protocol.ground_truth) for protocol in protocols}
    blocks = []
    for protocol in protocols:
        frame, known = protocol.ground_truth.frame, true[protocol.ground_truth.key]
        ready = predicted if frame is None else np.stack([shrink(mask, frame) for mask in predicted])
        sizes = [frame or record.size] * len(masks)
        blocks.append(count(torch.from_numpy(ready), torch.from_numpy(known), sizes, protocol.band).numpy())
    return np.concatenate(blocks, -1)


def _drawn(record: Record, places: Sequence[int], ground_truth: GroundTruth) -> Mask:
    """(n, h, w): the ground truth of each sentence."""
    masks = {place: record.targets[place].segmentation.draw(ground_truth) for place in sorted(set(places))}
    return np.stack([masks[place] for place in places])


def _mask(prediction: MaskPrediction | None, size: tuple[int, int]) -> Mask | None:
    """None where there is none, it does not fit the image, or cannot be read."""
    if prediction is None:
        return None
    if isinstance(prediction.source, RunLengths):
        return decode(prediction.source, size)
    try:
        with Image.open(prediction.source) as image:
            if (image.height, image.width) != size or len(image.getbands()) != 1:
                return None
            filled: Mask = np.asarray(image) != 0
            return filled
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None
