"""`riszoo compare RUN_A RUN_B`: differences between two evaluations of the same sentences, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from riszoo.cli.parser import CommandParser
from riszoo.metrics.protocols import get_protocols


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo compare", description=__doc__)
    parser.add_argument("run_a", type=Path, help="the folder of a test, a score or a run: its newest test")
    parser.add_argument("run_b", type=Path, help="the run to compare with it")
    parser.add_argument("--protocol", default="original")
    parser.add_argument("--split", help="default: every split of both runs")
    parser.add_argument("--by", choices=["type", "length"], help="default: type where sentences have one, else length")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`riszoo compare RUN_A RUN_B`"""
    options = parser().parse_args(argv)
    get_protocols(options.protocol)
    from riszoo.metrics.compare import compare

    print(compare(options.run_a, options.run_b, options.protocol, options.split, options.by))
    return 0
