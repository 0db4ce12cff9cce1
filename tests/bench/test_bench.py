"""The benchmark: its plan, how it continues after a failure or an interruption, and its CSV files."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riszoo import recipes
from riszoo.bench import plan, rows
from riszoo.bench.job_folder import JobFolder
from riszoo.bench.runner import Bench
from riszoo.cli.bench import jobs_at_a_time, main, parser
from riszoo.errors import UserError
from tests.support.bench_runs import make_run

FOLDERS = recipes.folders()


def planned(*words: str) -> list[plan.Job]:
    return plan.make_jobs(parser().parse_args(list(words)))


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_every_model_with_the_scale_is_planned_once_per_seed() -> None:
    tiny = [name for name in recipes.names("models") if "tiny" in recipes.get("models", name).scales]
    assert [job.model for job in planned()] == tiny
    assert [job.seed for job in planned("--models", "lts", "--seeds", "3")] == [0, 1, 2]
    assert len({job.name for job in planned("--models", "lts", "--seeds", "3")}) == 3
    rounds = [(job.seed, job.model) for job in planned("--models", "lts,vipa", "--seeds", "2")]
    assert rounds == [(0, "lts"), (0, "vipa"), (1, "lts"), (1, "vipa")], "an interruption leaves whole comparisons"


def test_a_budget_sets_the_steps_of_scenes_and_replaces_the_epochs_of_a_paper() -> None:
    (job,) = planned("--models", "lts", "--budget", "640")
    assert (job.steps, job.sentences()) == (10, 640)
    (paper,) = planned("--models", "lts", "--data", "refcoco", "--budget", "3600000")
    assert (paper.steps, paper.config["trainer"]["max_epochs"]) == (100_000, -1)
    assert job.name != planned("--models", "lts")[0].name, "another length is another run"
    with pytest.raises(UserError, match="--budget 3 is less than one batch"):
        planned("--models", "lts", "--budget", "3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "original,typo"], "unknown protocol 'typo'"),
        (
            ["--controls", "none,blnak"],
            "unknown control 'blnak': choose among none, shuffled, blank, constant",
        ),
        (["--controlled", "--scale", "paper"], "--controlled already sets --scale"),
        (["--ablation", "vipa", "--models", "lts"], "--ablation already sets --models"),
    ],
)
def test_invalid_options_are_reported_before_any_training(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned(*words)


def test_an_ablation_plans_one_job_per_row_with_its_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "lts.yaml").write_text(
        "title: of LTS\nprior:\n  title: The prior\n  claim: [none, filter]\n"
        "  controls: none,blank\n"
        "  rows: {none: {model: {size: 64}}, filter: {}}\nwhere: {rows: {far: {model: {size: 32}}}}\n"
        "based: {base: {model: {size: 32, width: 8}}, rows: {far: {}, wide: {model: {width: 16}}}}\n"
    )
    monkeypatch.setattr(recipes, "folders", lambda: (tmp_path, *FOLDERS))
    jobs = planned("--ablation", "lts")
    assert [job.variants for job in jobs[:3]] == [("prior/none",), ("prior/filter",), ("where/far",)]
    assert [job.config["model"]["init_args"]["size"] for job in jobs] == [64, 96, 32, 32, 32]
    assert [job.config["model"]["init_args"]["width"] for job in planned("--ablation", "lts/based")] == [8, 16]
    assert [job.controls for job in jobs] == 2 * ["none,blank"] + 3 * ["none,shuffled,blank"]
    assert {job.controls for job in planned("--ablation", "lts", "--controls", "none")} == {"none"}
    assert [job.variants for job in planned("--ablation", "lts/where")] == [("where/far",)]
    with pytest.raises(UserError, match="ablation 'lts' has no table 'were': did you mean 'where'"):
        planned("--ablation", "lts/were")
    (tmp_path / "ablations" / "broken.yaml").write_text("prior: {title: The prior}\n")
    with pytest.raises(UserError, match="table 'prior' has no 'rows'"):
        planned("--ablation", "broken")
    with pytest.raises(UserError, match="unknown ablation 'ltz': did you mean 'lts'"):
        planned("--ablation", "ltz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "ltz"], "unknown model 'ltz'"),
        (["--models", "lts", "--scale", "huge"], "'lts' on 'scenes' has no scale 'huge'"),
        (["--data", "scene"], "unknown data set 'scene'"),
        (["--checkpoints", "none.yaml"], "cannot read none.yaml"),
        (["--seeds", "0"], "--seeds 0: give at least 1"),
    ],
)
def test_an_unknown_name_is_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([*words, "--dry-run"])


def test_a_dry_run_prints_the_cost_if_the_speed_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"data": "scenes", "model": "lts", "scale": "tiny", "device": "cpu", "train_sentences_per_s": 100.0}
    rows.upsert(tmp_path, rows.SPEED, [known])
    assert main(["--models", "lts", "--budget", "64000", "--out", str(tmp_path), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "64,000 sentences, about 17 min" in output  # 640 s, a quarter more for validations, 30 % of it for the test
    (job,) = planned("--models", "lts", "--data", "refcoco", "--scale", "paper")
    assert job.sentences() == 45 * 42_404
    assert plan.estimate(job, {}) is None


# -- the CSV files ---------------------------------------------------------------------------------------------------


def test_the_estimate_prefers_the_speed_that_this_bench_measured(tmp_path: Path) -> None:
    one = bench(tmp_path, planned("--models", "lts,risam"))
    recorded = [
        {"data": "scenes", "model": m, "scale": "tiny", "device": "a GPU", "train_sentences_per_s": 9}
        for m in ("lts", "risam")
    ]
    rows.upsert(one.out, rows.SPEED, recorded)
    file = one.folder(one.jobs[0]).speed_file
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"train_sentences_per_s": 2.5}))
    assert one.rates() == {"lts": 2.5, "risam": 9.0}
    probe = bench(tmp_path, planned("--models", "lts,risam", "--scale", "probe"))
    assert probe.rates() == {"lts": 9.0, "risam": 9.0}, "that of the scale it is like"
    rows.upsert(one.out, rows.SPEED, [recorded[0] | {"scale": "probe", "train_sentences_per_s": 4}])
    assert probe.rates() == {"lts": 4.0, "risam": 9.0}, "until it is measured"


def test_rows_are_replaced_by_key_and_sorted(tmp_path: Path) -> None:
    row = {"data": "scenes", "model": "b", "scale": "tiny", "device": "cpu", "parameters": 1}
    rows.upsert(tmp_path, rows.SPEED, [row, row | {"model": "a"}])
    rows.upsert(tmp_path, rows.SPEED, [row | {"parameters": 2}])
    found = rows.SPEED.read(tmp_path)
    assert [(r["model"], r["parameters"]) for r in found] == [("a", "1"), ("b", "2")]


def write_many(folder: Path, worker: int) -> None:
    for i in range(20):
        row = {"data": "scenes", "model": f"{worker}-{i}", "scale": "tiny", "device": "cpu"}
        rows.upsert(folder, rows.SPEED, [row])


def test_concurrent_writers_lose_no_row(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(tmp_path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(rows.SPEED.read(tmp_path)) == 60


def test_the_rows_of_a_test_carry_its_numbers_and_provenance(tmp_path: Path) -> None:
    test = make_run(tmp_path, "lts", shift=2, seen=3, splits=("val", "testA"))
    (job,) = planned("--models", "lts")
    accuracy, types = rows.measured(job, test)
    assert {(row["split"], row["control"]) for row in accuracy} == {
        ("val", "none"), ("testA", "none"), ("val", "shuffled"),
    }  # fmt: skip
    row = next(row for row in accuracy if row["split"] == "val" and row["control"] == "none")
    expected = json.loads((test / "metrics.json").read_text())["splits"]["val"]["protocols"]["original"]
    assert row["mIoU"] == expected["values"]["mIoU"]
    assert [row["oIoU_low"], row["oIoU_high"]] == expected["intervals"]["oIoU"]
    assert row["images_trained_on"] == 3
    assert all(row[name] not in (None, "") for name in (*rows.ACCURACY.key, *rows.PROVENANCE) if name != "variant")
    assert {row["type"] for row in types if row["split"] == "val"} == set(expected["by_type"])


def test_rows_with_the_same_configuration_are_trained_once(tmp_path: Path) -> None:
    jobs = planned("--ablation", "vipa/keys-and-values,vipa/fusion,vipa/steps", "--seeds", "2", "--budget", "640")
    first, again = jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]
    assert len({job.name for job in jobs}) == len(jobs) == 2 * 9, "three tables of 3, 6 and 3 rows share three of them"
    assert [job.variants for job in first] == [job.variants for job in again]
    recipe = next(job for job in first if "keys-and-values/ve" in job.variants)
    assert recipe.variants == ("keys-and-values/ve", "fusion/early-ve", "steps/both")
    assert recipe.controls == "none,shuffled,constant,exchanged", "what any of the tables asks for"
    (plain,) = planned("--models", "vipa", "--budget", "640")
    assert recipe.name == plain.name, "a bench of the recipe finds the same training"
    assert "keys-and-values/ve and fusion/early-ve and steps/both" in recipe.title
    accuracy, types = rows.measured(recipe, make_run(tmp_path, "vipa"))
    assert {row["variant"] for row in accuracy} == {row["variant"] for row in types} == set(recipe.variants)
    assert len({tuple(row[name] for name in rows.ACCURACY.key) for row in accuracy}) == len(accuracy)


def test_a_split_of_mixed_data_belongs_to_its_own_set() -> None:
    job = plan.Job("lts", "mixed", "paper")
    columns = rows.key_columns(job, {"split": "refcoco+/testA"})
    assert (columns["data"], columns["split"], columns["trained"]) == ("refcoco+", "testA", "mixed")


# -- processes --------------------------------------------------------------------------------------------------------


def bench(tmp_path: Path, jobs: list[plan.Job], launch: Sequence[str] = ()) -> Bench:
    return Bench(jobs, tmp_path / "runs", tmp_path / "out", list(launch), 1)


class FakeProcesses:
    """Replaces `Bench.execute`: records the calls and leaves the files that the real processes leave."""

    def __init__(self, root: Path, fail: str = "") -> None:
        self.root, self.fail = root, fail
        self.calls: list[str] = []

    def __call__(self, job: plan.Job, arguments: list[str], launched: bool = True) -> None:
        call = f"{arguments[0]} seed {job.seed}"
        self.calls.append(call)
        if call == self.fail:
            raise RuntimeError("'riszoo fit' was killed, possibly out of memory")
        getattr(self, arguments[0])(job, arguments)

    def speed(self, job: plan.Job, arguments: list[str]) -> None:
        file = Path(arguments[arguments.index("--out") + 1])
        file.parent.mkdir(parents=True, exist_ok=True)
        row: dict[str, Any] = dict.fromkeys(rows.SPEED.values, 1.0)
        file.write_text(json.dumps(row | {"data": job.data, "model": job.model, "scale": job.scale, "device": "cpu"}))

    def fit(self, job: plan.Job, arguments: list[str]) -> None:
        test = make_run(self.root / job.name, job.model, shift=1 + job.seed, steps=job.steps or 1)
        test.rename(test.with_name("future-test"))

    def test(self, job: plan.Job, arguments: list[str]) -> None:
        (future,) = (self.root / job.name).glob("*/future-test")
        future.rename(future.with_name("test-scenes-20260101-000001"))


OPTIONS = ["--models", "lts", "--splits", "val", "--controls", "none,shuffled", "--budget", "640", "--seeds", "2"]


def test_a_failure_does_not_stop_the_others_and_is_repeated_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = planned(*OPTIONS)
    first = bench(tmp_path, jobs)
    monkeypatch.setattr(first, "execute", FakeProcesses(first.root, fail="fit seed 0"))
    (failure,) = first.run()
    assert "seed 0: 'riszoo fit' was killed, possibly out of memory" in failure
    assert {row["seed"] for row in rows.ACCURACY.read(tmp_path / "out")} == {"1"}

    second = bench(tmp_path, jobs)
    processes = FakeProcesses(second.root)
    monkeypatch.setattr(second, "execute", processes)
    assert second.run() == []
    assert processes.calls == ["fit seed 0", "test seed 0"], "finished steps are not repeated"
    assert {row["seed"] for row in rows.ACCURACY.read(tmp_path / "out")} == {"0", "1"}
    assert list(second.tests) == [job.name for job in jobs]


class Meeting(FakeProcesses):
    """Trainings that wait for each other, so that both must run at a time; the first one then fails."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, fail="fit seed 0")
        self.both = threading.Barrier(2, timeout=60)

    def __call__(self, job: plan.Job, arguments: list[str], launched: bool = True) -> None:
        if arguments[0] == "fit":
            self.both.wait()
        super().__call__(job, arguments, launched)


