"""`riszoo list`: all models, data sets, shipped weights and protocols."""

from __future__ import annotations

from riszoo import shipped
from riszoo.cli.parser import CommandParser
from riszoo.metrics.protocols import PROTOCOLS
from riszoo.recipes import listing


def parser() -> CommandParser:
    return CommandParser(prog="riszoo list", description=__doc__)


def main(argv: list[str]) -> int:
    parser().parse_args(argv)
    headings = {"models": "models (--model)", "data": "data sets (--data)"}
    seen: set[str] = set()
    for kind, recipe in listing():
        if kind not in seen:
            seen.add(kind)
            print(f"{headings[kind]}")
        scales = f"  [{', '.join(recipe.scales)}]" if recipe.scales else ""
        print(f"  {recipe.name:<18}{recipe.title}{scales}")
    print("weights that are shipped (--ckpt_path shipped)")
    for name, path in shipped.files().items():
        about = shipped.origin(path)
        print(f"  {name:<18}trained on {about.data}, {about}, {path.stat().st_size / 1e6:.1f} MB")
    print(f"protocols (--protocol)\n  {', '.join(PROTOCOLS)}, published")
    return 0
