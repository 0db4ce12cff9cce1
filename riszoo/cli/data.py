"""`riszoo data`: show, check, prepare, import and export data sets."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError, unknown_name, without_controls

if TYPE_CHECKING:
    from riszoo.data.datamodule import RISData


MOST_SHOWN = 500
"""Sentences of one contact sheet."""


def show_parser() -> CommandParser:
    parser = CommandParser(prog="riszoo data show", description=show.__doc__)
    parser.add_argument("data", help="a data set's recipe")
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--start", type=int, default=0, help="the first sentence shown")
    parser.add_root()
    parser.add_argument("--out", default=None, help="the PNG to write (default: <data>-<split>.png)")
    return parser


def show(argv: list[str]) -> int:
    """Write a contact sheet of a data set: images, sentences, outlines of the masks."""
    args = show_parser().parse_args(argv)
    recipes.check_splits(args.data, [args.split])
    for name, least in (("count", 1), ("start", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)}: give at least {least}")
    if args.count > MOST_SHOWN:
        raise UserError(f"--count {args.count}: give at most {MOST_SHOWN}, and --start for those that follow")
    from riszoo.inference.contact_sheet import sheet
    from riszoo.inference.drawing import save

    split = load_data(args.data, args.root).split(args.split)
    out = Path(args.out or f"{args.data}-{args.split}.png")
    save(sheet(split, args.count, args.start), out)
    shown = min(args.count, len(split.sentence_target) - args.start)
    print(f"{out}: {shown} sentences of {args.data}, {args.split}")
    return 0


def load_data(name: str, root: str | None = None) -> RISData:
    """A data set by its recipe's name, for reading only."""
    from riszoo.build import instantiate
    from riszoo.data.datamodule import RISData

    return instantiate(RISData, recipes.data_section(name, root))  # type: ignore[type-abstract]


def _parser(verb: str, description: str | None) -> CommandParser:
    parser = CommandParser(prog=f"riszoo data {verb}", description=description)
    parser.add_argument("sets", nargs="+", metavar="SET", help="refcoco, refcocog-google, phrasecut, folder, ...")
    parser.add_root()
    return parser


def _on_disk(name: str) -> str:
    """The name, unless it is of a data set that is generated or combined from others."""
    from riszoo.data.readers.catalogue import READERS

    if name not in READERS and recipes.find("data", name) is not None:
        raise UserError(f"{name} is not read from files: name one of {', '.join(READERS)}")
    return name


def check_parser() -> CommandParser:
    parser = _parser("check", check.__doc__)
    parser.add_argument("--images-folder", help="the image folder, if it is elsewhere")
    parser.add_argument("--prepared", help="the folder of prepared indices")
    parser.add_argument("--images", action="store_true", help="decode every image: damaged ones, other sizes")
    parser.add_argument("--record", metavar="ID", help="show what is filed under one id, and nothing else")
    parser.add_argument("--json", action="store_true", help="machine-readable, with every id")
    return parser


def check(argv: list[str]) -> int:
    """Report missing files and differences from the published counts; the exit code is 0 if there are none."""
    args = check_parser().parse_args(argv)
    from riszoo.data.readers.catalogue import get_reader
    from riszoo.data.readers.check import check_sets, find_record, report_lines
    from riszoo.data.readers.opening import Options

    options = Options(root=args.root, images=args.images_folder, prepared=args.prepared)
    readers = [get_reader(_on_disk(name)) for name in args.sets]
    if args.record is not None:
        found = find_record(readers, options, args.record)
        print(json.dumps(found, indent=2))
        return 0 if found else 1
    facts = check_sets(readers, options, args.images)
    print(json.dumps(facts, indent=2) if args.json else "\n".join(map(without_controls, report_lines(facts))))
    return 0 if facts["good"] else 1


def prepare_parser() -> CommandParser:
    parser = _parser("prepare", prepare.__doc__)
    parser.add_argument("--prepared", help="the folder of the indices (default: beside the annotations)")
    return parser


