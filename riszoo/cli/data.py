"""`riszoo data`: show, check and prepare data sets."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.errors import unknown_name

if TYPE_CHECKING:
    from riszoo.data.datamodule import RISData

VERBS = {"show": None, "check": "riszoo.data.readers.check", "prepare": "riszoo.data.readers.prepare"}


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: riszoo data show|check|prepare SET [options]   (each with --help)")
        return 0 if argv else 2
    if argv[0] not in VERBS:
        raise unknown_name("verb of 'riszoo data'", argv[0], VERBS)
    module = VERBS[argv[0]]
    return show(argv[1:]) if module is None else int(importlib.import_module(module).run(argv[1:]))


def show(argv: list[str]) -> int:
    """A contact sheet of a set: image, sentence, outline of the mask."""
    parser = CommandParser(prog="riszoo data show", description=show.__doc__)
    parser.add_argument("data", help="a data set's recipe")
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--start", type=int, default=0, help="the first image shown")
    parser.add_argument("--root", help="where the data set lies")
    parser.add_argument("--out", default=None, help="the PNG to write; <data>-<split>.png when left out")
    args = parser.parse_args(argv)
    from riszoo.cli.show import sheet
    from riszoo.inference.drawing import save

    data = opened(args.data, args.root)
    out = Path(args.out or f"{args.data}-{args.split}.png")
    save(sheet(data.split(args.split), args.count, args.start), out)
    print(f"{out}: {args.count} images of {args.data}, {args.split}")
    return 0


def opened(name: str, root: str | None = None) -> RISData:
    """A data set by its recipe's name, for those who only read it."""
    from riszoo.build import instantiate
    from riszoo.data.datamodule import RISData

    source = recipes.get("data", name).content
    options = recipes.merge(source.get("common", {}).get("data", {}), {"root": root} if root else {})
    return instantiate(RISData, {"class_path": source["class_path"], "init_args": options})  # type: ignore[type-abstract]
