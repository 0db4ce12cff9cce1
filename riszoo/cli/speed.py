"""`riszoo speed MODEL`: latency and training throughput on this device, with random weights and images."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError

if TYPE_CHECKING:
    import torch


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo speed", description=__doc__)
    parser.add_argument("model", help="a recipe's name")
    parser.add_argument("--data", default="scenes", help="the data set it is sized for")
    parser.add_argument("--scale", help="tiny, paper, ...; the data set's own when left out")
    parser.add_argument("--device", help="cpu or cuda; the accelerator where there is one")
    parser.add_argument("--batch", type=int, help="sentences of a training step; the recipe's when left out")
    parser.add_argument("--repeats", type=int, default=15, help="measurements of a latency; the median counts")
    parser.add_argument("--over", default="{}", help="changes to the recipe, as JSON")
    parser.add_argument("--out", type=Path, help="a JSON file for the row")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    for name in ("repeats", "batch"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: give at least 1")
    scale = recipes.checked_scale(args.model, args.data, args.scale or recipes.default_scale(args.data))
    args.over = _overrides(args.over)
    row = {"model": args.model, "data": args.data, "scale": scale} | _measure(args, scale)
    row["command"] = "riszoo speed " + shlex.join(argv)
    for name, value in row.items():
        print(f"  {name:<26}{value:,.2f}" if isinstance(value, float) else f"  {name:<26}{value}")
    if args.out:
        from riszoo.files import write_atomically

        write_atomically(args.out, json.dumps(row, indent=1) + "\n")
    return 0


def _overrides(text: str) -> recipes.Config:
    try:
        changes = json.loads(text)
    except (ValueError, RecursionError):
        changes = None
    if not isinstance(changes, dict):
        raise UserError(f"--over {text[:60]} is not a JSON mapping: give changes such as '{{\"trainer\": {{}}}}'")
    return changes


def _device(name: str | None) -> torch.device:
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UserError(f"--device {name} is not a device: give cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no CUDA device is available; give cpu")
    return device


def _measure(args: Any, scale: str) -> dict[str, Any]:
    import torch

    from riszoo.bench.cost import build, speed
    from riszoo.data.samplers import StepPlan
    from riszoo.training.provenance import circumstances

    torch.manual_seed(0)
    device = _device(args.device)
    model, _, config = build(args.model, args.data, scale, args.over)
    options = config["data"]["init_args"]
    sentences = args.batch or options.get("batch_size", 32)
    plan = StepPlan.of(sentences, sentences, options.get("sentences_per_image", 1), 1)
    facts = circumstances(device)
    versions = " ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return speed(model, plan, device, args.repeats) | {**facts, "versions": versions, "precision": "32-true"}
