"""`riszoo speed MODEL`: latency and training throughput on this device, with random weights and images.

`riszoo speed --paired A B`: two models measured in turns, and their ratio. A and B are what `riszoo speed` takes for
one model, in quotes: a recipe's name and the options in which it differs, such as 'vipa --model.fusion.kind late'.
"""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from riszoo import recipes
from riszoo.cli.limits import check_options, check_values, settings
from riszoo.cli.parser import CommandParser
from riszoo.cli.startup import fast_imports
from riszoo.errors import UserError

if TYPE_CHECKING:
    import torch

    from riszoo.bench.paired import Side

PARTS = ("model", "encoders", "vision")
STEPS = ("forward", "training")
PRECISIONS = ("32-true", "bf16-mixed")
ONLY_PAIRED = ("part", "sentences", "steps")
SHARED = ("--device", "--out", "--repeats", "--steps")
"""Options of a paired measurement that both sides share."""


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo speed", description=__doc__)
    parser.add_argument("model", nargs="?", help="a recipe's name")
    parser.add_argument("--data", default="scenes", help="the data set it is sized for")
    parser.add_argument("--scale", help="tiny, paper, ...; the data set's own when left out")
    parser.add_argument("--device", help="cpu or cuda; the accelerator where there is one")
    parser.add_argument("--threads", type=int, help="threads of the CPU; torch's default when left out")
    parser.add_argument("--batch", type=int, help="sentences of a training step; the recipe's when left out")
    parser.add_argument("--precision", choices=PRECISIONS, default="32-true", help="as that of the trainer")
    parser.add_argument("--compile", action="store_true", help="compile each repeated block of the model")
    parser.add_argument("--repeats", type=int, default=15, help="measurements, or turns; the median counts")
    parser.add_argument("--over", default="{}", help="changes to the recipe, as JSON; or --model.width 256")
    parser.add_argument("--out", type=Path, help="a JSON file for the row")
    pair = parser.add_argument_group("two models in turns")
    pair.add_argument("--paired", nargs=2, metavar=("A", "B"), help="both models, each in quotes with its options")
    pair.add_argument("--part", choices=PARTS, help="the model, its two encoders, or its vision encoder alone")
    pair.add_argument("--sentences", type=int, help="sentences about the image of a forward pass; default: 1")
    pair.add_argument("--steps", help="forward, training or both, comma-separated; default: both")
    return parser


def main(argv: list[str]) -> int:
    args = arguments(argv)
    if args.paired:
        result: Any = _compare(args, argv)
    else:
        result = _measure_one(args) | {"command": "riszoo speed " + shlex.join(argv)}
        for name, value in result.items():
            print(f"  {name:<26}{value:,.2f}" if isinstance(value, float) else f"  {name:<26}{value}")
    if args.out:
        from riszoo.files import write_atomically

        write_atomically(args.out, json.dumps(result, indent=1) + "\n")
    return 0


def arguments(argv: list[str]) -> Namespace:
    """The arguments of a command line, checked; `over` is the mapping of all changes to the recipe."""
    words, changes = split_changes(argv)
    args = parser().parse_args(words)
    for name in ("repeats", "batch", "threads", "sentences"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: give at least 1")
    if args.paired and args.model:
        raise UserError(f"--paired names both models: leave '{args.model}' out")
    if not args.paired and not args.model:
        raise UserError("name a model: riszoo speed MODEL, or riszoo speed --paired A B")
    for step in args.steps.split(",") if args.steps else ():
        if step not in STEPS:
            raise UserError(f"--steps {args.steps}: give {' or '.join(STEPS)}, or both with a comma")
    args.over = recipes.merge(_overrides(args.over), changes)
    if args.out is not None and (args.out.is_dir() or not args.out.absolute().parent.is_dir()):
        raise UserError(f"--out {args.out} cannot be written: give a file in a folder that exists")
    return args


def split_changes(argv: list[str]) -> tuple[list[str], recipes.Config]:
    """The words that the parser takes, and the changes that options such as `--model.fusion.kind late` stand for."""
    rest: list[str] = []
    changes: recipes.Config = {}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        section, _, option = name.removeprefix("--").partition(".")
        if section not in ("model", "data") or not option or not name.startswith("--"):
            rest.append(word)
            continue
        text = value if equals else next(words, None)
        if text is None:
            raise UserError(f"option {name} needs a value")
        change: Any = _value(name, text)
        for key in reversed([section, "init_args", *option.split(".")]):
            change = {key: change}
        changes = recipes.merge(changes, change)
    return rest, changes


def _value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{name} {text[:60]} is not a YAML value: give a number, a name or a list") from None


def _overrides(text: str) -> recipes.Config:
    try:
        changes = json.loads(text)
    except (ValueError, RecursionError):
        changes = None
    if not isinstance(changes, dict):
        raise UserError(f"--over {text[:60]} is not a JSON mapping: give changes such as '{{\"trainer\": {{}}}}'")
    return changes


def _scale(args: Namespace) -> str:
    """The scale of the model, whose recipe the changes must fit."""
    scale = recipes.checked_scale(args.model, args.data, args.scale or recipes.default_scale(args.data))
    check_values(args.data, [args.over], [])
    changed = [f"--{name}" for name, _ in settings([args.over], [])]
    check_options([recipes.resolve(args.model, args.data, scale), args.over], changed)
    return scale


def _device(name: str | None) -> torch.device:
    import torch

    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name is None else name)
    except RuntimeError:
        raise UserError(f"--device '{name}' is not a device: give cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name} is not measured: give cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no CUDA device is available; give cpu")
    return device


