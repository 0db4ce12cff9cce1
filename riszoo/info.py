"""`riszoo info MODEL`: what a recipe is, how large, how costly, and which of its choices are assumed."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Sample
from riszoo.build import from_recipe
from riszoo.data.module import RISData
from riszoo.errors import UserError
from riszoo.model import RISModule

RANDOM = {"model": {"init_args": {"vision": {"weights": "none"}, "text": {"weights": "none"}}}}
PLACEHOLDER = [f"word{i}" for i in range(9999)]


class OneSentence(argparse.ArgumentParser):
    """argparse whose complaint is a UserError."""

    def error(self, message: str) -> Any:
        raise UserError(f"{self.prog}: {message}")


def main(argv: list[str]) -> int:
    parser = OneSentence(prog="riszoo info", description=__doc__)
    parser.add_argument("model", help="a recipe's name")
    parser.add_argument("--data", default="scenes", help="the data set it is sized for")
    parser.add_argument("--scale", help="tiny, paper, ...; the data set's own when left out")
    args = parser.parse_args(argv)
    recipe = recipes.get("models", args.model)
    scale = args.scale or recipes.default_scale(args.data)
    model, _, config = build(args.model, args.data, scale)
    print(f"{recipe.name}: {recipe.title}")
    print(f"  reference {recipe.content.get('reference', '-')}, specification {recipe.content.get('specification', '-')}")
    print(f"  scale {scale} (of {', '.join(recipe.scales)}), {model.size[0]} x {model.size[1]}, {model.geometry}")
    given = config["model"]["init_args"]
    print(f"  vision {given['vision']['name']}, text {given['text']['name']}")
    _print_parameters(model)
    _print_costs(model)
    print("  assumed where the paper is silent:")
    for option, reason in recipe.content.get("assumed", {}).items():
        print(f"    {option:<20}{reason}")
    return 0


def build(name: str, data: str, scale: str) -> tuple[RISModule, RISData | None, recipes.Config]:
    """The recipe with random weights; a word table of 9,999 words stands in where the data set is not at hand."""
    try:
        return from_recipe(name, data, scale, RANDOM)
    except UserError:
        over = recipes.merge(RANDOM, {"model": {"init_args": {"text": {"vocabulary": PLACEHOLDER}}}})
        print(f"  ({data} is not at hand: a vocabulary of {len(PLACEHOLDER):,} words is assumed)")
        return from_recipe(name, data, scale, over)


def _print_parameters(model: RISModule) -> None:
    everything = list(model.parameters())
    trained = sum(p.numel() for p in everything if p.requires_grad)
    print(f"  parameters {sum(p.numel() for p in everything):,}, trained {trained:,}")
    for name, part in model.parts().items():
        total = sum(p.numel() for p in part.parameters())
        if total:
            learned = sum(p.numel() for p in part.parameters() if p.requires_grad)
            print(f"    {name:<20}{total:>14,}" + ("" if learned == total else f"  ({learned:,} trained)"))


def question(model: RISModule, sentences: int = 1) -> Batch:
    """One random picture of the model's frame with some sentences, for measuring."""
    geometry = Geometry.fit(model.geometry, model.size, model.size)
    texts = ["the large red circle on the left"] * sentences
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (1, 3, *model.size), dtype=torch.uint8, generator=generator),
        valid=torch.tensor([geometry.valid]),
        image_ids=["random"],
        geometry=[geometry],
        texts=texts,
        image_index=torch.zeros(sentences, dtype=torch.long),
        samples=[Sample(str(i), i, "random", "random", "random", str(i), text) for i, text in enumerate(texts)],
        no_target=torch.zeros(sentences, dtype=torch.bool),
        masks=torch.zeros(sentences, *model.size, dtype=torch.bool),
    )


def _print_costs(model: RISModule) -> None:
    model.eval()
    for sentences in (1, 7):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(question(model, sentences))
        print(f"  forward, 1 picture and {sentences} sentence(s): {counter.get_total_flops() / 1e9:.2f} GFLOP")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    print(
        f"  memory: weights {weights / 2**20:,.0f} MiB, kept for one backward pass {kept_for_backward(model):,.0f} MiB"
    )


def kept_for_backward(model: RISModule) -> float:
    """MiB of distinct storage that autograd keeps of one picture with one sentence, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = question(model)
    alive = []
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(batch)
        alive.append(model.loss(output, batch))  # storages stay alive, so their addresses stay distinct
    return sum(kept.values()) / 2**20
