"""The files of one job: how a bench finds out which of its steps are finished."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riszoo.bench import rows
from riszoo.bench.plan import Job
from riszoo.errors import UserError
from riszoo.files import file_hash
from riszoo.training import runs


@dataclass(frozen=True)
class JobFolder:
    """`<root>/<job>/` with log.txt, speed.json and the run folders of the job's trainings."""

    root: Path
    job: Job

    @property
    def path(self) -> Path:
        return self.root / self.job.name

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def speed_file(self) -> Path:
        return self.path / "speed.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One bench at a time works on a job: another one waits, and then finds what is finished."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{self.job.title}: another bench works in {self.path}, waiting for it", flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def finished_run(self) -> Path | None:
        """The newest run that trained all its steps and has a best checkpoint."""
        trained = {run: (runs.card(run) or {}).get("training") for run in self._runs("best")}
        done = [run for run, training in trained.items() if training and training["steps"] >= (self.job.steps or 0)]
        return done[-1] if done else None

    def last_checkpoint(self) -> Path | None:
        """The last checkpoint of the newest run, from which a training can continue."""
        started = self._runs("last")
        return runs.checkpoint(started[-1], "last") if started else None

    def _runs(self, which: str) -> list[Path]:
        """Run folders with such a checkpoint, the newest last."""
        folders = sorted(self.path.glob("*/"), key=lambda folder: folder.name)
        return [folder for folder in folders if runs.checkpoint(folder, which).is_file()]

    def step(self) -> int | None:
        """The last step that the newest training has logged."""
        newest = max(self.path.glob("*/metrics.csv"), default=None, key=lambda path: path.parent.name)
        steps = [int(float(row["step"])) for row in rows.read_csv(newest) if row.get("step")] if newest else []
        return max(steps, default=None)

    def progress(self) -> float:
        """The finished part of the training, 0..1."""
        if self.finished_run() is not None:
            return 1.0
        return min(1.0, (self.step() or 0) / self.job.steps) if self.job.steps else 0.0

    def test_of(self, checkpoint: Path) -> Path | None:
        """The newest complete test of this checkpoint that measured everything the job asks for."""
        folders = {runs.folder_of(checkpoint), *self.path.glob("*/")}
        found = [
            test for folder in folders for test in folder.glob(f"test-{self.job.data}-*") if self._is_covered(test)
        ]
        weights = file_hash(checkpoint) if found else ""
        same = [test for test in found if (rows.circumstances(test)["checkpoint"] or {}).get("sha256") == weights]
        return max(same, default=None, key=lambda test: test.name)

    def _is_covered(self, test: Path) -> bool:
        """Whether a test measured every split, control and protocol of the job, on all of the job's images."""
        options = self.job.config["data"]["init_args"]
        try:
            measured: dict[str, Any] = json.loads((test / "metrics.json").read_bytes())["splits"]
            images = rows.circumstances(test)["data_section"]["init_args"].get("test_images")
        except (OSError, json.JSONDecodeError, KeyError, TypeError, UserError):
            return False
        if images != options.get("test_images"):
            return False
        splits = self.job.splits or options.get("test_splits", ["val"])
        suffixes = ["" if control == "none" else f"-{control}" for control in self.job.controls.split(",")]
        names = [f"{split}{suffix}" for split in splits for suffix in suffixes]
        protocols = self.job.protocols
        return all(name in measured and protocols <= measured[name]["protocols"].keys() for name in names)
