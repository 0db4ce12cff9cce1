"""`riszoo bench`: train and test what the plan names, one process each, and keep the tables.

Interrupted, the same command goes on where it stopped: a finished step is found by its files and not repeated, a
training continues from its last checkpoint. A job whose recipe has changed since is a new job.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riszoo.bench import plan, rows
from riszoo.bench.plan import Job
from riszoo.errors import UserError
from riszoo.files import file_hash
from riszoo.training import runs

LOOK = 20.0  # seconds between two looks at a training


@dataclass
class Bench:
    """Jobs in order: all speeds first, because they say how long the rest takes."""

    jobs: list[Job]
    root: Path
    out: Path
    launch: list[str]
    repeats: int = 15

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.tests: dict[str, Path] = {}  # by the job
        self.lost: set[str] = set()

    def run(self) -> list[str]:
        """What failed, one line each; the rest is measured all the same."""
        failed = []
        for title, step, job in self._steps():
            if job.name in self.lost:
                continue
            self._say(title)
            try:
                step(job)
            except (RuntimeError, UserError) as error:
                self.lost.add(job.name)
                failed.append(f"{job.title}: {error}")
                self._say(f"{title}: failed, see the end")
        return failed

    def _steps(self) -> Iterator[tuple[str, Callable[[Job], None], Job]]:
        timed = [job for place, job in enumerate(self.jobs) if self._first_of_its_kind(place)]
        for place, job in enumerate(timed, 1):
            yield f"[speed {place}/{len(timed)}] {job.title}", self._speed, job
        for place, job in enumerate(self.jobs, 1):
            yield f"[{place}/{len(self.jobs)}] {job.title}", self._accuracy, job

    def _first_of_its_kind(self, place: int) -> bool:
        """Seeds run alike."""
        kinds = [(job.model, job.variant) for job in self.jobs]
        return kinds.index(kinds[place]) == place

    # -- the steps ----------------------------------------------------------------------------------------------------

    def _speed(self, job: Job) -> None:
        file = self.root / job.name / "speed.json"
        if not file.is_file():
            words = ["speed", job.model, "--data", job.data, "--scale", job.scale, "--repeats", str(self.repeats)]
            words += ["--over", json.dumps(job.over)] if job.over else []
            self._riszoo(job, [*words, "--out", str(file)], launched=False)
        row = json.loads(file.read_text()) | {"variant": job.variant, "config": job.digest}
        rows.upsert(self.out, rows.SPEED, [row])

    def _accuracy(self, job: Job) -> None:
        checkpoint = job.checkpoint or self._trained(job)
        folder = self._tested(job, checkpoint)
        accuracy, types = rows.measured(job, folder)
        rows.upsert(self.out, rows.ACCURACY, accuracy)
        rows.upsert(self.out, rows.TYPES, types)
        self.tests[job.name] = folder

    def _trained(self, job: Job) -> Path:
        """The best checkpoint of a finished training, which is begun or continued where there is none."""
        finished = self._finished(job)
        resumed = [] if finished else sorted(self._runs(job, "last"), key=lambda run: run.name)[-1:]
        ways = [["--ckpt_path", str(runs.checkpoint(run, "last"))] for run in resumed]
        for more in [*ways, []]:
            if finished is None:  # a training killed after its last validation cannot be continued: it starts again
                self._riszoo(job, ["fit", *self._common(job), "--seed_everything", str(job.seed), *more])
                finished = self._finished(job)
        if finished is None:
            raise RuntimeError(f"training left no finished run with a best checkpoint under {self.root / job.name}")
        return runs.checkpoint(finished)

    def _runs(self, job: Job, which: str) -> list[Path]:
        folders = (self.root / job.name).glob("*/")
        return [folder for folder in folders if runs.checkpoint(folder, which).is_file()]

    def _finished(self, job: Job) -> Path | None:
        """The newest run that went to its end."""
        trained = {folder: (runs.card(folder) or {}).get("training") for folder in self._runs(job, "best")}
        done = [folder for folder, training in trained.items() if training and training["steps"] >= (job.steps or 0)]
        return max(done, default=None, key=lambda folder: folder.name)

    def _tested(self, job: Job, checkpoint: Path) -> Path:
        found = self._test_folder(job, checkpoint)
        if found is None:
            words = ["test", *self._common(job), "--ckpt_path", str(checkpoint), "--protocol", job.protocol]
            words += ["--split", ",".join(job.splits)] if job.splits else []
            self._riszoo(job, [*words, "--control", job.controls])
            found = self._test_folder(job, checkpoint)
        if found is None:
            raise RuntimeError(f"the test of {checkpoint} left no results")
        return found

    def _test_folder(self, job: Job, checkpoint: Path) -> Path | None:
        """The newest whole test of this checkpoint that measured everything the job wants."""
        places = [runs.folder_of(checkpoint), *(self.root / job.name).glob("*/")]
        found = {test for place in places for test in place.glob(f"test-{job.data}-*") if _covers(job, test)}
        weights = file_hash(checkpoint) if found else ""
        same = [t for t in found if (rows.circumstances(t)["checkpoint"] or {}).get("sha256") == weights]
        return max(same, default=None, key=lambda test: test.name)

    # -- processes ----------------------------------------------------------------------------------------------------

    def _common(self, job: Job) -> list[str]:
        words = ["--model", job.model, "--data", job.data, "--scale", job.scale]
        words += ["--run.root", str(self.root / job.name)]
        words += ["--config", json.dumps(job.over)] if job.over else []
        words += ["--trainer.num_nodes", str(job.nodes)] if job.nodes else []
        return words + (["--trainer.devices", str(job.devices)] if job.devices else [])

    def _riszoo(self, job: Job, words: list[str], launched: bool = True) -> None:
        """One process each, its output in a log: what one loses, memory included, the others keep."""
        log = self.root / job.name / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = self._command(launched)
        with log.open("a") as file:
            file.write(f"\n$ riszoo {shlex.join(words)}\n")
            file.flush()
            process = subprocess.Popen([*command, *words], stdout=file, stderr=subprocess.STDOUT)
            try:
                code = self._watched(process, job, words[0])
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if code:
            reason = "was killed, perhaps for want of memory" if code in (-9, 137) else f"ended with exit code {code}"
            raise RuntimeError(f"'riszoo {words[0]}' {reason}; {_last_line(log)} ({log})")

    def _command(self, launched: bool) -> list[str]:
        if launched and self.launch:
            through_module = Path(self.launch[0]).name == "torchrun"
            return [*self.launch, *([] if through_module else [sys.executable]), "-m", "riszoo"]
        return [sys.executable, "-m", "riszoo"]

    def _watched(self, process: subprocess.Popen[bytes], job: Job, verb: str) -> int:
        told = None
        while True:
            try:
                return process.wait(LOOK)
            except subprocess.TimeoutExpired:
                step = self._step(job)
                if verb == "fit" and step is not None and step != told:
                    told = step
                    share = f" of {job.steps} ({step / job.steps:.0%})" if job.steps else ""
                    self._say(f"  training, step {step}{share}")

    # -- progress -----------------------------------------------------------------------------------------------------

    def _step(self, job: Job) -> int | None:
        """The last step that the newest training has written of."""
        newest = max((self.root / job.name).glob("*/metrics.csv"), default=None, key=lambda path: path.parent.name)
        steps = [int(float(row["step"])) for row in rows.read(newest) if row.get("step")] if newest else []
        return max(steps, default=None)

    def rates(self) -> dict[str, float]:
        """Training sentences a second, of each model of the plan whose speed is known."""
        wanted = {(job.data, job.scale) for job in self.jobs}
        known = [row for row in rows.read(self.out / rows.SPEED.file) if (row["data"], row["scale"]) in wanted]
        return {row["model"]: float(row["train_sentences_per_s"]) for row in known if not row["variant"]}

    def _say(self, text: str) -> None:
        left = self._left()
        minutes = f", about {left / 60:.0f} min left" if left is not None else ""
        print(f"{text}  ({(time.monotonic() - self.started) / 60:.1f} min{minutes})", flush=True)

    def _left(self) -> float | None:
        """Seconds: what is not measured yet at the measured speeds; None while a speed is missing."""
        rates, total = self.rates(), 0.0
        for job in self.jobs:
            if job.name in self.lost or job.name in self.tests:
                continue
            cost = plan.seconds(job, rates)
            if cost is None:
                return None
            training, test = cost
            done = self._share(job)
            total += training * (1 - done) + test
        return total

    def _share(self, job: Job) -> float:
        """How much of a training is behind it."""
        if self._finished(job) is not None:
            return 1.0
        return min(1.0, (self._step(job) or 0) / job.steps) if job.steps else 0.0


def _covers(job: Job, test: Path) -> bool:
    """Whether a test measured every split, control and protocol that the job wants."""
    try:
        splits: dict[str, Any] = json.loads((test / "metrics.json").read_text())["splits"]
    except (OSError, json.JSONDecodeError, KeyError):
        return False
    wanted = job.splits or job.config["data"]["init_args"].get("test_splits", ["val"])
    names = [f"{split}{'' if control == 'none' else f'-{control}'}" for split in wanted
             for control in job.controls.split(",")]  # fmt: skip
    count = len(set(job.protocol.split(",")))
    return all(name in splits and len(splits[name]["protocols"]) >= count for name in names)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-200:] if lines else "it said nothing"