def test_jobs_run_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = planned(*OPTIONS)
    one = Bench(jobs, tmp_path / "runs", tmp_path / "out", [], 1, parallel=2)
    monkeypatch.setattr(one, "execute", Meeting(one.root))
    (failure,) = one.run()
    assert "seed 0: 'riszoo fit' was killed" in failure
    assert {row["seed"] for row in rows.ACCURACY.read(tmp_path / "out")} == {"1"}


def test_a_second_bench_waits_for_the_first_and_takes_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = planned(*OPTIONS)[:1]
    first, second = bench(tmp_path, jobs), bench(tmp_path, jobs)
    first.speeds = second.speeds = False
    processes, other = FakeProcesses(first.root), FakeProcesses(second.root)
    other_thread, is_refused = threading.Thread(target=second.run), threading.Event()
    lock = fcntl.flock

    def flock(handle: Any, operation: int) -> None:
        try:
            lock(handle, operation)
        except BlockingIOError:
            is_refused.set()
            raise

    def execute(job: plan.Job, arguments: list[str], launched: bool = True) -> None:
        if arguments[0] == "fit":  # the second bench starts within the first one's training
            other_thread.start()
            assert is_refused.wait(60)
        processes(job, arguments)

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(second, "execute", other)
    monkeypatch.setattr(first, "execute", execute)
    assert first.run() == []
    other_thread.join(60)
    assert processes.calls == ["fit seed 0", "test seed 0"]
    assert (other.calls, list(second.tests)) == ([], [job.name for job in jobs])
    assert "another bench works in" in capsys.readouterr().out


