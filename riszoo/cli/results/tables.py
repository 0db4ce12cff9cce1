"""`riszoo tables`: generate tables and plots from the CSV files of benchmarks/, or print one table."""

from __future__ import annotations

from pathlib import Path

from riszoo.bench.tables.formats import FORMATS
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo tables", description=__doc__)
    parser.add_argument("--out", default="benchmarks", help="the folder of the CSV files")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table or plot is stale")
    parser.add_argument("--format", choices=FORMATS, help="print the table of --data in this format and write nothing")
    parser.add_argument(
        "--matrix", action="store_true", help="with --format: the differences between measured rows instead"
    )
    parser.add_argument(
        "--from", dest="source", metavar="DIR", type=Path,
        help="also record, in images.csv.gz, the sums of each image that the tests below this folder of runs contain",
    )  # fmt: skip
    parser.add_argument("--data", default="scenes", help="the data set of --format; default: scenes")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.matrix and not args.format:
        raise UserError("--matrix prints one matrix: give --format markdown, latex or csv with it")
    if args.source and (args.format or args.check):
        raise UserError(f"--from records sums: leave it out, or leave {'--format' if args.format else '--check'} out")
    folder = Path(args.out)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give --out the folder that contains accuracy.csv")
    from riszoo.bench.plots import write_plots
    from riszoo.bench.rows import ACCURACY, SPEED
    from riszoo.bench.tables import claims, image_sums
    from riszoo.bench.tables.data_table import formatted
    from riszoo.bench.tables.matrix import formatted_matrix
    from riszoo.bench.tables.pages import render_pages
    from riszoo.bench.tables.results import Results

    if not any((folder / file).is_file() for file in (ACCURACY.file, SPEED.file, claims.FILE)):
        raise UserError(f"{folder} has no results: give --out the folder that contains accuracy.csv")
    if args.format:
        printed = formatted_matrix if args.matrix else formatted
        print(printed(Results.read(folder), args.data, args.format), end="")
        return 0
    if args.source:
        tests = image_sums.folders_of_tests(args.source)
        print(f"{folder / image_sums.IMAGES.file}: {image_sums.record(folder, tests)} rows from {len(tests)} tests")
    changed = [*render_pages(folder, write=not args.check), *write_plots(folder, write=not args.check)]
    for page in changed:
        print(f"{page}: {'stale, run riszoo tables' if args.check else 'written'}")
    return 1 if args.check and changed else 0
