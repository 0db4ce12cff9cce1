"""The benchmark: what it plans, how it goes on after an interruption or a failure, and that its files stay whole."""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest

from riszoo import recipes
from riszoo.bench import plan, rows
from riszoo.bench.runner import Bench
from riszoo.cli.bench import main, parser
from riszoo.errors import UserError
from tests.support.bench_runs import make_run


def planned(*words: str) -> list[plan.Job]:
    return plan.make(parser().parse_args(list(words)))


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_every_model_of_the_scale_is_planned_and_a_seed_is_a_job() -> None:
    tiny = [name for name in recipes.names("models") if "tiny" in recipes.get("models", name).scales]
    assert [job.model for job in planned()] == tiny
    assert [job.seed for job in planned("--models", "lts", "--seeds", "3")] == [0, 1, 2]
    assert len({job.name for job in planned("--models", "lts", "--seeds", "3")}) == 3
    rounds = [(job.seed, job.model) for job in planned("--models", "lts,vipa", "--seeds", "2")]
    assert rounds == [(0, "lts"), (0, "vipa"), (1, "lts"), (1, "vipa")], "an interruption leaves whole comparisons"


def test_a_budget_sets_steps_and_validates_once_before_the_end() -> None:
    (job,) = planned("--models", "lts", "--budget", "640")
    assert (job.steps, job.sentences()) == (10, 640)
    assert job.config["trainer"]["val_check_interval"] == 10
    assert job.name != planned("--models", "lts")[0].name, "another length is another run"
    with pytest.raises(UserError, match="--budget 3 is less than one batch"):
        planned("--models", "lts", "--budget", "3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "original,typo"], "there is no protocol 'typo'"),
        (["--controls", "none,blnak"], "unknown control 'blnak': choose among none, shuffled, blank"),
        (["--controlled", "--scale", "paper"], "leave --controlled or --scale out"),
        (["--ablation", "vipa", "--models", "lts"], "leave --ablation or --models out"),
    ],
)
def test_what_a_test_would_refuse_is_refused_before_anything_is_trained(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned(*words)


def test_an_ablation_is_its_rows_laid_upon_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "lts.yaml").write_text(
        "title: of LTS\nprior:\n  title: The prior\n  claim: [none, filter]\n"
        "  rows: {none: {model: {size: 64}}, filter: {}}\nwhere: {rows: {far: {model: {size: 32}}}}\n"
    )
    monkeypatch.setattr(recipes, "folders", lambda: (tmp_path, *real))
    jobs = planned("--ablation", "lts")
    assert [job.variant for job in jobs] == ["prior/none", "prior/filter", "where/far"]
    assert [job.config["model"]["init_args"]["size"] for job in jobs] == [64, 96, 32]
    assert [job.variant for job in planned("--ablation", "lts/where")] == ["where/far"]
    with pytest.raises(UserError, match="unknown table of ablation 'lts' 'were': did you mean 'where'"):
        planned("--ablation", "lts/were")
    (tmp_path / "ablations" / "broken.yaml").write_text("prior: {title: The prior}\n")
    with pytest.raises(UserError, match="table 'prior' has no 'rows'"):
        planned("--ablation", "broken")
    with pytest.raises(UserError, match="unknown ablation 'ltz': did you mean 'lts'"):
        planned("--ablation", "ltz")


