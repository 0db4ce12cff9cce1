"""Metrics for masks that any other code produced: a folder of PNG files, or a JSON file of RLEs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from riszoo.arguments import OneSentence
from riszoo.batch import Sample
from riszoo.data.base import Record, Split, Target
from riszoo.data.masks import Mask, shrink
from riszoo.data.questions import Questions
from riszoo.errors import UserError
from riszoo.metrics.counts import count
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.metrics.record import Evaluation, write_results
from riszoo.metrics.rle import RunLengths, decode
from riszoo.metrics.rows import NO_ANSWER, NO_HEAD, Rows
from riszoo.metrics.table import render

NAMED = 3


@dataclass(frozen=True)
class Prediction:
    """A mask not yet read. `no_target` is what a no-target head said, where there is one."""

    source: Path | RunLengths
    no_target: bool | None = None


@dataclass
class Scored:
    """The evaluation, and the ids of predictions that were not as expected. Missing and misfit ones count as IoU 0."""

    evaluation: Evaluation
    missing: list[str] = field(default_factory=list)
    misfit: list[str] = field(default_factory=list)  # of another size than the picture, or unreadable
    extra: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """One sentence for each kind of trouble, naming the first few."""
        kinds = {
            "have no prediction and count as IoU 0": self.missing,
            "have a prediction that cannot be used and count as IoU 0": self.misfit,
            "are not in the split; their predictions are ignored": self.extra,
        }
        return [f"{len(ids)} sentences {what}: {_few(ids)}" for what, ids in kinds.items() if ids]


def main(argv: Sequence[str] | None = None) -> int:
    """`riszoo score PREDICTIONS --data refcoco --split testA`"""
    parser = OneSentence(prog="riszoo score", description=__doc__)
    parser.add_argument("predictions", nargs="?", type=Path, help="a folder of <sentence id>.png, or a JSON of RLEs")
    parser.add_argument("--predictions", dest="named", type=Path, metavar="PATH", help="the same, by name")
    parser.add_argument("--data", default="scenes", help="a data set's recipe")
    parser.add_argument("--root", help="where the data set lies")
    parser.add_argument("--split", default="val")
    parser.add_argument("--protocol", default="original", help="one or several, with commas")
    parser.add_argument("--out", type=Path, help="the folder for the result; beside the predictions when left out")
    options = parser.parse_args(argv)
    predictions: Path | None = options.named or options.predictions
    if predictions is None:
        raise UserError("name the masks to score: riszoo score PREDICTIONS, a folder of PNGs or a JSON file of RLEs")
    protocols = get_protocols(options.protocol)
    from riszoo.data import commands

    scored = score(predictions, commands.opened(options.data, options.root).split(options.split), protocols)
    out = options.out or predictions.with_name(f"{predictions.stem}-score")
    counts = {"missing": len(scored.missing), "misfit": len(scored.misfit), "extra": len(scored.extra)}
    name = scored.evaluation.samples[0].split
    metrics = write_results(out, {name: scored.evaluation}, {"predictions": str(predictions), **counts})
    print("\n".join([*scored.warnings(), render(metrics), f"results: {out}"]))
    return 0


def _few(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")


def score(predictions: Path, split: Split, protocols: Sequence[Protocol]) -> Scored:
    """Every sentence of the split against the mask filed under its id.

    The masks are ready, at the picture's own size: no threshold is applied, and a protocol that compares elsewhere
    shrinks them by nearest neighbour.
    """
    found = read_predictions(predictions)
    samples = Questions(split, (1, 1), "squeeze").samples(range(len(split.sentence_target)))
    if not samples:
        raise UserError(f"split '{split.name}' of {split.set} has no sentences to score")
    scored = Scored(Evaluation(Rows(tuple(protocols), np.zeros((0, 0), np.int64)), samples, split.describe()))
    lines = []
    for picture, asked in groupby(samples, lambda sample: int(split.sentence_picture[sample.index])):
        record, first = split[picture], int(np.searchsorted(split.target_picture, picture))
        for sample in asked:
            target = record.targets[int(split.sentence_target[sample.index]) - first]
            lines.append(_line(found.pop(sample.id, None), record, target, sample, protocols, scored))
    scored.extra += sorted(found)
    scored.evaluation = replace(scored.evaluation, rows=Rows.sort(protocols, np.array(lines, np.int64)))
    return scored


def _line(
    prediction: Prediction | None,
    record: Record,
    target: Target,
    sample: Sample,
    protocols: Sequence[Protocol],
    scored: Scored,
) -> list[int]:
    """One row of the table."""
    mask = None if prediction is None else _mask(prediction, record.size)
    if prediction is None:
        scored.missing.append(sample.id)
    elif mask is None:
        scored.misfit.append(sample.id)
    said = None if prediction is None else prediction.no_target
    head = NO_ANSWER if mask is None else NO_HEAD if said is None else int(said)
    line = [sample.index, int(sample.no_target), head]
    for protocol in protocols:
        line += _counts(np.zeros(record.size, np.bool_) if mask is None else mask, target, protocol)
    return line


def _counts(mask: Mask, target: Target, protocol: Protocol) -> list[int]:
    true = np.ascontiguousarray(target.segmentation.draw(protocol.truth))
    ready = mask if protocol.truth.frame is None else shrink(mask, protocol.truth.frame)
    counts = count(torch.from_numpy(ready)[None], torch.from_numpy(true)[None], [true.shape], protocol.band)
    return [int(number) for number in counts[0]]


def _mask(prediction: Prediction, size: tuple[int, int]) -> Mask | None:
    """None where it does not fit the picture, or cannot be read."""
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


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Sentence id -> prediction, from `<id>.png` files or from a JSON list or dict of RLEs."""
    if path.is_dir():
        found = {file.stem: Prediction(file) for file in sorted(path.glob("*.png"))}
        if not found:
            raise UserError(f"{path} holds no predictions: a mask is a file named <sentence id>.png")
        return found
    try:
        content = json.loads(path.read_text())
    except OSError:
        raise UserError(f"{path} cannot be read: give a folder of PNG masks, or a JSON file of RLEs") from None
    except ValueError:
        raise UserError(f"{path} is not valid JSON: give a list of {{id, segmentation}}, or a folder of PNGs") from None
    return _from_json(content, path)


def _from_json(content: Any, path: Path) -> dict[str, Prediction]:
    if isinstance(content, dict):
        content = [{"id": name, **_entry(value)} for name, value in content.items()]
    if not isinstance(content, list):
        raise UserError(f"{path} holds neither a list nor a dict of predictions")
    found: dict[str, Prediction] = {}
    for place, item in enumerate(content):
        name, prediction = _one(item, f"prediction {place} of {path}")
        if name in found:
            raise UserError(f"{path} has two predictions for sentence '{name}'")
        found[name] = prediction
    return found


def _entry(value: Any) -> Mapping[str, Any]:
    """In a dict, a value is the RLE itself or an entry with `segmentation`."""
    if isinstance(value, dict) and "segmentation" in value:
        return value
    return {"segmentation": value}


def _one(item: Any, where: str) -> tuple[str, Prediction]:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str | int):
        raise UserError(f"{where} has no 'id' of a sentence")
    said = item.get("no_target")
    if said is not None and not isinstance(said, bool):
        raise UserError(f"{where}: 'no_target' is {said!r}, which is neither true nor false")
    return str(item["id"]), Prediction(RunLengths.read(item.get("segmentation"), where), said)
