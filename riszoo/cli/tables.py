"""`riszoo tables`: generate the tables and plots of benchmarks/ from its CSV files."""

from __future__ import annotations

from pathlib import Path

from riszoo.bench.plots import write_plots
from riszoo.bench.tables import render_pages
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError


def main(argv: list[str]) -> int:
    parser = CommandParser(prog="riszoo tables", description=__doc__)
    parser.add_argument("--out", default="benchmarks", help="the folder of the CSV files")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table or plot is stale")
    args = parser.parse_args(argv)
    folder = Path(args.out)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give --out the folder that contains accuracy.csv")
    changed = [*render_pages(folder, write=not args.check), *write_plots(folder, write=not args.check)]
    for page in changed:
        print(f"{page}: {'stale, run riszoo tables' if args.check else 'written'}")
    return 1 if args.check and changed else 0
