"""`riszoo tables`: draw the tables and plots of benchmarks/ again from its CSV files."""

from __future__ import annotations

from pathlib import Path

from riszoo.bench.tables import render_pages
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError


def main(argv: list[str]) -> int:
    parser = CommandParser(prog="riszoo tables", description=__doc__)
    parser.add_argument("--out", default="benchmarks", help="the folder of the CSV files")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is stale")
    args = parser.parse_args(argv)
    folder = Path(args.out)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the one with accuracy.csv by --out")
    from riszoo.bench.plots import write_plots

    changed = [*render_pages(folder, write=not args.check), *write_plots(folder, write=not args.check)]
    for page in changed:
        print(f"{page}: {'stale, run riszoo tables' if args.check else 'drawn'}")
    return 1 if args.check and changed else 0
