"""Small configurations of every recipe and of three toy models; a new recipe is tested without further code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from riszoo import recipes
from riszoo.batch import Batch
from riszoo.build import instantiate, with_vocabulary
from riszoo.data.dataset import RISDataset, collate
from riszoo.data.samplers import SampleKey
from riszoo.data.sets import Scenes
from riszoo.model import RISModule

TOY = {
    "size": 64,
    "geometry": "letterbox",
    "vision": {"name": "resnet18", "options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}},
    "text": {"name": "bigru", "options": {"embedding": 16, "width": 32}},
}


@dataclass(frozen=True)
class Entry:
    """A model to test: a recipe's tiny section, or a toy."""

    name: str
    section: dict[str, Any]

    def build(self, **over: Any) -> RISModule:
        torch.manual_seed(0)
        section = recipes.merge(self.section, {"init_args": over})
        return instantiate(RISModule, with_vocabulary(section, Scenes()))  # type: ignore[type-abstract]


def entries() -> list[Entry]:
    names = [name for name in recipes.names("models") if "tiny" in recipes.get("models", name).scales]
    taps = recipes.merge(TOY, {"vision": {"stages": 3}})  # a stage that is not tapped would never train
    toys = [
        Entry("toy-early", {"class_path": "tests.support.toys.Early", "init_args": TOY}),
        Entry("toy-views", {"class_path": "tests.support.toys.Views", "init_args": TOY}),
        Entry("toy-taps", {"class_path": "tests.support.toys.Taps", "init_args": taps}),
    ]
    return [Entry(name, recipes.resolve(name, "scenes", "tiny")["model"]) for name in names] + toys


def questions(model: RISModule, *, split: str = "train", image: Any = 64, masks: bool = True) -> RISDataset:
    data = Scenes(image_size=image)
    ground_truths = list({p.ground_truth for p in model.protocols})
    return RISDataset(
        data.split(split), model.size, model.geometry, masks=masks, ground_truths=ground_truths, views=model.views
    )


def batch_of(model: RISModule, images: int = 3, sentences: int = 2, **options: Any) -> Batch:
    """A batch of the first sentences of the first images, in the model's frame."""
    asked = questions(model, **options)
    each = len(asked.split.sentence_target) // len(asked.split)
    items = [SampleKey(p, tuple(range(p * each, p * each + sentences))) for p in range(images)]
    batch = collate([asked[item] for item in items])
    batch.tokens = model.tokenize(batch.texts)
    return batch
