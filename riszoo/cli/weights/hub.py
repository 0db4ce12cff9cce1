"""`riszoo hub push|pull`: trained models as repositories of the Hugging Face Hub, or as folders of the same form."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.cli.request import check_model
from riszoo.errors import UserError
from riszoo.inference.hub.fetch import is_address, parse
from riszoo.training import runs

if TYPE_CHECKING:
    from argparse import Namespace


EXAMPLES = {"model": "--model lts", "license": "--license apache-2.0"}
"""Options that `push` needs, with an example."""
ONLY_PUSH = {"license": "--license", "dataset": "--dataset", "private": "--private", "ckpt_path": "--ckpt_path"}
ONLY_PUSH |= {"data": "--data", "root": "--run.root"}
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo hub", description=__doc__)
    parser.add_argument("action", choices=["push", "pull"], help="write a repository, or copy one to a folder")
    parser.add_argument("place", help="hf://user/repository[@revision]; push: or a new folder")
    parser.add_argument("--model", help="a recipe's name, or your own class; pull: only for your own")
    parser.add_argument("--license", help="push: of the weights, such as apache-2.0")
    parser.add_argument("--dataset", help="push: the data set's repository on the Hub, for results in the Hub's form")
    parser.add_argument("--private", action="store_true", help="push: a new repository is private")
    parser.add_argument("--ckpt_path", metavar="FILE", help="push: default: the best of the newest run, or the shipped")
    parser.add_argument("--data", default="scenes", help="push: the data set of that run")
    parser.add_argument("--run.root", dest="root", default="runs", help="push: the folder of that run")
    parser.add_argument("--out", type=Path, help="pull: a new folder; default: the repository's name")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.action == "push":
        _check_push(args)
        _push(args)
    else:
        _pull(args)
    return 0


def _check_push(args: Namespace) -> None:
    for option, example in EXAMPLES.items():
        if getattr(args, option) is None:
            raise UserError(f"`riszoo hub push` needs --{option}, such as {example}")
    check_model(args.model)
    recipes.get("data", args.data)
    if not LICENSE.fullmatch(args.license):
        raise UserError(f"--license {args.license:.60} is not the Hub's name of a license: give one such as apache-2.0")
    if args.dataset is not None:
        parse(args.dataset)
    if args.out is not None:
        raise UserError("--out is an option of `riszoo hub pull`: give `push` the folder itself")
    if args.private and not is_address(args.place):
        raise UserError(
            f"--private is for a repository of the Hub: leave it out, or give hf://user/repository, not {args.place}"
        )


def _push(args: Namespace) -> None:
    """Write a folder; for an address, a temporary one that is sent to the Hub."""
    from riszoo.inference.hub.repository import CardOptions, upload, write_repository

    checkpoint = runs.chosen(args.ckpt_path, Path(args.root), args.model, args.data)
    if not is_address(args.place):
        write_repository(checkpoint, Path(args.place), CardOptions(args.license, dataset=args.dataset), args.model)
        print(f"{args.place}: the repository of {checkpoint}")
        return
    address = parse(args.place)
    card = CardOptions(args.license, f"hf://{address.repository}", args.dataset)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "repository"
        write_repository(checkpoint, folder, card, args.model)
        print(f"{address}: {upload(folder, address, checkpoint, private=args.private)}")


def _pull(args: Namespace) -> None:
    defaults = parser()
    for name, option in ONLY_PUSH.items():
        if getattr(args, name) != defaults.get_default(name):
            raise UserError(f"{option} is an option of `riszoo hub push`: leave it out")
    if args.model is not None:
        check_model(args.model)
    address = parse(args.place)
    out: Path = args.out or Path(address.repository.rpartition("/")[2])
    if out.exists():
        raise UserError(f"--out {out} exists already: choose a new folder")
    from riszoo.inference.hub.repository import pull

    pull(address, out, args.model or "")
    print(f"{out}: {address}, whose tensors are those of its config.json")
