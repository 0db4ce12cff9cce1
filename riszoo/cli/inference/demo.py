"""`riszoo demo`: a page in the browser on which models segment an image by sentences, side by side."""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path

from riszoo import recipes, shipped
from riszoo.cli.parser import CommandParser
from riszoo.cli.startup import fast_imports
from riszoo.errors import UserError
from riszoo.training import runs

LOCAL = ("127.0.0.1", "localhost", "::1")


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo demo", description=__doc__)
    parser.add_argument("--model", nargs="+", metavar="NAME", help="recipes; default: those whose weights are shipped")
    parser.add_argument("--data", default="scenes", help="the data set of their runs")
    parser.add_argument("--run.root", dest="root", default="runs", help="the folder of their runs")
    parser.add_argument("--ckpt_path", metavar="FILE", help="the checkpoint of the only model, or `shipped`")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens the page to the network; default: this host")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--queue", type=int, default=16, help="requests that wait, before others are refused")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where one is available")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    names = _checked(args)
    with fast_imports():
        from riszoo.inference.demo.page import page, start
        from riszoo.inference.demo.service import Service
        from riszoo.inference.predictor import load

    models = {name: load(name, args.ckpt_path, data=args.data, root=args.root, device=args.device) for name in names}
    blocks = page(Service(models))
    address = start(blocks, args.host, args.port, args.queue)
    if args.host not in LOCAL:
        print(f"riszoo: everybody who reaches {args.host} can use this page, without a password", file=sys.stderr)
    print(f"riszoo demo: {', '.join(models)} at {address} (Ctrl-C ends it)", flush=True)
    blocks.block_thread()
    return 0


def _checked(args: Namespace) -> list[str]:
    """The names of the models; every option is checked before anything heavy is imported."""
    names = list(dict.fromkeys(args.model or shipped.files()))
    if not names:
        raise UserError("no weights are shipped: name a model that you have trained with --model NAME")
    recipes.get("data", args.data)
    for name in names:
        recipes.get("models", name)
        runs.chosen(args.ckpt_path, Path(args.root), name, args.data)
    if args.ckpt_path not in (None, "shipped") and len(names) > 1:
        raise UserError(f"--ckpt_path {args.ckpt_path} belongs to one model: name only that one with --model")
    if args.port is not None and not 1 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: give a number from 1 to 65535")
    if args.queue < 1:
        raise UserError(f"--queue {args.queue}: give at least 1")
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs gradio: pip install 'riszoo[demo]'")
    return names