real = recipes.folders()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "ltz"], "unknown model 'ltz'"),
        (["--models", "lts", "--scale", "huge"], "unknown scale of 'lts' 'huge'"),
        (["--data", "scene"], "unknown data set 'scene'"),
        (["--checkpoints", "none.yaml"], "cannot read none.yaml"),
        (["--seeds", "0"], "--seeds 0: give at least 1"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([*words, "--dry-run"])


def test_a_dry_run_tells_the_cost_where_the_speed_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"data": "scenes", "model": "lts", "scale": "tiny", "device": "cpu", "train_sentences_per_s": 100.0}
    rows.upsert(tmp_path, rows.SPEED, [known])
    assert main(["--models", "lts", "--budget", "64000", "--out", str(tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "64,000 sentences, about 17 min" in said  # 640 s, a quarter more for validations, 30 % of it for the test
    (job,) = planned("--models", "lts", "--data", "refcoco", "--scale", "paper")
    assert job.sentences() == 45 * 42_404
    assert plan.seconds(job, {}) is None


# -- the files of numbers ---------------------------------------------------------------------------------------------


def test_rows_are_replaced_by_key_and_sorted(tmp_path: Path) -> None:
    row = {"data": "scenes", "model": "b", "scale": "tiny", "device": "cpu", "parameters": 1}
    rows.upsert(tmp_path, rows.SPEED, [row, row | {"model": "a"}])
    rows.upsert(tmp_path, rows.SPEED, [row | {"parameters": 2}])
    found = rows.read(tmp_path / "speed.csv")
    assert [(r["model"], r["parameters"]) for r in found] == [("a", "1"), ("b", "2")]


def write_many(folder: Path, worker: int) -> None:
    for i in range(20):
        row = {"data": "scenes", "model": f"{worker}-{i}", "scale": "tiny", "device": "cpu"}
        rows.upsert(folder, rows.SPEED, [row])


def test_several_benches_at_once_lose_no_row(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(tmp_path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(rows.read(tmp_path / "speed.csv")) == 60


def test_a_test_becomes_rows_with_all_that_made_them(tmp_path: Path) -> None:
    test = make_run(tmp_path, "lts", shift=2, seen=3, splits=("val", "testA"))
    (job,) = planned("--models", "lts")
    accuracy, types = rows.measured(job, test)
    assert {(row["split"], row["control"]) for row in accuracy} == {
        ("val", "none"), ("testA", "none"), ("val", "shuffled"),
    }  # fmt: skip
    row = next(row for row in accuracy if row["split"] == "val" and row["control"] == "none")
    said = json.loads((test / "metrics.json").read_text())["splits"]["val"]["protocols"]["original"]
    assert row["mIoU"] == said["values"]["mIoU"]
    assert [row["oIoU_low"], row["oIoU_high"]] == said["intervals"]["oIoU"]
    assert row["images_trained_on"] == 3
    assert all(row[name] not in (None, "") for name in (*rows.ACCURACY.key, *rows.MADE_BY) if name != "variant")
    assert {row["type"] for row in types if row["split"] == "val"} == set(said["by_type"])


def test_a_split_of_mixed_sets_counts_for_its_own_set() -> None:
    job = plan.Job("lts", "mixed", "paper")
    who = rows._who(job, {"split": "refcoco+/testA"})
    assert (who["data"], who["split"], who["trained"]) == ("refcoco+", "testA", "mixed")


# -- the processes ----------------------------------------------------------------------------------------------------


def bench(tmp_path: Path, jobs: list[plan.Job]) -> Bench:
    return Bench(jobs, tmp_path / "runs", tmp_path / "out", [], 1)


class Recorded:
    """Stands in for the processes: notes what is asked for and leaves what they would leave."""

    def __init__(self, tmp_path: Path, fail: str = "") -> None:
        self.tmp_path, self.fail, self.asked = tmp_path, fail, []  # type: ignore[var-annotated]

    def __call__(self, job: plan.Job, words: list[str], launched: bool = True) -> None:
        self.asked.append((words[0], job.seed))
        if f"{words[0]} {job.seed}" == self.fail:
            raise RuntimeError("'riszoo fit' was killed, perhaps for want of memory")
        if words[0] == "speed":
            file = Path(words[words.index("--out") + 1])
            file.parent.mkdir(parents=True, exist_ok=True)
            row: dict[str, Any] = dict.fromkeys(rows.SPEED.values, 1.0)
            file.write_text(
                json.dumps(row | {"data": job.data, "model": job.model, "scale": job.scale, "device": "cpu"})
            )
        elif words[0] == "fit":
            test = make_run(self.tmp_path / "runs" / job.name, job.model, shift=1 + job.seed, steps=job.steps or 1)
            test.rename(test.with_name("kept"))
        else:
            (kept,) = (self.tmp_path / "runs" / job.name).glob("*/kept")
            kept.rename(kept.with_name("test-scenes-20260101-000001"))


JOBS = ["--models", "lts", "--splits", "val", "--controls", "none,shuffled", "--budget", "640", "--seeds", "2"]


def test_one_failure_does_not_lose_the_others_and_the_rest_is_made_up_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = planned(*JOBS)
    first = Recorded(tmp_path, fail="fit 0")
    one = bench(tmp_path, jobs)
    monkeypatch.setattr(one, "_riszoo", first)
    (failure,) = one.run()
    assert "seed 0" in failure
    assert "memory" in failure
    assert {row["seed"] for row in rows.read(tmp_path / "out" / "accuracy.csv")} == {"1"}
    again = Recorded(tmp_path)
    two = bench(tmp_path, jobs)
    monkeypatch.setattr(two, "_riszoo", again)
    assert two.run() == []
    assert again.asked == [("fit", 0), ("test", 0)], "what was finished is not repeated"
    assert {row["seed"] for row in rows.read(tmp_path / "out" / "accuracy.csv")} == {"0", "1"}
    assert list(two.tests) == [job.name for job in jobs]


def test_a_training_that_was_cut_short_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job, _) = planned(*JOBS)
    one = bench(tmp_path, [job])
    test = make_run(tmp_path / "runs" / job.name, "lts", steps=5)  # of 10
    best = test.parent / "checkpoints" / "best.ckpt"
    best.with_name("last.ckpt").write_bytes(best.read_bytes())
    asked: list[list[str]] = []
    monkeypatch.setattr(one, "_riszoo", lambda job, words: asked.append(words))
    with pytest.raises(RuntimeError, match="no finished run"):
        one._trained(job)
    assert asked[0][-2:] == ["--ckpt_path", str(best.with_name("last.ckpt"))]
    assert "--ckpt_path" not in asked[1], "when that fails it starts again"


def test_a_test_of_other_weights_or_fewer_splits_does_not_count(tmp_path: Path) -> None:
    job, wider = planned(*JOBS)[0], planned("--models", "lts", "--budget", "640")[0]
    one = bench(tmp_path, [job])
    test = make_run(tmp_path / "runs" / job.name, "lts")
    checkpoint = test.parent / "checkpoints" / "best.ckpt"
    assert one._test_folder(job, checkpoint) == test
    assert one._test_folder(wider, checkpoint) is None
    checkpoint.write_bytes(checkpoint.read_bytes() + b"changed")
    assert one._test_folder(job, checkpoint) is None


def test_a_failed_process_is_told_with_its_last_words(tmp_path: Path) -> None:
    (job, _) = planned(*JOBS)
    one = bench(tmp_path, [job])
    with pytest.raises(RuntimeError, match=r"exit code 2; riszoo: unknown verb 'fitt': did you mean 'fit'\?"):
        one._riszoo(job, ["fitt"])


def test_a_killed_process_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job, _) = planned(*JOBS)
    one = bench(tmp_path, [job])
    monkeypatch.setattr(one, "_watched", lambda process, job, verb: (process.kill(), -signal.SIGKILL)[1])
    with pytest.raises(RuntimeError, match="killed, perhaps for want of memory"):
        one._riszoo(job, ["list"])


def test_a_launcher_starts_each_process(tmp_path: Path) -> None:
    one = bench(tmp_path, [])
    one.launch = ["torchrun", "--nproc-per-node", "8"]
    assert one._command(True) == ["torchrun", "--nproc-per-node", "8", "-m", "riszoo"]
    one.launch = ["srun"]
    assert one._command(True)[0] == "srun"
    assert one._command(True)[-2:] == ["-m", "riszoo"]
    assert one._command(False)[0] != "srun"


def test_a_bench_is_not_started_by_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(UserError, match="run it once"):
        main(["--dry-run"])
