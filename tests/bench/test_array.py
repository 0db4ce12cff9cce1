"""`riszoo bench --launcher submitit`: a plan as an array of tasks, run by submitit's local executor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from riszoo.bench import array, plan, rows
from riszoo.bench.runner import Bench
from riszoo.cli.bench import main, parser
from riszoo.errors import UserError
from tests.support.bench_runs import make_run

OPTIONS = ["--models", "lts", "--splits", "val", "--controls", "none,shuffled", "--budget", "640", "--seeds", "2"]

RISZOO = """
case "$*" in
  *"seed_everything 1"*) echo "riszoo: out of luck" && exit 3 ;;
  *" fit "*) mv "$0/finished/"* "$0/runs/"*-seed0-* ;;
  *" test "*) mv "$0/runs/"*-seed0-*/*/future-test "$(echo "$0/runs/"*-seed0-*/lts*)/test-scenes-20260101-000001" ;;
esac
"""
"""Takes the place of riszoo's processes: the first job gets the files of a training and a test, the other one fails."""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(array, "CLUSTER", "local")
    monkeypatch.setattr(array, "POLL_SECONDS", 0.1)
    jobs = plan.make_jobs(parser().parse_args(OPTIONS))
    return Bench(jobs, tmp_path / "runs", tmp_path / "out", ["sh", "-c", RISZOO, str(tmp_path)], speeds=False)


def test_tasks_train_and_test_and_the_rows_are_recorded_afterwards(bench: Bench, tmp_path: Path) -> None:
    test = make_run(tmp_path / "finished", "lts", steps=10)
    test.rename(test.with_name("future-test"))
    (failure,) = array.run(bench, "timeout_min=5 partition=gpu")
    assert failure.startswith(
        "lts on scenes, scale tiny, seed 1: 'riszoo fit' ended with exit code 3; riszoo: out of luck"
    )
    assert {row["seed"] for row in rows.ACCURACY.read(bench.out)} == {"0"}
    assert [job.seed for job in bench.jobs if not bench.is_finished(job)] == [1], "only this one is submitted again"


class Task:
    """A task of an array that ends only by being cancelled."""

    cancelled = False

    def done(self) -> bool:
        return self.cancelled

    def cancel(self, check: bool = True) -> None:
        self.cancelled = True


def test_an_interruption_cancels_the_tasks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    tasks = [Task(), Task()]
    with pytest.raises(KeyboardInterrupt):
        array.wait(tasks)  # type: ignore[arg-type]
    assert all(task.cancelled for task in tasks)
    assert "the same command continues" in capsys.readouterr().out


def test_options_of_an_array_have_the_names_of_submitit_or_of_sbatch() -> None:
    options = array.parameters("partition=gpu timeout_min=600 mem_gb=64")
    assert options == {"name": "riszoo", "timeout_min": 600, "mem_gb": 64, "slurm_partition": "gpu"}


def test_only_numeric_options_become_numbers() -> None:
    options = array.parameters("account=0042 qos=7 array_parallelism=8 cpus_per_task=4")
    assert (options["slurm_account"], options["slurm_qos"]) == ("0042", "7")
    assert (options["slurm_array_parallelism"], options["cpus_per_task"]) == (8, 4)


def test_a_stopped_task_is_submitted_again_with_the_same_steps(bench: Bench) -> None:
    steps = array.Steps(bench, bench.jobs[0])
    assert steps.checkpoint().function is steps


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--launcher", "submitit", "--launch", "srun"], "leave --launch out"),
        (["--launcher", "submitit", "--nodes", "2"], "leave --nodes out"),
        (["--slurm", "partition=gpu"], "add --launcher submitit"),
        (["--launcher", "submitit", "--slurm", "partition"], "give NAME=VALUE"),
        (["--launcher", "submitit", "--slurm", "nodes=2"], "one node and one task"),
        (["--launcher", "submitit", "--slurm", "colour=red"], "Unknown argument 'colour'"),
    ],
)
def test_invalid_options_are_reported(words: list[str], message: str, bench: Bench) -> None:
    with pytest.raises(UserError, match=message):
        main([*OPTIONS, *words, "--root", str(bench.root), "--out", str(bench.out)])


def test_the_missing_package_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'riszoo\[slurm\]'"):
        array.run(bench, "")


def test_a_machine_without_slurm_is_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(array, "CLUSTER", "slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun is not installed"):
        array.run(bench, "")
