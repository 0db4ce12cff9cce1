"""Sentences worth looking at, chosen from the files of several runs, and what each model answers to them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from riszoo import recipes
from riszoo.batch import Sample
from riszoo.bench.rows import circumstances
from riszoo.build import instantiate
from riszoo.data.datamodule import RISData
from riszoo.data.dataset import RISDataset, collate
from riszoo.data.masks import GroundTruth, Mask, shrink
from riszoo.data.samplers import Item
from riszoo.errors import UserError
from riszoo.inference.drawing import heat, overlay
from riszoo.inference.predictions import Prediction, evidence_of, predictions
from riszoo.metrics.results import Evaluation, read_evaluation, read_metrics
from riszoo.metrics.summary import sentence_value
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint

SIDE = 240  # pixels of the longer side in the page
MOST_MAPS = 4  # evidence maps of one answer
IMAGES_AT_ONCE = 8
Maps = list[tuple[str, str]]
"""What each evidence map is called, and its image."""
REASONS = ("worst", "best", "disagreement", "types")


@dataclass(frozen=True)
class Run:
    """A test's folder and what it was run with."""

    name: str
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The file the test names, or the best one of the run it lies in."""
        named = (circumstances(self.folder)["checkpoint"] or {}).get("path")
        places = [Path(str(named))] * bool(named) + [runs.checkpoint(self.folder.parent)]
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise UserError(f"the checkpoint of {self.folder} is gone: it was {named}; put it back to draw its masks")
        return found

    @property
    def splits(self) -> list[str]:
        """Those asked with their own sentences."""
        splits = read_metrics(self.folder)["splits"]
        return [name for name, entry in splits.items() if entry["chosen"].get("control", "none") == "none"]

    def data(self) -> RISData:
        """The data module as the run had it."""
        config = self.folder.parent / "config.yaml"
        if config.is_file():
            section = recipes.read_yaml(config)["data"]
        else:
            card = runs.card(self.folder.parent) or {}
            section = recipes.resolve(str(card.get("model")), str(card.get("data")), str(card.get("scale")))["data"]
        return instantiate(RISData, section)  # type: ignore[type-abstract]


def find_run(path: Path) -> Run:
    """A test's folder, or the newest test of a run's folder; named by its model."""
    tests = [path] if (path / "metrics.json").is_file() else sorted(path.glob("test-*/metrics.json"))
    if not tests:
        raise UserError(f"{path} holds no test: name a folder with metrics.json, or test the run first")
    folder = tests[-1] if tests[-1].is_dir() else tests[-1].parent
    return Run(str((runs.card(folder.parent) or {}).get("model", folder.parent.name)), folder)


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Runs of one model are told apart by a number."""
    found = [find_run(path) for path in paths]
    names = [run.name for run in found]
    return [
        Run(name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}", run.folder)
        for place, (name, run) in enumerate(zip(names, found, strict=True))
    ]


# -- the choice -------------------------------------------------------------------------------------------------------


@dataclass
class Chosen:
    """One sentence, why it is shown, and what every run scored on it (0..1)."""

    sample: Sample
    ious: dict[str, float]
    reasons: list[str] = field(default_factory=list)


