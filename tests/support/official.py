"""Small models with the weights, inputs and results of their authors' code, as stored in tests/models/fixtures."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Sample, Tokens
from riszoo.build import instantiate
from riszoo.model import RISModule
from riszoo.translation import Names, State

FIXTURES = Path(__file__).parents[1] / "models" / "fixtures"


def stored(name: str) -> tuple[dict[str, Any], State]:
    """A fixture's description and its tensors."""
    return json.loads((FIXTURES / f"{name}.json").read_text()), load_file(FIXTURES / f"{name}.safetensors")


def with_prefix(tensors: State, prefix: str) -> State:
    """The tensors whose names start with the prefix, under the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def vocabulary(rows: int) -> tuple[str, ...]:
    """Words that fill an embedding of so many rows; four are taken by special tokens."""
    return tuple(f"w{index}" for index in range(rows - 4))


def build(section: dict[str, Any], state: State, **over: Any) -> RISModule:
    """The model of a section in evaluation mode, with the given weights; `over` replaces options."""
    section = {**section, "init_args": section["init_args"] | over}
    model = instantiate(RISModule, section)  # type: ignore[type-abstract]
    model.load_state_dict(state)
    return model.eval()


def on_meta(section: dict[str, Any], **over: Any) -> RISModule:
    """The model of a section, of any size, without values; `over` is merged into its options."""
    with torch.device("meta"):
        return instantiate(RISModule, recipes.merge(section, {"init_args": over}))  # type: ignore[type-abstract]


def make_batch(images: Tensor, tokens: Tokens, image_index: list[int], masks: Tensor | None = None) -> Batch:
    """Sentences, given as tokens, about images that fill the frame."""
    size = images.shape[2], images.shape[3]
    samples = [Sample(str(i), i, "own", "own", f"image{image}", "", "") for i, image in enumerate(image_index)]
    return Batch(
        images=images,
        valid=torch.tensor([[0, 0, *size]] * len(images)),
        image_ids=[f"image{i}" for i in range(len(images))],
        geometry=[Geometry.fit("squeeze", size, size)] * len(images),
        texts=[""] * len(image_index),
        image_index=torch.tensor(image_index),
        samples=samples,
        no_target=torch.zeros(len(image_index), dtype=torch.bool),
        masks=masks,
        tokens=tokens,
    )


def full_size(keys: str) -> dict[str, State]:
    """The state dicts of an official file of full size without values, by container, from its list of keys."""
    content: dict[str, State] = {}
    with (FIXTURES / f"{keys}.csv").open() as listed:
        for row in csv.DictReader(listed):
            shape = [int(side) for side in row["shape"].split("x") if side != "scalar"]
            tensor = torch.empty(shape, dtype=getattr(torch, row["dtype"]), device="meta")
            content.setdefault(row.get("container", "state_dict"), {})[row["key"]] = tensor
    return content


@contextmanager
def outputs_of(modules: dict[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """A dictionary that receives each module's last output, under the given names, while the context is open."""
    caught: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: caught.update({name: output}))
        for name, module in modules.items()
    ]
    yield caught
    for handle in handles:
        handle.remove()


def assert_gradients_agree(
    model: RISModule, expected: State, names: Names, tolerances: dict[str, float] | None = None
) -> None:
    """Compare gradients by official name, relative to their norm: by 1e-5, or by a tolerance of their own."""
    for name, gradient in expected.items():
        found = model.get_parameter(str(names.new_name(name))).grad
        assert found is not None, name
        tolerance = (tolerances or {}).get(name, 1e-5)
        assert (found.view_as(gradient) - gradient).norm() <= tolerance * gradient.norm(), name
