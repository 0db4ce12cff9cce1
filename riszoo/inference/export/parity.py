"""Whether an exported model gives the model's own results, on images and sentences of the embedded data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riszoo.batch import Batch
from riszoo.data.record import Pixels
from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError
from riszoo.inference.export.graphs import Inputs, image_inputs, sentence_inputs
from riszoo.inference.export.runner import Array, Model
from riszoo.inference.predictor import batch_for
from riszoo.model import RISModule

TOLERANCE = 1e-4
"""The largest difference of a logit, relative to the largest logit where that is above 1."""
LEVELS = 1
"""The largest difference of a pixel in the frame: the model's own resize rounds its weights."""


@dataclass(frozen=True)
class Case:
    """Images with their sentences, and both as a batch of the model."""

    images: list[Pixels]
    batch: Batch


def case_of(model: RISModule, first: int, texts: list[list[str]]) -> Case:
    """The sentences about images of various sizes, from index `first` on."""
    split = ScenesSplit("val", "mixed")
    images = [split[first + i].load() for i in range(len(texts))]
    batch = batch_for(model, images, texts, [f"image{i}" for i in range(len(texts))])
    batch.tokens = model.tokenize(batch.texts)
    return Case(images, batch)


def tracing_case(model: RISModule) -> Case:
    """Two images with three and two sentences of several words, which leave every dimension open."""
    return case_of(model, 0, [["the red circle", "a square", "the large one on the left"], ["it", "the blue shape"]])


def parity_cases(model: RISModule) -> Iterator[Case]:
    """One image with one word; and three images with sentences that are empty, short, and longer than a model reads."""
    yield case_of(model, 2, [["square"]])
    longest = " ".join(["the small green triangle to the left of the striped circle"] * 5)
    yield case_of(model, 3, [["the circle that is not red"], ["", longest, "an unknownword"], ["the largest shape"]])


def check_parity(model: RISModule, folder: Path) -> dict[str, float]:
    """The largest difference between the files in a folder and the model; raises UserError where it is too large."""
    runner = Model(folder)
    difference = 0.0
    for case in parity_cases(model):
        check_inputs(runner, case)
        difference = max(difference, largest_difference(model, runner, case))
    if not difference <= TOLERANCE:
        raise UserError(
            f"the graphs of {type(model).__name__} differ from the model by {difference:.2g}, more than {TOLERANCE:g}: "
            "nothing is written; try another --format"
        )
    return {"largest_difference": difference, "tolerance": TOLERANCE}


def check_inputs(runner: Model, case: Case) -> None:
    """Raise UserError where the runner places images or tokenizes sentences otherwise than the model."""
    assert case.batch.tokens is not None
    for pixels, image, box in zip(case.images, case.batch.images, case.batch.valid, strict=True):
        placed, placement = runner.place(pixels)
        corner = np.add(placement.offset, placement.inside)
        distance = np.abs(placed.astype(int) - image.numpy().astype(int)).max()
        if distance > LEVELS or box.tolist() != [*placement.offset, *corner]:
            raise UserError(f"the runner's images differ from the model's by {distance} levels: nothing is written")
    ids, mask = runner.tokenize(case.batch.texts)
    width = ids.shape[1]
    own = case.batch.tokens
    if not np.array_equal(np.where(mask, ids, 0), own.ids.where(own.mask, 0)[:, :width].numpy()):
        raise UserError("the runner's tokens differ from the model's: nothing is written")


@torch.no_grad()
def largest_difference(model: RISModule, runner: Model, case: Case) -> float:
    """The largest difference of the runner's outputs, relative to the largest output where that is above 1."""
    output = model(case.batch)
    own = [output.logits] if output.no_target is None else [output.logits, output.no_target]
    features = runner.encode(**_arrays(image_inputs(case.batch)))
    found = runner.decode(**{**_arrays(sentence_inputs([], case.batch)), "features": features})
    return max(_distance(one, other) for one, other in zip(own, found, strict=True))


def _arrays(inputs: Inputs) -> dict[str, Any]:
    return {
        name: [each.numpy() for each in value] if isinstance(value, list) else value.numpy()
        for name, value in inputs.items()
    }


def _distance(own: Tensor, found: Array) -> float:
    if tuple(own.shape) != found.shape:
        return float("inf")
    return float(np.abs(own.numpy() - found).max() / max(1.0, float(own.abs().max())))
