"""`riszoo export`: a trained model as two graphs that run without riszoo, with tokenizer and runner."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.cli.request import check_model
from riszoo.cli.startup import fast_imports
from riszoo.errors import UserError
from riszoo.training import runs

if TYPE_CHECKING:
    from argparse import Namespace

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch_export": ()}
"""What each format needs besides riszoo's own requirements."""


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo export", description=__doc__)
    parser.add_argument("--model", required=True, help="a recipe's name, or your own class")
    parser.add_argument("--format", choices=PACKAGES, default="onnx", help="of the graphs; default: onnx")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--int8", action="store_true", help="ONNX: also graphs with 8-bit weights, and their loss")
    parser.add_argument("--ckpt_path", metavar="FILE", help="default: the best of the newest run, then the shipped")
    parser.add_argument("--data", default="scenes", help="the data set of that run")
    parser.add_argument("--run.root", dest="root", default="runs", help="the folder of that run")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    _check(args)
    with fast_imports():
        from riszoo.inference.export.folder import export
        from riszoo.inference.export.formats import FORMATS
        from riszoo.inference.predictor import load

    predictor = load(args.model, args.ckpt_path, data=args.data, root=args.root, device="cpu")
    description = export(predictor.model, args.out, FORMATS[args.format], int8=args.int8, about={"model": args.model})
    _report(description, args.out)
    return 0


def _check(args: Namespace) -> None:
    """Report wrong options before anything heavy is imported."""
    check_model(args.model)
    recipes.get("data", args.data)
    if args.out.exists():
        raise UserError(f"--out {args.out} exists already: choose a new folder")
    if args.int8 and args.format != "onnx":
        raise UserError(f"--int8 needs --format onnx, not {args.format}")
    runs.chosen(args.ckpt_path, Path(args.root), args.model, args.data)
    missing = [name for name in PACKAGES[args.format] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format {args.format} needs {', '.join(missing)}: pip install 'riszoo[export]'")


def _report(description: dict[str, Any], out: Path) -> None:
    files = sorted(out.iterdir())
    for file in files:
        print(f"{file}: {file.stat().st_size:,} bytes")
    parity = description["parity"]
    print(f"largest difference from the model's logits: {parity['largest_difference']:.2g} of {parity['tolerance']:g}")
    if "int8" in description:
        loss = description["int8"]
        before, after = loss["mIoU"]["float32"], loss["mIoU"]["int8"]
        print(f"8-bit weights: mIoU {before:.2f} -> {after:.2f} on {loss['sentences']} sentences of {loss['data']}")
