"""`riszoo info MODEL`: a recipe's size and cost, and the choices that its paper leaves open.

`riszoo info FILE`: what a file or a repository of weights is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.cli.startup import fast_imports
from riszoo.errors import without_controls
from riszoo.inference.hub.fetch import is_address
from riszoo.training import runs

if TYPE_CHECKING:
    from riszoo.model import RISModule


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo info", description=__doc__)
    parser.add_argument(
        "model", help="a recipe's name, a file of weights, or a repository: a folder or hf://user/repository"
    )
    parser.add_argument("--data", default="scenes", help="the data set it is sized for")
    parser.add_argument("--scale", help="tiny, paper, ...; the data set's own when left out")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if _names_weights(args.model):
        path = runs.existing(args.model, None)
        from riszoo.cli.weights.describe import described

        print("\n".join(map(without_controls, described(path))))
        return 0
    recipe = recipes.get("models", args.model)
    scale = recipes.checked_scale(args.model, args.data, args.scale or recipes.default_scale(args.data))
    with fast_imports():
        from riszoo.bench.cost import skeleton
    model = skeleton(args.model, args.data, scale)
    print(f"{recipe.name}: {recipe.title}")
    print(
        f"  reference {recipe.content.get('reference', '-')}, specification {recipe.content.get('specification', '-')}"
    )
    known = ", ".join(recipes.scales(args.model, args.data))
    print(f"  scale {scale} (of {known}), {model.size[0]} x {model.size[1]}, {model.geometry}")
    given = recipes.resolve(args.model, args.data, scale)["model"]["init_args"]
    print(f"  vision {given['vision']['name']}, text {given['text']['name']}")
    _print_parameters(model)
    _print_costs(model)
    print("  assumed where the paper is silent:")
    assumed = recipe.content.get("assumed", {})
    width = max(map(len, assumed), default=0)
    for option, reason in assumed.items():
        print(f"    {option:<{width}}  {reason}")
    return 0


def _names_weights(word: str) -> bool:
    """Whether the word is an address or a path, which need not exist, and not the name of a recipe."""
    if is_address(word):
        return True
    return word not in recipes.names("models") and (Path(word).exists() or Path(word).name != word or "." in word)


def _print_parameters(model: RISModule) -> None:
    from riszoo.bench.cost import parameters

    total, learned = parameters(model)
    print(f"  parameters {total:,}, trained {learned:,}")
    for name, part in model.parts().items():
        total, learned = parameters(part)
        if total:
            print(f"    {name:<20}{total:>14,}" + ("" if learned == total else f"  ({learned:,} trained)"))


def _print_costs(model: RISModule) -> None:
    from riszoo.bench.cost import activation_memory, gflops

    for sentences in (1, 7):
        print(f"  forward, 1 image and {sentences} sentence(s): {gflops(model, sentences):.2f} GFLOP")
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    print(
        f"  memory: weights {weights:,.0f} MiB, activations of one sample, "
        f"attention weights included, {activation_memory(model):,.0f} MiB"
    )
