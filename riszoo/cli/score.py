"""`riszoo score PREDICTIONS`: metrics of masks that any other code produced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from riszoo.cli.data import opened
from riszoo.cli.parser import CommandParser
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.metrics import score_boxes
from riszoo.metrics.console import render
from riszoo.metrics.external import score
from riszoo.metrics.external_files import MaskPrediction, are_boxes, read_predictions
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.metrics.results import write_results


def main(argv: Sequence[str] | None = None) -> int:
    """`riszoo score PREDICTIONS --data refcoco --split testA`"""
    parser = CommandParser(prog="riszoo score", description=__doc__)
    parser.add_argument(
        "predictions", nargs="?", type=Path, help="a folder of <sentence id>.png, or a JSON of RLEs or of boxes"
    )
    parser.add_argument("--predictions", dest="named", type=Path, metavar="PATH", help="the same, by name")
    parser.add_argument("--data", default="scenes", help="a data set's recipe")
    parser.add_argument("--root", help="where the data set lies")
    parser.add_argument("--split", default="val")
    parser.add_argument("--protocol", help="of masks: one or several, with commas; original when left out")
    parser.add_argument("--out", type=Path, help="the folder for the result; beside the predictions when left out")
    options = parser.parse_args(argv)
    path: Path | None = options.named or options.predictions
    if path is None:
        raise UserError("name the masks to score: riszoo score PREDICTIONS, a folder of PNGs or a JSON file of RLEs")
    protocols = get_protocols(options.protocol or "original")

    split = opened(options.data, options.root).split(options.split)
    found, out = read_predictions(path), options.out or path.with_name(f"{path.stem}-score")
    if not are_boxes(found):
        told = _masks(found, split, protocols, path, out)
    elif options.protocol is None:
        told = score_boxes.told(found, split, path, out)
    else:
        raise UserError(f"{path} holds boxes, and '{options.protocol}' is a rule for masks: leave --protocol out")
    print("\n".join([*told, f"results: {out}"]))
    return 0


def _masks(
    found: dict[str, MaskPrediction], split: Split, protocols: Sequence[Protocol], path: Path, out: Path
) -> list[str]:
    """The result's files are written, and what there is to say."""
    scored = score(found, split, protocols)
    counts = {"missing": len(scored.missing), "misfit": len(scored.misfit), "extra": len(scored.extra)}
    metrics = write_results(out, {split.name: scored.evaluation}, {"predictions": str(path), **counts})
    return [*scored.warnings(), render(metrics)]
