"""`riszoo bench --launcher submitit`: the unfinished jobs of a plan as one SLURM array, a task for each job.

A task leaves the files of its job. The process that has submitted the array waits for all tasks and then records the
rows as an ordinary bench does, which recognises finished steps by their files.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from riszoo.bench.plan import Job
from riszoo.bench.runner import Bench
from riszoo.errors import UserError

if TYPE_CHECKING:
    from submitit import Executor
    from submitit import Job as Task
    from submitit.core.utils import DelayedSubmission

CLUSTER = "slurm"
"""Executor of submitit."""

POLL_SECONDS = 20.0
"""How often the tasks are asked whether they have ended."""

OUTSIDE_SRUN = ["env", "-u", "SLURM_NTASKS"]
"""Starts the processes of a task: without the variable, Lightning starts one process for each device itself."""

GENERAL = ("name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")
"""Submitit's names for what every scheduler has; all others are options of sbatch."""


NUMBERS = (
    "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "time", "cpus_per_gpu", "num_gpus", "gpus_per_task",
    "signal_delay_s", "array_parallelism", "map_count", "exclusive", "stderr_to_stdout", "use_srun",
)  # fmt: skip
"""Submitit's options that are numbers, or 0 and 1 for no and yes; every other value is text, such as account=0042."""


@dataclass(frozen=True)
class Steps:
    """The steps of one job, run by a task of the array."""

    bench: Bench
    job: Job

    def __call__(self) -> str:
        """Why the job has failed; empty where it has finished."""
        try:
            replace(self.bench, jobs=[self.job]).finish(self.job)
        except (RuntimeError, UserError) as error:
            return str(error)
        return ""

    def checkpoint(self) -> DelayedSubmission:
        """What submitit puts back into the queue at the time limit or a preemption: the training is continued."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def run(bench: Bench, words: str) -> list[str]:
    """Run the unfinished jobs as an array and record all rows; returns one line per failure."""
    jobs = [job for job in bench.jobs if not bench.is_finished(job)]
    for job, reason in zip(jobs, wait(submit(bench, jobs, words)), strict=True):
        reason = reason or ("" if bench.is_finished(job) else "its task has left no results")
        if reason:
            bench.failed[job.name] = reason
    return bench.run()


def submit(bench: Bench, jobs: Sequence[Job], words: str) -> list[Task[str]]:
    """Submit one task for each job; `words` are the options of the array."""
    if not jobs:
        return []
    devices = {job.devices or 1 for job in jobs}
    executor = make_executor(bench, {"gpus_per_node": max(devices), **parameters(words)})
    try:
        tasks: list[Task[str]] = executor.submit_array([Steps(bench, job) for job in jobs])
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise UserError(f"--launcher submitit: the array cannot be submitted: {_last_line(error)}") from error
    print(f"submitted {len(tasks)} task(s), {tasks[0].job_id} ...; their logs are in {executor.folder}", flush=True)
    return tasks


def parameters(words: str) -> dict[str, Any]:
    """The options of `--slurm 'partition=gpu timeout_min=600'`, under submitit's names."""
    found: dict[str, Any] = {"name": "riszoo", "timeout_min": 24 * 60}
    for word in words.split():
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise UserError(
                f"--slurm {word[:60]}: give NAME=VALUE, separated by spaces, such as 'partition=gpu qos=long'"
            )
        if name in ("nodes", "tasks_per_node", "ntasks_per_node"):
            raise UserError(f"--slurm {word[:60]}: each job has one node and one task; leave it out and give --devices")
        found[name if name in GENERAL else f"slurm_{name}"] = (
            int(value) if name in NUMBERS and value.isdecimal() else value
        )
    return found


def make_executor(bench: Bench, options: dict[str, Any]) -> Executor:
    """Submitit's executor, which stores functions and logs in the folder of the runs."""
    try:
        from submitit import AutoExecutor
    except ImportError:
        raise UserError("--launcher submitit needs a package: pip install 'riszoo[slurm]'") from None
    try:
        executor = AutoExecutor(bench.root / "tasks", cluster=CLUSTER)
    except RuntimeError:
        raise UserError(
            "--launcher submitit needs SLURM, and srun is not installed: leave it out on this machine"
        ) from None
    try:
        executor.update_parameters(nodes=1, tasks_per_node=1, **options)
    except (NameError, ValueError, AssertionError) as error:
        raise UserError(f"--slurm: {' '.join(str(error).split()):.200}") from None
    return executor


def wait(tasks: Sequence[Task[str]]) -> list[str]:
    """Why each task has failed, or an empty text; an interruption cancels the tasks that are left."""
    printed = -1
    try:
        while (ended := sum(task.done() for task in tasks)) < len(tasks):
            if ended != printed:
                print(f"{ended} of {len(tasks)} task(s) have ended", flush=True)
            printed = ended
            time.sleep(POLL_SECONDS)
    except BaseException:
        for task in tasks:
            if not task.done():
                task.cancel(check=False)
        print("the tasks are cancelled; the same command continues", flush=True)
        raise
    return [_failure(task) for task in tasks]


def _failure(task: Task[str]) -> str:
    error = task.exception()
    return task.result() if error is None else f"task {task.job_id}: {_last_line(error)} ({task.paths.stderr})"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-200:] if lines else type(error).__name__
