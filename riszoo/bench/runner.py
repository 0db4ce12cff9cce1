"""`riszoo bench`: trains and tests the jobs of a plan, each step in a process of its own, and records the rows.

The same command continues an interrupted bench: a finished step is recognised by its files and not repeated, and a
training continues from its last checkpoint. A job whose recipe has changed is a new job.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from riszoo import recipes
from riszoo.bench import plan, rows
from riszoo.bench.job_folder import JobFolder
from riszoo.bench.plan import Job
from riszoo.bench.tables import image_sums
from riszoo.errors import UserError
from riszoo.training import runs
from riszoo.training.machine import processors

POLL_SECONDS = 20.0
"""How often the progress of a training is printed."""


@dataclass
class Bench:
    """Measures all speeds first, because they predict how long the rest takes, then trains and tests the jobs."""

    jobs: list[Job]
    root: Path
    out: Path
    launch: list[str]
    repeats: int = 15
    speeds: bool = True  # measure speeds too
    parallel: int = 1  # trainings and tests at a time

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.tests: dict[str, Path] = {}  # job name -> folder of its test
        self.failed: dict[str, str] = {}  # job name -> why
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def run(self) -> list[str]:
        """Runs every step; returns one line per failure. A failed job does not stop the others."""
        timed = [job for job in self.jobs if self.is_timed(job)]
        for number, job in enumerate(timed, 1):
            self._attempt(f"[speed {number}/{len(timed)}] {job.title}", self.measure_speed, job)
        steps = [(f"[{number}/{len(self.jobs)}] {job.title}", job) for number, job in enumerate(self.jobs, 1)]
        if self.parallel == 1:
            for title, job in steps:
                self._attempt(title, self.measure_accuracy, job)
        else:
            self._run_in_parallel(steps)
        self.tests = {job.name: self.tests[job.name] for job in self.jobs if job.name in self.tests}
        return [f"{job.title}: {self.failed[job.name]}" for job in self.jobs if job.name in self.failed]

    def _run_in_parallel(self, steps: Sequence[tuple[str, Job]]) -> None:
        """Trains and tests some jobs at a time, the longest first, each started and watched by a thread."""
        rates = self.rates()
        steps = sorted(steps, key=lambda step: sum(plan.estimate(step[1], rates) or [math.inf]), reverse=True)
        with ThreadPoolExecutor(self.parallel) as pool:
            attempts = [pool.submit(self._attempt, title, self.measure_accuracy, job) for title, job in steps]
            try:
                for attempt in attempts:
                    attempt.result()
            except BaseException:
                self.stopped = True
                for process in list(self.running):
                    process.terminate()
                pool.shutdown(cancel_futures=True)
                raise

    def _attempt(self, title: str, step: Callable[[Job], None], job: Job) -> None:
        """One step of a job, unless the job has failed before."""
        if job.name in self.failed:
            return
        self._print(title)
        try:
            step(job)
        except (RuntimeError, UserError) as error:
            self.failed[job.name] = str(error)
            if not self.stopped:
                self._print(f"{title}: failed, see the end")

    # -- steps --------------------------------------------------------------------------------------------------------

    def is_timed(self, job: Job) -> bool:
        """Whether the job's speed is measured: the other seeds have the same."""
        return self.speeds and job.seed == 0

    def is_finished(self, job: Job) -> bool:
        """Whether the files of all steps of a job exist."""
        folder = self.folder(job)
        run = folder.finished_run()
        checkpoint = job.checkpoint or (runs.checkpoint(run) if run else None)
        tested = checkpoint is not None and folder.test_of(checkpoint) is not None
        return tested and (folder.speed_file.is_file() or not self.is_timed(job))

    def finish(self, job: Job) -> Path:
        """Runs the steps of a job that are left, without recording rows; returns the folder of its test."""
        if self.is_timed(job):
            self.time_steps(job)
        with self.folder(job).locked():
            return self.test(job, job.checkpoint or self.train(job))

    def measure_speed(self, job: Job) -> None:
        """Measures the job's speed, unless that was done before, and records its row."""
        row = json.loads(self.time_steps(job).read_text()) | {"config": job.digest}
        rows.upsert(self.out, rows.SPEED, [row | {"variant": variant} for variant in job.variants])

    def time_steps(self, job: Job) -> Path:
        """The file with the job's speed, measured unless that was done before."""
        file = self.folder(job).speed_file
        if not file.is_file():
            arguments = ["speed", job.model, "--data", job.data, "--scale", job.scale, "--repeats", str(self.repeats)]
            arguments += ["--over", json.dumps(job.overrides)] if job.overrides else []
            self.execute(job, [*arguments, "--out", str(file)], launched=False)
        return file

    def measure_accuracy(self, job: Job) -> None:
        """Trains and tests the job, as far as that was not done before, and records the rows of its test."""
        with self.folder(job).locked():
            test = self.test(job, job.checkpoint or self.train(job))
        accuracy, types = rows.measured(job, test)
        removed = rows.record(self.out, accuracy, types, job)
        if removed:
            print(f"{job.title}: {removed} row(s) of another training of it were removed from {rows.ACCURACY.file}")
        image_sums.record(self.out, [test])
        self.tests[job.name] = test

    def train(self, job: Job) -> Path:
        """The best checkpoint of a finished training; continues an interrupted one, or starts from scratch."""
        folder = self.folder(job)
        arguments = ["fit", *self._common(job), "--seed_everything", str(job.seed)]
        last = None if folder.finished_run() else folder.last_checkpoint()
        if last is not None:
            self.execute(job, [*arguments, "--ckpt_path", str(last)])
        if folder.finished_run() is None:  # a training killed after its last validation cannot be continued
            self.execute(job, arguments)
        finished = folder.finished_run()
        if finished is None:
            raise RuntimeError(f"training left no finished run with a best checkpoint under {folder.path}")
        return runs.checkpoint(finished)

    def test(self, job: Job, checkpoint: Path) -> Path:
        """The folder of a complete test of the checkpoint."""
        folder = self.folder(job)
        if folder.test_of(checkpoint) is None:
            arguments = ["test", *self._common(job), "--ckpt_path", str(checkpoint), "--protocol", job.protocol]
            arguments += ["--split", ",".join(job.splits)] if job.splits else []
            self.execute(job, [*arguments, "--control", job.controls])
        found = folder.test_of(checkpoint)
        if found is None:
            raise RuntimeError(f"the test of {checkpoint} left no results")
        return found

    def folder(self, job: Job) -> JobFolder:
        return JobFolder(self.root, job)

    # -- processes ----------------------------------------------------------------------------------------------------

    def _common(self, job: Job) -> list[str]:
        """The options that training and test share."""
        options = ["--model", job.model, "--data", job.data, "--scale", job.scale]
        options += ["--run.root", str(self.folder(job).path)]
        options += ["--config", json.dumps(with_whole_options(job.overrides, job.config))] if job.overrides else []
        options += ["--trainer.num_nodes", str(job.nodes)] if job.nodes else []
        return options + (["--trainer.devices", str(job.devices)] if job.devices else [])

    def execute(self, job: Job, arguments: list[str], launched: bool = True) -> None:
        """Runs `riszoo ARGUMENTS` in a process of its own, with its output in the job's log."""
        log = self.folder(job).log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(f"\n$ riszoo {shlex.join(arguments)}\n")
            file.flush()
            command = [*self.command(launched), *arguments]
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=self.environment())
            self.running.add(process)
            if self.stopped:  # meanwhile: whoever stopped the others has not seen this one
                process.terminate()
            try:
                code = self._wait(process, job, training=arguments[0] == "fit")
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                self.running.discard(process)
        if code:
            reason = "was killed, possibly out of memory" if code in (-9, 137) else f"ended with exit code {code}"
            raise RuntimeError(f"'riszoo {arguments[0]}' {reason}; {_last_line(log)} ({log})")

    def command(self, launched: bool = True) -> list[str]:
        """The beginning of a command line, through the launcher where one is given."""
        if launched and self.launch:
            python = [] if Path(self.launch[0]).name == "torchrun" else [sys.executable]
            return [*self.launch, *python, "-m", "riszoo"]
        return [sys.executable, "-m", "riszoo"]

    def environment(self) -> dict[str, str]:
        """Of a process: jobs that run at a time share the processors."""
        threads = {"OMP_NUM_THREADS": str(max(1, processors() // self.parallel))} if self.parallel > 1 else {}
        return {**threads, **os.environ}

    def _wait(self, process: subprocess.Popen[bytes], job: Job, training: bool) -> int:
        """Returns the exit code; prints the steps of a training meanwhile."""
        printed = None
        while True:
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                step = self.folder(job).step() if training else None
                if step is not None and step != printed:
                    printed = step
                    share = f" of {job.steps} ({step / job.steps:.0%})" if job.steps else ""
                    self._print(f"  {job.title}, training, step {step}{share}")

    # -- progress -----------------------------------------------------------------------------------------------------

    def rates(self) -> dict[str, float]:
        """Training sentences per second of each model: measured by this bench, or else as recorded.

        A scale that is like another one, such as a shorter training, has the other one's speed until it is measured.
        """
        like = {(job.data, recipes.section_like(recipes.get("data", job.data).content, job.scale)) for job in self.jobs}
        known = [row for row in rows.SPEED.read(self.out) if not row["variant"]]
        recorded = {
            row["model"]: rows.number_in(row, "train_sentences_per_s", rows.SPEED)
            for settings in (like, {(job.data, job.scale) for job in self.jobs})
            for row in known
            if (row["data"], row["scale"]) in settings
        }
        files = {job.model: self.folder(job).speed_file for job in self.jobs if "" in job.variants and job.seed == 0}
        own = {model: json.loads(file.read_text()) for model, file in files.items() if file.is_file()}
        return recorded | {model: float(row["train_sentences_per_s"]) for model, row in own.items()}

    def remaining_seconds(self) -> float | None:
        """The estimated time of what is not measured yet, or None while a speed is missing.

        Jobs in parallel share the threads with which speeds are measured, so their times add up all the same.
        """
        rates, total = self.rates(), 0.0
        for job in self.jobs:
            if job.name in self.failed or job.name in self.tests:
                continue
            estimate = plan.estimate(job, rates)
            if estimate is None:
                return None
            total += estimate.training * (1 - self.folder(job).progress()) + estimate.test
        return total

    def _print(self, text: str) -> None:
        remaining = self.remaining_seconds()
        left = "" if remaining is None else f", about {remaining / 60:.0f} min left"
        print(f"{text}  ({(time.monotonic() - self.started) / 60:.1f} min{left})", flush=True)


def with_whole_options(change: recipes.Config, config: recipes.Config) -> recipes.Config:
    """A change of a configuration, with every mapping `options` as the configuration has it: LightningCLI does not
    merge these, so that a change of one of an encoder's options would drop the others."""
    return {
        key: config[key] if key == "options" else with_whole_options(value, config[key])
        if isinstance(value, dict) and isinstance(config.get(key), dict) else value
        for key, value in change.items()
    }  # fmt: skip


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-200:] if lines else "no output"
