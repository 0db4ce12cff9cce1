"""`riszoo score PREDICTIONS`: metrics of masks that any other code predicted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from riszoo import recipes
from riszoo.cli.data import load_data
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.metrics.protocols import get_protocols


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo score", description=__doc__)
    parser.add_argument("predictions", nargs="?", type=Path, help="a folder of <sentence id>.png, or a JSON of RLEs")
    parser.add_argument("--predictions", dest="named", type=Path, metavar="PATH", help="the same, by name")
    parser.add_argument("--data", default="scenes", help="a data set's recipe")
    parser.add_argument("--root", help="the folder of the data set")
    parser.add_argument("--split", default="val")
    parser.add_argument("--protocol", default="original", help="one or several, separated by commas")
    parser.add_argument("--out", type=Path, help="the folder for the result; default: beside the predictions")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`riszoo score PREDICTIONS --data refcoco --split testA`"""
    options = parser().parse_args(argv)
    if options.named and options.predictions:
        raise UserError(f"--predictions {options.named} and {options.predictions} are both given: leave one out")
    path: Path | None = options.named or options.predictions
    if path is None:
        raise UserError("name the masks to score: riszoo score PREDICTIONS, a folder of PNGs or a JSON file of RLEs")
    protocols = get_protocols(options.protocol)
    recipes.check_splits(options.data, [options.split])
    from riszoo.metrics.console import render
    from riszoo.metrics.external import check_ids, read_predictions, score
    from riszoo.metrics.results import check_replaces, write_results

    source = path.resolve()
    out = options.out or source.with_name(f"{source.name if source.is_dir() else source.stem}-score")
    check_replaces(out, options.split, source)
    split = load_data(options.data, options.root).split(options.split)
    predictions = read_predictions(path)
    check_ids(predictions, split, path)
    scored = score(predictions, split, protocols)
    scored.check_any(path)
    circumstances = {
        "command": shlex.join(["riszoo", "score", *(argv or [])]),
        "predictions": str(source),
        "data": options.data,
        "root": None if options.root is None else str(Path(options.root).expanduser().resolve()),
        **scored.problem_counts(),
    }
    metrics = write_results(out, {split.name: scored.evaluation}, circumstances)
    print("\n".join([*scored.warnings(), render(metrics), f"results: {out}"]))
    return 0
