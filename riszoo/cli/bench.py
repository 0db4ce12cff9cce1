"""`riszoo bench`: train and test every recipe, one process each, and update the tables.

After an interruption the same command continues."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riszoo.bench import plan
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.files import check_writable

if TYPE_CHECKING:
    from riszoo.bench.plan import Job
    from riszoo.bench.runner import Bench


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        raise UserError("'riszoo bench' is one process that starts the others: run it once, with --launch srun")
    for name in ("budget", "devices", "nodes", "seeds", "repeats", "parallel"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: give at least 1")
    if options.launcher and (options.launch or options.nodes):
        other = "--launch" if options.launch else "--nodes"
        raise UserError(f"--launcher submitit runs each job on the devices of one node: leave {other} out")
    if options.slurm and not options.launcher:
        raise UserError("--slurm has the options of an array: add --launcher submitit")
    for name in ("root", "out"):
        path = Path(getattr(options, name))
        if path.exists() and not path.is_dir():
            raise UserError(f"--{name} {path} is not a folder: give another")
    if options.report:
        check_writable(Path(options.report), "--report")
    return measure_published(options) if options.published else measure_models(options)


def measure_models(options: Any) -> int:
    """Trains and tests the recipes."""
    jobs = plan.make_jobs(options)
    if skipped := plan.skipped_models(options, jobs):
        print(f"skipped, no scale '{jobs[0].scale}' in their recipes: {', '.join(skipped)}")
    launch = launch_words(options)
    from riszoo.bench.runner import Bench

    parallel = jobs_at_a_time(options, jobs)
    bench = Bench(jobs, Path(options.root), Path(options.out), launch, options.repeats, parallel=parallel)
    if options.dry_run:
        print(plan.describe(jobs, bench.rates()))
        return 0
    return finish(options, bench)


def measure_published(options: Any) -> int:
    """Tests the checkpoints of models' authors that a folder contains; says which are missing."""
    plan.check_options(options)
    from riszoo.bench.published import make_plan
    from riszoo.bench.runner import Bench

    found = make_plan(options)
    print(found.describe())
    if options.dry_run or not found.jobs:
        return 0
    launch = launch_words(options)
    parallel = jobs_at_a_time(options, found.jobs)
    bench = Bench(found.jobs, Path(options.root), Path(options.out), launch, speeds=False, parallel=parallel)
    return finish(options, bench)


def jobs_at_a_time(options: Any, jobs: Sequence[Job]) -> int:
    """`--parallel`; by default a job for each processor, where no job needs the whole machine."""
    from riszoo.training.machine import has_accelerator, processors

    spread = options.devices or options.nodes or options.launch or options.launcher
    whole = spread or any(job.scale == "paper" for job in jobs) or has_accelerator()
    return options.parallel or (1 if whole else max(1, min(processors(), len(jobs))))


def launch_words(options: Any) -> list[str]:
    """The command that starts each process of a job."""
    try:
        words = shlex.split(options.launch)
    except ValueError as error:
        raise UserError(f"--launch {options.launch[:60]} is not a command line: {str(error).lower()}") from None
    if options.launcher:
        from riszoo.bench.array import OUTSIDE_SRUN, parameters

        parameters(options.slurm)
        return OUTSIDE_SRUN
    return words


def finish(options: Any, bench: Bench) -> int:
    """Runs a bench and updates tables, leaderboard and report."""
    from riszoo.bench import array
    from riszoo.bench.rows import ACCURACY

    failures = array.run(bench, options.slurm) if options.launcher else bench.run()
    for failure in failures:
        print(f"riszoo: {failure}", file=sys.stderr)
    if not ACCURACY.read(Path(options.out)):
        return 1
    write_tables(Path(options.out), options.data)
    report = str(Path(options.root) / "report.html") if options.report is None else options.report
    if report:
        from riszoo.bench.html.leaderboard import write_leaderboard

        write_leaderboard(Path(options.out), Path(report).with_name("leaderboard.html"))
    if report and bench.tests:
        from riszoo.bench.html.report import write_report

        write_report(list(bench.tests.values()), Path(report))
    return 1 if failures else 0


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo bench", description=__doc__, may_be_empty=("--report", "--launch", "--slurm"))
    parser.add_argument("--models", help="comma-separated recipes, or all that have the scale: the default")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--scale", help="tiny, paper, ...; default: that of the data set")
    parser.add_argument("--controlled", action="store_true", help="the scale that gives all models the same encoders")
    parser.add_argument(
        "--ablation", help="NAME or NAME/TABLE: the rows of configs/ablations/NAME.yaml instead of plain models"
    )
    parser.add_argument("--splits", help="comma-separated; default: those of the data set")
    parser.add_argument("--seeds", type=int, default=1, help="number of trainings of each model, with seeds 0, 1, ...")
    parser.add_argument("--protocol", help="comma-separated; default: original, at the paper scale original,published")
    parser.add_argument(
        "--controls",
        help="comma-separated replacements of the sentences; default: none,shuffled,blank, of published files none",
    )
    parser.add_argument("--checkpoints", type=Path, help="YAML of `model: file.ckpt`: these are tested, not trained")
    parser.add_argument(
        "--published", help="folder of checkpoints of the models' authors: those listed in published.yaml are tested"
    )
    parser.add_argument("--budget", type=int, help="training sentences, instead of the recipe's length")
    parser.add_argument("--devices", type=int, help="devices of each training and test, on each node")
    parser.add_argument("--nodes", type=int, help="nodes of each training and test")
    parser.add_argument(
        "--launch", default="", help="command that starts each process, such as 'srun' or 'torchrun ...'"
    )
    parser.add_argument("--launcher", choices=("submitit",), help="send the jobs to SLURM as one array")
    parser.add_argument(
        "--slurm", default="", help="options of the array, such as 'partition=gpu timeout_min=600 cpus_per_task=8'"
    )
    parser.add_argument(
        "--parallel",
        type=int,
        help="trainings and tests at a time; default: one, but below the paper scale on a CPU one for each processor",
    )
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each latency")
    parser.add_argument("--root", default="runs/bench", help="folder of the runs")
    parser.add_argument("--out", default="benchmarks", help="folder of the CSV files and tables")
    parser.add_argument("--report", help="the HTML report; default: report.html in --root, '' for none")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its estimated cost")
    return parser


def write_tables(folder: Path, data: str) -> None:
    """Updates the tables and plots from the CSV files, and prints that of each data set of what was trained on one."""
    from riszoo.bench.plots import write_plots
    from riszoo.bench.tables.pages import render_pages, table
    from riszoo.bench.tables.results import Results

    for path in render_pages(folder) + write_plots(folder):
        print(f"written: {path}")
    results = Results.read(folder)
    for name in sorted({row["data"] for row in results.accuracy if row["trained"] == data}) or [data]:
        print(table(results, name))