def prepare(argv: list[str]) -> int:
    """Read the annotations once and save them as flat arrays that every process maps. Nothing is downloaded."""
    args = prepare_parser().parse_args(argv)
    from riszoo.data.readers.catalogue import get_reader
    from riszoo.data.readers.opening import Options, prepare_indices

    options = Options(root=args.root, prepared=args.prepared)
    for reader in map(get_reader, map(_on_disk, args.sets)):
        for path in prepare_indices(reader, options):
            print(f"{reader.name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
        if images := reader.extract(options.folder()):
            print(f"{reader.name}: {images} ({sum(1 for _ in images.iterdir())} images)")
    return 0


def import_parser() -> CommandParser:
    parser = CommandParser(prog="riszoo data import", description=import_export.__doc__)
    parser.add_argument("export", type=Path, metavar="EXPORT", help="a COCO file, or a folder of labelme files")
    parser.add_argument("--images", type=Path, help="the folder of the images (default: that of the export)")
    parser.add_argument("--val", type=float, default=0.2, help="share of the images for validation (default: 0.2)")
    parser.add_argument("--labels", action="store_true", help="use the label of an object without a sentence")
    return parser


def import_export(argv: list[str]) -> int:
    """Write train.jsonl and val.jsonl, for --data folder, from an export of COCO or labelme with sentences."""
    args = import_parser().parse_args(argv)
    if not 0 < args.val < 1:
        raise UserError(f"--val {args.val:g}: give a share between 0 and 1, such as 0.2")
    from riszoo.data.readers.exports import read_export, write_splits

    export = read_export(args.export, args.images, args.labels)
    for reason, count in export.skipped.items():
        print(f"left out: {count} {reason}")
    for split, lines in write_splits(export, args.val).items():
        print(f"written: {export.root / split}.jsonl, {lines} sentences")
    print(f"check it:  riszoo data check folder --root {export.root}")
    return 0


def export_parser() -> CommandParser:
    parser = CommandParser(prog="riszoo data export", description=export.__doc__)
    parser.add_argument("data", help="a data set's recipe, such as scenes")
    parser.add_argument("--format", choices=["refer"], default="refer", help="the layout of RefCOCO (default)")
    parser.add_argument("--out", type=Path, required=True, help="the new folder")
    parser.add_argument("--splits", default="train,val,testA,testB", help="names with commas (default: RefCOCO's)")
    parser.add_argument("--images", type=int, help="images of each split (default: all)")
    parser.add_root()
    return parser


def export(argv: list[str]) -> int:
    """Write splits of a data set in REFER's layout, for repositories that read RefCOCO."""
    args = export_parser().parse_args(argv)
    names = list(dict.fromkeys(args.splits.split(",")))
    recipes.check_splits(args.data, names)
    if args.images is not None and args.images < 1:
        raise UserError(f"--images {args.images}: give at least 1")
    from riszoo.data.readers.catalogue import get_reader
    from riszoo.data.writers.refer import write_refer

    for name in names:
        if not get_reader("refcoco").has(name, name):
            raise UserError(f"--splits {name}: readers of this layout join it from other splits: give those instead")
    known: list[str] = recipes.get("data", args.data).content.get("splits") or []
    data, out = load_data(args.data, args.root), args.out.expanduser()
    written = write_refer([data.split(name) for name in names], known, out, args.images)
    for split, sentences in written.items():
        print(f"{split}: {sentences} sentences")
    print(f"look at it:  {shlex.join(['riszoo', 'data', 'show', 'refcoco', '--split', names[0], '--root', str(out)])}")
    return 0


USAGE = "usage: riszoo data show|check|prepare|import|export SET [options]"
VERBS = {"show": show, "check": check, "prepare": prepare, "import": import_export, "export": export}
PARSERS = {
    "show": show_parser,
    "check": check_parser,
    "prepare": prepare_parser,
    "import": import_parser,
    "export": export_parser,
}


def help_text() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.__doc__}" for name, verb in VERBS.items()]
    return "\n".join([USAGE, "", *lines, "", "riszoo data VERB --help lists the options of a verb."])


def main(argv: list[str]) -> int:
    if not argv:
        raise UserError("name a verb: riszoo data show|check|prepare|import|export SET")
    if argv[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if argv[0] not in VERBS:
        raise unknown_name("verb", argv[0], VERBS, of="'riszoo data'")
    return VERBS[argv[0]](argv[1:])
