"""`riszoo leaderboard`: claimed and measured results in one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo leaderboard", description=__doc__)
    parser.add_argument("--benchmarks", type=Path, default=Path("benchmarks"), help="folder of the CSV files")
    parser.add_argument("--out", type=Path, default=Path("leaderboard.html"))
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if not args.benchmarks.is_dir():
        raise UserError(f"{args.benchmarks} is not a folder: give --benchmarks the folder that contains accuracy.csv")
    from riszoo.bench.html.leaderboard import write_leaderboard

    write_leaderboard(args.benchmarks, args.out)
    return 0