def choose(found: Sequence[Run], split: str, count: int) -> list[Chosen]:
    """About `count` sentences that all runs answered: worst, best, most disputed, and some of every kind."""
    everything = shared_sentences(found, split)
    each = max(1, count // len(REASONS))
    means = np.array([np.mean(list(one.ious.values())) for one in everything])
    apart = np.array([max(one.ious.values()) - min(one.ious.values()) for one in everything])
    orders = {"worst": np.argsort(means, kind="stable"), "best": np.argsort(-means, kind="stable")}
    if len(found) > 1:
        orders["disagreement"] = np.argsort(-apart, kind="stable")
    for reason, order in orders.items():
        for place in order[:each].tolist():
            everything[place].reasons.append(reason)
    kinds = sorted({tag for one in everything for tag in one.sample.tags})
    for kind in kinds:
        of_kind = [one for one in everything if kind in one.sample.tags]
        for one in of_kind[:: max(1, len(of_kind) // max(1, each // len(kinds)))][: max(1, each // len(kinds))]:
            one.reasons.append("types")
    return [one for one in everything if one.reasons]


def shared_sentences(found: Sequence[Run], split: str) -> list[Chosen]:
    """In the split's order, under each run's first protocol."""
    scores: list[dict[str, float]] = []
    samples: dict[str, Sample] = {}
    for run in found:
        result = read_evaluation(run.folder, split)
        values = values_of(result)
        asked = result.asked()
        scores.append({sample.sentence_id: value for sample, value in zip(asked, values, strict=True)})
        samples |= {sample.sentence_id: sample for sample in asked}
    common = [name for name in scores[0] if all(name in score for score in scores)]
    if not common:
        raise UserError(f"the runs have no sentence of '{split}' in common: report runs on the same data")
    return [
        Chosen(samples[name], {run.name: score[name] for run, score in zip(found, scores, strict=True)})
        for name in common
    ]


def values_of(result: Evaluation) -> list[float]:
    """Each sentence's IoU under the first protocol; 1 or 0 where nothing is meant."""
    return [float(value) for value in np.nan_to_num(sentence_value(result.rows, result.rows.protocols[0]))]


# -- the images -----------------------------------------------------------------------------------------------------


@dataclass
class Drawn:
    """The images of one sentence, each as a data address: image, ground truth, and by run the mask and its evidence."""

    image: str
    ground_truth: str
    masks: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)  # the runs that answered with an empty mask
    evidence: dict[str, Maps] = field(default_factory=dict)


def draw(found: Sequence[Run], split: str, chosen: Sequence[Chosen]) -> dict[str, Drawn]:
    """Every chosen sentence drawn, by its id; each checkpoint is asked anew."""
    questions = RISDataset(found[0].data().split(split), (8, 8), "squeeze")
    drawn = {name: Drawn(address(image), address(overlay(np.asarray(image), None, ground_truth)))
             for name, image, ground_truth in _ground_truths(questions, chosen)}  # fmt: skip
    for run in found:
        for prediction, mask, maps in _answered(run, split, chosen):
            one = drawn[prediction.sentence_id]
            one.masks[run.name], one.evidence[run.name] = mask, maps
            one.empty += [] if prediction.mask.any() else [run.name]
    return drawn


def items(chosen: Sequence[Chosen], questions: RISDataset) -> list[Item]:
    """The chosen sentences as the data set is asked for them: those of one image together."""
    places = sorted(one.sample.index for one in chosen)
    images = questions.split.sentence_image
    return [Item(p, tuple(own)) for p, own in groupby(places, key=lambda place: int(images[place]))]


def _ground_truths(questions: RISDataset, chosen: Sequence[Chosen]) -> Iterator[tuple[str, Image.Image, Mask]]:
    for item in items(chosen, questions):
        record = questions.split[item.image]
        image = fitted(Image.fromarray(record.load()))
        targets = {target.target_id: target for target in record.targets}
        for sample in questions.samples(item.sentences):
            ground_truth = targets[sample.target_id].segmentation.draw(GroundTruth())
            yield sample.sentence_id, image, shrink(ground_truth, (image.height, image.width))


def _answered(run: Run, split: str, chosen: Sequence[Chosen]) -> Iterator[tuple[Prediction, str, Maps]]:
    model = from_checkpoint(run.checkpoint)
    questions = RISDataset(
        run.data().split(split), model.size, model.geometry, ground_truths=[model.protocols[0].ground_truth]
    )
    asked = items(chosen, questions)
    for start in range(0, len(asked), IMAGES_AT_ONCE):
        yield from _batch(model, questions, asked[start : start + IMAGES_AT_ONCE])


@torch.no_grad()
def _batch(model: RISModule, questions: RISDataset, asked: Sequence[Item]) -> list[tuple[Prediction, str, Maps]]:
    batch = collate([questions[item] for item in asked])
    batch.tokens = model.tokenize(batch.texts)
    output = model(batch)
    images = [fitted(Image.fromarray(questions.split[item.image].load())) for item in asked]
    return [
        (prediction, *_drawn(prediction, images[int(batch.image_index[i])], evidence_of(output, batch, i)))
        for i, prediction in enumerate(predictions(output, batch, model.protocols[0]))
    ]


def _drawn(prediction: Prediction, image: Image.Image, evidence: Mapping[str, Any]) -> tuple[str, Maps]:
    pixels = np.asarray(image)
    mask = address(overlay(pixels, shrink(prediction.mask, pixels.shape[:2])))
    maps = [(label, address(heat(pixels, found))) for label, found in _flat(evidence)[:MOST_MAPS]]
    return mask, maps


def _flat(evidence: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Maps of the whole sentence first, then those of words."""
    whole = [(name, maps) for name, maps in evidence.items() if isinstance(maps, np.ndarray)]
    words = [(f"{name}: {word}", each) for name, maps in evidence.items() if not isinstance(maps, np.ndarray)
             for word, each in maps]  # fmt: skip
    return whole + words


def fitted(image: Image.Image) -> Image.Image:
    """At the page's size."""
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def address(image: Image.Image) -> str:
    """The image inside the page's text."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
