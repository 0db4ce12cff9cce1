"""`riszoo report RUN...`: tests and scored masks side by side in one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.files import check_writable


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo report", description=__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="the folder of a test or of `riszoo score`, or a run's folder: its newest test, or validation",
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    parser.add_argument("--split", help="with commas; default: every split that all runs measured")
    parser.add_argument("--model", action="append", default=[], help="your own class, where runs are of no recipe")
    parser.add_argument("--count", type=int, default=24, help="about how many sentences to show, over all splits")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count {args.count}: show at least 1 sentence")
    check_writable(args.out, "--out")
    from riszoo.bench.html.report import write_report
    from riszoo.training.checkpoint_checks import check_model_class

    for model in args.model:
        check_model_class(model)

    splits = list(dict.fromkeys(args.split.split(","))) if args.split else None
    write_report(args.runs, args.out, splits, args.count)
    return 0