def circumstances_of(device: torch.device) -> dict[str, Any]:
    """Commit, versions and device of a measurement."""
    from riszoo.training.provenance import circumstances

    facts = circumstances(device)
    versions = " ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return {**facts, "versions": versions}


def _measure_one(args: Namespace) -> dict[str, Any]:
    for name in ONLY_PAIRED:
        if getattr(args, name) is not None:
            raise UserError(f"--{name} is an option of 'riszoo speed --paired A B'")
    scale = _scale(args)
    with fast_imports():
        import torch

        from riszoo.bench.cost import build, speed, step_plan
        from riszoo.blocks import compile_blocks
        from riszoo.training.machine import keep_memory

    keep_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = _device(args.device)
    model, _, config = build(args.model, args.data, scale, args.over)
    if args.compile:
        compile_blocks(model, device.type)
    names = {"model": args.model, "data": args.data, "scale": scale, "variant": variant(args.precision, args.compile)}
    measured = speed(model, step_plan(config, args.batch), device, args.repeats, args.precision)
    return names | measured | circumstances_of(device) | {"precision": args.precision}


def variant(precision: str, compiled: bool) -> str:
    """What distinguishes a measurement of a recipe from that in full precision without torch.compile, in speed.csv."""
    return "/".join([precision] * (precision != PRECISIONS[0]) + ["compiled"] * compiled)


def _compare(args: Namespace, argv: list[str]) -> dict[str, Any]:
    sides = [read_side(text, shared_words(argv)) for text in args.paired]
    with fast_imports():
        from riszoo.bench import paired
    device = _device(args.device)
    first, second = (_as_side(side, device) for side in sides)
    wanted = args.steps.split(",") if args.steps else STEPS
    steps = [step for step in STEPS if step in wanted]  # forward first: peaks of memory only grow
    rows = paired.compare(first, second, steps, args.repeats)
    print(paired.table(first, second, rows))
    titles = {"a": first.title, "b": second.title, "steps": rows}
    return titles | circumstances_of(device) | {"command": "riszoo speed " + shlex.join(argv)}


def shared_words(argv: list[str]) -> list[str]:
    """The command line without --paired and its two values: the options that both sides share."""
    at = argv.index("--paired")
    return argv[:at] + argv[at + 3 :]


def read_side(text: str, shared: list[str]) -> Namespace:
    """The arguments of one side: the shared options, then its own words."""
    try:
        own = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--paired {text[:60]}: {error}") from None
    if not own or own[0].startswith("-"):
        raise UserError(f"--paired '{text[:60]}': name a model first, then the options in which it differs")
    for option in SHARED:
        if any(word.partition("=")[0] == option for word in own):
            raise UserError(f"--paired '{text[:60]}': {option} is of both sides; give it after the two models")
    side = arguments([*shared, *own])
    side.over = recipes.merge(arguments([*shared, own[0]]).over, side.over)
    side.scale = _scale(side)
    return side


def _as_side(args: Namespace, device: torch.device) -> Side:
    from riszoo.bench.paired import Side

    options = {name: getattr(args, name) for name in ("part", "sentences") if getattr(args, name) is not None}
    return Side(
        args.model, args.data, args.scale, json.dumps(args.over), device=str(device),
        batch=args.batch, threads=args.threads, precision=args.precision, compiled=args.compile, **options,
    )  # fmt: skip
