"""`riszoo bench`: train and test every recipe, one process each, and keep the tables.

Interrupted, the same command continues where it stopped."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from riszoo.bench import plan
from riszoo.bench.runner import Bench
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        raise UserError("'riszoo bench' is one process that starts the others: run it once, and give it --launch srun")
    for name in ("budget", "devices", "nodes", "seeds", "repeats"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: give at least 1")
    jobs = plan.make(options)
    if without := plan.left_out(options, jobs):
        print(without)
    bench = Bench(jobs, Path(options.root), Path(options.out), shlex.split(options.launch), options.repeats)
    if options.dry_run:
        print(plan.describe(jobs, bench.rates()))
        return 0
    failed = bench.run()
    write_tables(Path(options.out), options.data)
    if options.report and bench.tests:
        from riszoo.bench.report import write_report

        write_report(list(bench.tests.values()), Path(options.report))
    for failure in failed:
        print(f"riszoo: {failure}", file=sys.stderr)
    return 1 if failed else 0


def parser() -> CommandParser:
    made = CommandParser(prog="riszoo bench", description=__doc__)
    made.add_argument("--models", help="recipes, with commas; all of the scale when left out")
    made.add_argument("--data", default="scenes")
    made.add_argument("--scale", help="tiny, paper, ...; the data set's own when left out")
    made.add_argument("--controlled", action="store_true", help="the scale that gives all models the same encoders")
    made.add_argument("--ablation", help="NAME or NAME/TABLE: rows of configs/ablations/NAME.yaml, not plain models")
    made.add_argument("--splits", help="with commas; the data set's own when left out")
    made.add_argument("--seeds", type=int, default=1, help="how many trainings of each, seeds 0, 1, ...")
    made.add_argument("--protocol", help="with commas; original, and published at the paper scale")
    made.add_argument("--controls", default="none,shuffled,blank", help="what the sentences are replaced with")
    made.add_argument("--checkpoints", type=Path, help="YAML of `model: file.ckpt`: tested instead of trained")
    made.add_argument("--budget", type=int, help="training sentences, instead of the recipe's length")
    made.add_argument("--devices", type=int, help="devices of each training and test, on each node")
    made.add_argument("--nodes", type=int, help="nodes of each training and test")
    made.add_argument("--launch", default="", help="what starts each process, such as 'srun' or 'torchrun ...'")
    made.add_argument("--repeats", type=int, default=15, help="measurements of each latency")
    made.add_argument("--root", default="runs/bench", help="where the runs are kept")
    made.add_argument("--out", default="benchmarks", help="where the CSV files and tables are kept")
    made.add_argument("--report", default="runs/bench/report.html", help="the page that is written; '' for none")
    made.add_argument("--dry-run", action="store_true", help="show the plan and what is known of its cost")
    return made


def write_tables(folder: Path, data: str) -> None:
    """The drawn tables and plots follow the CSV files; a page beside the folder that has markers follows too."""
    from riszoo.bench.plots import write_plots
    from riszoo.bench.tables import Results, render_pages

    for path in render_pages(folder) + write_plots(folder):
        print(f"written: {path}")
    print(Results.read(folder).table(data))
