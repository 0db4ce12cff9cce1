"""Metrics for masks, or boxes, that any other code produced: a folder of PNG files, or a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from riszoo.arguments import OneSentence
from riszoo.batch import Sample
from riszoo.data.base import Record, Split
from riszoo.data.masks import Mask, Truth, shrink
from riszoo.data.questions import Questions
from riszoo.errors import UserError
from riszoo.metrics import score_boxes
from riszoo.metrics.counts import count
from riszoo.metrics.predictions import MaskPrediction, are_boxes, read_predictions, trouble
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.metrics.record import Evaluation, write_results
from riszoo.metrics.rle import RunLengths, decode
from riszoo.metrics.rows import NO_ANSWER, NO_HEAD, Ints, Rows
from riszoo.metrics.table import render


@dataclass
class Scored:
    """The evaluation, and the ids of predictions that were not as expected. Missing and misfit ones count as IoU 0."""

    evaluation: Evaluation
    missing: list[str] = field(default_factory=list)
    misfit: list[str] = field(default_factory=list)  # of another size than the picture, or unreadable
    extra: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        return trouble(
            {
                "have no prediction and count as IoU 0": self.missing,
                "have a prediction that cannot be used and count as IoU 0": self.misfit,
                "are not in the split; their predictions are ignored": self.extra,
            }
        )


def main(argv: Sequence[str] | None = None) -> int:
    """`riszoo score PREDICTIONS --data refcoco --split testA`"""
    parser = OneSentence(prog="riszoo score", description=__doc__)
    parser.add_argument(
        "predictions", nargs="?", type=Path, help="a folder of <sentence id>.png, or a JSON of RLEs or of boxes"
    )
    parser.add_argument("--predictions", dest="named", type=Path, metavar="PATH", help="the same, by name")
    parser.add_argument("--data", default="scenes", help="a data set's recipe")
    parser.add_argument("--root", help="where the data set lies")
    parser.add_argument("--split", default="val")
    parser.add_argument("--protocol", help="of masks: one or several, with commas; original when left out")
    parser.add_argument("--out", type=Path, help="the folder for the result; beside the predictions when left out")
    options = parser.parse_args(argv)
    path: Path | None = options.named or options.predictions
    if path is None:
        raise UserError("name the masks to score: riszoo score PREDICTIONS, a folder of PNGs or a JSON file of RLEs")
    protocols = get_protocols(options.protocol or "original")
    from riszoo.data import commands

    split = commands.opened(options.data, options.root).split(options.split)
    found, out = read_predictions(path), options.out or path.with_name(f"{path.stem}-score")
    if not are_boxes(found):
        told = _masks(found, split, protocols, path, out)
    elif options.protocol is None:
        told = score_boxes.told(found, split, path, out)
    else:
        raise UserError(f"{path} holds boxes, and '{options.protocol}' is a rule for masks: leave --protocol out")
    print("\n".join([*told, f"results: {out}"]))
    return 0


def _masks(
    found: dict[str, MaskPrediction], split: Split, protocols: Sequence[Protocol], path: Path, out: Path
) -> list[str]:
    """The result's files are written, and what there is to say."""
    scored = score(found, split, protocols)
    counts = {"missing": len(scored.missing), "misfit": len(scored.misfit), "extra": len(scored.extra)}
    metrics = write_results(out, {split.name: scored.evaluation}, {"predictions": str(path), **counts})
    return [*scored.warnings(), render(metrics)]


def score(found: Mapping[str, MaskPrediction], split: Split, protocols: Sequence[Protocol]) -> Scored:
    """Every sentence of the split against the mask filed under its id.

    The masks are ready, at the picture's own size: no threshold is applied, and a protocol that compares elsewhere
    shrinks them by nearest neighbour.
    """
    scored = Scored(Evaluation(Rows(tuple(protocols), np.zeros((0, 0), np.int64)), []))
    samples: list[Sample] = []
    blocks = []
    for record, asked, places in Questions(split, (1, 1), "squeeze").by_picture():
        answers = [found.get(sample.id) for sample in asked]
        masks = [_mask(answer, record.size) for answer in answers]
        scored.missing += [sample.id for sample, answer in zip(asked, answers, strict=True) if answer is None]
        lost = [answer is not None and mask is None for answer, mask in zip(answers, masks, strict=True)]
        scored.misfit += [sample.id for sample, gone in zip(asked, lost, strict=True) if gone]
        blocks.append(np.concatenate([_shared(asked, answers, masks), _counts(masks, record, places, protocols)], -1))
        samples += asked
    if not samples:
        raise UserError(f"split '{split.name}' of {split.set} has no sentences to score")
    scored.extra += sorted(found.keys() - {sample.id for sample in samples})
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
    """(n, 13 a protocol): every sentence of one picture at once, each target drawn once a variant."""
    empty = np.zeros(record.size, np.bool_)
    predicted = np.stack([empty if mask is None else mask for mask in masks])
    true = {protocol.truth.key: _drawn(record, places, protocol.truth) for protocol in protocols}
    blocks = []
    for protocol in protocols:
        frame, known = protocol.truth.frame, true[protocol.truth.key]
        ready = predicted if frame is None else np.stack([shrink(mask, frame) for mask in predicted])
        sizes = [frame or record.size] * len(masks)
        blocks.append(count(torch.from_numpy(ready), torch.from_numpy(known), sizes, protocol.band).numpy())
    return np.concatenate(blocks, -1)


def _drawn(record: Record, places: Sequence[int], truth: Truth) -> Mask:
    """(n, h, w): the truth of each sentence."""
    masks = {place: record.targets[place].segmentation.draw(truth) for place in sorted(set(places))}
    return np.stack([masks[place] for place in places])


def _mask(prediction: MaskPrediction | None, size: tuple[int, int]) -> Mask | None:
    """None where there is none, it does not fit the picture, or cannot be read."""
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