def test_jobs_in_parallel_share_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("riszoo.bench.runner.processors", lambda: 9)
    jobs = planned(*OPTIONS)
    said = ["sh", "-c", "echo $OMP_NUM_THREADS threads; exit 1"]
    failures = Bench(jobs, tmp_path / "runs", tmp_path / "out", said, speeds=False, parallel=2).run()
    assert [" 4 threads " in failure for failure in failures] == [True, True]
    assert [failure.rpartition("seed ")[2][0] for failure in failures] == ["0", "1"]


def test_an_interruption_stops_all_jobs_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = planned(*OPTIONS, "--seeds", "3")
    endless = ["sh", "-c", "exec tail -f /dev/null"]
    one = Bench(jobs, tmp_path / "runs", tmp_path / "out", endless, speeds=False, parallel=2)
    started = threading.Event()
    wait, execute = one._wait, one.execute

    def waiting(process: subprocess.Popen[bytes], job: plan.Job, training: bool) -> int:
        started.set()
        return wait(process, job, training)

    def interrupted(job: plan.Job, arguments: list[str]) -> None:
        if job.seed == 0:
            assert started.wait(60)
            raise KeyboardInterrupt
        execute(job, arguments)

    monkeypatch.setattr(one, "_wait", waiting)
    monkeypatch.setattr(one, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.run()
    assert not one.running
    assert "ended with exit code -15" in one.failed[jobs[1].name]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], 2),
        (["--models", "lts"], 1),
        (["--parallel", "3"], 3),
        (["--devices", "1"], 1),
        (["--data", "refcoco"], 1),
    ],
)
def test_small_models_run_one_for_each_processor(
    words: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riszoo.training.machine.processors", lambda: 2)
    monkeypatch.setattr("riszoo.training.machine.has_accelerator", lambda: False)
    options = parser().parse_args(words)
    assert jobs_at_a_time(options, plan.make_jobs(options)) == expected


def test_runs_and_report_are_written_to_root_and_tables_to_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = FakeProcesses(tmp_path / "root")
    monkeypatch.setattr(Bench, "execute", lambda _, *arguments, **options: processes(*arguments, **options))
    assert main([*OPTIONS, "--seeds", "1", "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"root", "out"}
    assert {"report.html", "leaderboard.html"} <= {path.name for path in (tmp_path / "root").iterdir()}
    assert {"accuracy.csv", "speed.csv", "README.md"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_bench_of_which_every_job_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = FakeProcesses(tmp_path / "root", fail="fit seed 0")
    monkeypatch.setattr(Bench, "execute", lambda _, *arguments, **options: processes(*arguments, **options))
    assert main([*OPTIONS, "--seeds", "1", "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("riszoo: lts on scenes, scale tiny, seed 0: 'riszoo fit' was killed")


def test_an_interrupted_training_is_continued_or_else_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job, _) = planned(*OPTIONS)
    one = bench(tmp_path, [job])
    test = make_run(tmp_path / "runs" / job.name, "lts", steps=5)  # of 10
    best = test.parent / "checkpoints" / "best.ckpt"
    last = best.with_name("last.ckpt")
    last.write_bytes(best.read_bytes())
    calls: list[list[str]] = []
    monkeypatch.setattr(one, "execute", lambda job, arguments: calls.append(arguments))
    with pytest.raises(RuntimeError, match="no finished run"):
        one.train(job)
    continued, again = calls
    assert continued[-2:] == ["--ckpt_path", str(last)]
    assert "--ckpt_path" not in again


def test_a_test_of_other_weights_or_fewer_splits_does_not_count(tmp_path: Path) -> None:
    job, wider = planned(*OPTIONS)[0], planned("--models", "lts", "--budget", "640")[0]
    test = make_run(tmp_path / job.name, "lts")
    checkpoint = test.parent / "checkpoints" / "best.ckpt"
    assert JobFolder(tmp_path, job).test_of(checkpoint) == test
    assert JobFolder(tmp_path, wider).test_of(checkpoint) is None
    checkpoint.write_bytes(checkpoint.read_bytes() + b"changed")
    assert JobFolder(tmp_path, job).test_of(checkpoint) is None


def test_a_test_under_other_protocols_does_not_count(tmp_path: Path) -> None:
    (job, _) = planned(*OPTIONS)
    test = make_run(tmp_path / job.name, "lts", protocols="original,lavt480")
    checkpoint = test.parent / "checkpoints" / "best.ckpt"
    counts = {"original": True, "lavt480": True, "original,lavt480": True, "cris035": False, "published": False}
    for protocol, expected in counts.items():
        folder = JobFolder(tmp_path, replace(job, protocol=protocol))
        assert (folder.test_of(checkpoint) is not None) is expected, protocol


@pytest.mark.parametrize("name", recipes.names("ablations"))
def test_a_training_has_the_configuration_of_its_job(name: str, tmp_path: Path) -> None:
    """LightningCLI replaces the mapping `options` of an encoder as a whole."""
    for job in planned("--ablation", name):
        words = bench(tmp_path, [job])._common(job)
        given = json.loads(words[words.index("--config") + 1]) if "--config" in words else {}
        base = recipes.resolve(job.model, job.data, job.scale)
        for part in ("vision", "text"):
            own = given.get("model", {}).get("init_args", {}).get(part, {})
            expected = recipes.merge(base, job.overrides)["model"]["init_args"][part]
            assert {**base["model"]["init_args"][part], **own} == expected, job.title


def test_a_test_of_fewer_images_does_not_count(tmp_path: Path) -> None:
    (job, _) = planned(*OPTIONS)
    test = make_run(tmp_path / job.name, "lts")
    checkpoint = test.parent / "checkpoints" / "best.ckpt"
    assert JobFolder(tmp_path, job).test_of(checkpoint) == test
    circumstances = rows.circumstances(test)
    circumstances["data_section"]["init_args"]["test_images"] = 3
    (test / "run.json").write_text(json.dumps(circumstances))
    assert JobFolder(tmp_path, job).test_of(checkpoint) is None


def test_a_published_protocol_that_is_also_the_default_is_one() -> None:
    lts, risam = planned("--models", "lts,risam", "--protocol", "original,published")
    assert (lts.protocols, risam.protocols) == ({"original", "mcn"}, {"original"})


def test_rows_of_another_training_are_removed(tmp_path: Path) -> None:
    row = {"data": "scenes", "model": "lts", "scale": "tiny", "trained": "scenes", "variant": "", "split": "val"}
    row |= {"control": "none", "protocol": "original", "seed": "0", "weights": "a", "training_sentences": "96000"}
    kind = {**row, "type": "place"}

    def record(*changes: dict[str, str]) -> int:
        made = [rows.ACCURACY.row({**row, **change}) for change in changes]
        return rows.record(tmp_path, made, [rows.TYPES.row({**kind, **change}) for change in changes])

    def left() -> list[tuple[str, ...]]:
        found = rows.ACCURACY.read(tmp_path)
        assert {row["weights"] for row in rows.TYPES.read(tmp_path)} == {row["weights"] for row in found}
        return [(row["model"], row["seed"], row["control"], row["weights"]) for row in found]

    other = {"model": "vipa", "weights": "v"}
    assert record({}, {"control": "shuffled"}, other) == 0
    assert record({"seed": "1", "weights": "b"}) == 0, "a further seed of the same length"
    assert len(left()) == 4
    rows.upsert(tmp_path, rows.TYPES, [rows.TYPES.row({**kind, "type": "no longer asked", "weights": "a"})])
    assert record({"weights": "c"}) == 1, "another training of seed 0, measured without the control"
    assert left() == [("lts", "0", "none", "c"), ("lts", "1", "none", "b"), ("vipa", "0", "none", "v")]
    assert record({"weights": "d", "training_sentences": "6400"}) == 1, "a short trial is not averaged with seed 1"
    assert left() == [("lts", "0", "none", "d"), ("vipa", "0", "none", "v")]


def test_rows_of_an_older_recipe_are_removed(tmp_path: Path) -> None:
    """Those that a bench has trained; of a file that was only tested nobody knows the recipe."""
    (job,) = planned("--models", "lts")
    row = {"data": "scenes", "model": "lts", "scale": "tiny", "trained": "scenes", "variant": "", "split": "val"}
    row |= {"control": "none", "protocol": "original"}

    def trained(seed: int, digest: str) -> rows.Row:
        folder = f"runs/bench/lts-scenes-tiny-seed{seed}-{digest}/lts-scenes-1"
        command = f"riszoo test --ckpt_path {folder}/checkpoints/best.ckpt"
        return rows.ACCURACY.row({**row, "seed": seed, "weights": f"w{seed}", "config": digest, "command": command})

    old, same, tested = trained(1, "0ld"), trained(2, replace(job, seed=2).digest), trained(3, "0ld")
    tested["command"] = "riszoo test --run.root runs/shipped/lts-scenes-tiny-seed3-0ld --ckpt_path shipped"
    assert rows.record(tmp_path, [old, same, tested], []) == 0
    assert rows.record(tmp_path, [trained(0, job.digest)], [], job) == 1
    assert [row["seed"] for row in rows.ACCURACY.read(tmp_path)] == ["0", "2", "3"]


def test_progress_is_read_from_the_logged_steps(tmp_path: Path) -> None:
    (job, _) = planned(*OPTIONS)
    folder = JobFolder(tmp_path, job)
    assert (folder.step(), folder.progress()) == (None, 0.0)
    make_run(folder.path, "lts", steps=5)  # of 10; its log ends with step 9
    assert (folder.step(), folder.progress()) == (9, 0.9)


def test_a_failed_process_is_reported_with_its_last_line(tmp_path: Path) -> None:
    (job, _) = planned(*OPTIONS)
    with pytest.raises(RuntimeError, match=r"exit code 2; riszoo: unknown verb 'fitt': did you mean 'fit'\?"):
        bench(tmp_path, [job]).execute(job, ["fitt"])


def test_a_killed_process_is_reported_as_killed(tmp_path: Path) -> None:
    (job, _) = planned(*OPTIONS)
    one = bench(tmp_path, [job], launch=["sh", "-c", "kill -9 $$"])
    with pytest.raises(RuntimeError, match="'riszoo fit' was killed, possibly out of memory; "):
        one.execute(job, ["fit"])


def test_a_launcher_starts_trainings_and_tests(tmp_path: Path) -> None:
    torchrun = ["torchrun", "--nproc-per-node", "8"]
    assert bench(tmp_path, [], torchrun).command() == [*torchrun, "-m", "riszoo"]
    assert bench(tmp_path, [], ["srun"]).command() == ["srun", sys.executable, "-m", "riszoo"]
    assert bench(tmp_path, [], ["srun"]).command(launched=False) == [sys.executable, "-m", "riszoo"]


def test_a_bench_refuses_to_run_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(UserError, match="run it once"):
        main(["--dry-run"])
