"""Small configurations of every recipe and of three toy models; a new recipe is tested without further code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from riszoo import recipes
from riszoo.batch import Batch
from riszoo.bench import plan
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


def tiny(name: str, **over: Any) -> RISModule:
    """A recipe's model at the scale `tiny`, for the embedded data set."""
    return Entry(name, recipes.resolve(name, "scenes", "tiny")["model"]).build(**over)


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


def trained_names(module: nn.Module) -> set[str]:
    """Names of the parameters that train."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def total_loss(model: RISModule, batch: Batch) -> Tensor:
    """What one training step minimises: the sum of the terms, each the mean over the sentences."""
    return torch.stack([term.mean() for term in model.loss(model(batch), batch).values()]).sum()


def train(model: RISModule, batch: Batch, optimizer: torch.optim.Optimizer, steps: int) -> set[str]:
    """Train on one batch, and return the names of the parameters that had a gradient other than zero."""
    reached: set[str] = set()
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        total_loss(model, batch).backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    return reached


def assert_trains_what_it_declares(model: RISModule, batch: Batch | None = None) -> None:
    """One step gives every parameter a gradient, unless it is declared frozen: on several devices it has to."""
    model.train()
    total_loss(model, batch_of(model, 2, 2) if batch is None else batch).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained_names(model)


def ablations() -> list[Any]:
    """The model options of every row of every ablation, as parameters of a test: (model, options)."""
    return [
        pytest.param(name, overrides.get("model", {}).get("init_args", {}), id=f"{name}/{row}")
        for name in recipes.names("ablations")
        for row, overrides in plan.ablation_rows(name)
    ]
