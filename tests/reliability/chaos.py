"""Kills a tiny training again and again, and compares its final weights with those of an uninterrupted one.

`make chaos` runs 50 kills and the loss of one of two processes. Every training is a fork of this process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm  # noqa: F401 - imported once, and not in every fork
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from riszoo import recipes
from riszoo.batch import Batch
from riszoo.cli.main import main as riszoo
from riszoo.data.scenes import split as scenes
from riszoo.model import RISModule
from riszoo.training import lightning_cli, runs  # noqa: F401 - imported once, and not in every fork
from tests.support.tiny_training import CONFIG, checkpoint, same_weights

STEPS = 12
TRAINING = {
    "model": {"init_args": {"vision": {"options": {"drop_path_rate": 0.5}}}},
    "trainer": {"max_steps": STEPS, "val_check_interval": 4},
    "run": {"save_steps": 2, "images": 0},
}
KINDS = ("SIGKILL", "SIGTERM", "SIGINT", "killed in a checkpoint", "truncated checkpoint", "disk full")


def at_step(step: int, act: Callable[[], None]) -> None:
    """Call `act` in this process at the start of a step."""
    original = RISModule.training_step

    def training_step(model: RISModule, batch: Batch, batch_idx: int) -> Tensor:
        if model.global_step == step:
            act()
        return original(model, batch, batch_idx)

    RISModule.training_step = training_step  # type: ignore[method-assign]


def die_in_checkpoint() -> None:
    """Kill this process when half of the next checkpoint is written."""

    def save(_: TorchCheckpointIO, content: dict[str, Any], path: Any, *args: Any) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        os.truncate(path, Path(path).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    TorchCheckpointIO.save_checkpoint = save  # type: ignore[method-assign, assignment]


def fill_disk() -> None:
    """Let no file of this process grow beyond 200 kB, less than half a checkpoint."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def write_output_to(path: Path) -> None:
    """Write this fork's output to a file, and compute in one thread: a fork has none of the other threads."""
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    torch.set_num_threads(1)


@dataclass
class Chaos:
    """A series of kills.

    Args:
        folder: of all runs and logs
        seed: of the kinds and moments
    """

    folder: Path
    seed: int
    killed: Counter[str] = field(default_factory=Counter)
    finished: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        assert self.fit("whole") == 0, self.log("whole")
        self.whole = checkpoint(self.folder / "whole")

    def run(self, kills: int) -> None:
        """Kill trainings until there were enough kills, and let the last one end."""
        number = 0
        while sum(self.killed.values()) < kills:
            root = f"training{number}"
            while not self._is_done(root):
                left = kills - sum(self.killed.values())
                kind = KINDS[sum(self.killed.values()) % len(KINDS)] if left > 0 else ""
                self.kill(root, kind)
            assert same_weights(self.whole, checkpoint(self.folder / root)), f"{root} differs: {self.killed}"
            assert not list((self.folder / root).rglob("*.partial"))
            self.finished += 1
            number += 1

    def kill(self, root: str, kind: str) -> None:
        """Continue a training and kill it some steps later."""
        saved = [runs.resumable(path) for path in (self.folder / root).glob("*/checkpoints/last.ckpt")]
        done = int(torch.load(saved[0], weights_only=True)["global_step"]) if saved else 0
        step = self.random.randrange(done, min(done + 5, STEPS)) if done < STEPS else STEPS
        delay = self.random.uniform(0, 0.2)
        code = self.fit(root, kind, step, delay)
        allowed = {"SIGTERM": (143, -15), "SIGINT": (130, -2), "disk full": (2,), "": ()}.get(kind, (-9,))
        assert code in (0, *allowed), f"{kind}: exit code {code}: {self.log(root)}"
        if code != 0:
            self.killed[kind] += 1
            print(f"{sum(self.killed.values())}: {kind} near step {step}, exit code {code}", flush=True)
        if kind == "truncated checkpoint" and code != 0:
            self._truncate(root)

    def _truncate(self, root: str) -> None:
        """Cut off the newest checkpoint, if another one is left."""
        saved = sorted((self.folder / root).glob("*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        if len(saved) > 1 and all(map(zipfile.is_zipfile, saved)):
            os.truncate(saved[-1], self.random.randrange(saved[-1].stat().st_size))

    def _is_done(self, root: str) -> bool:
        cards = [json.loads(path.read_text()) for path in (self.folder / root).glob("*/run.json")]
        tests = list((self.folder / root).glob("*/validate-*/metrics.json"))
        return bool(tests) and any(card.get("training", {}).get("steps") == STEPS for card in cards)

    # -- processes ----------------------------------------------------------------------------------------------------

    def fit(self, root: str, kind: str = "", step: int = 0, delay: float = 0.0) -> int:
        """The exit code of a fork that starts or continues a training; minus the signal's number if it was killed."""
        context = multiprocessing.get_context("fork")
        process = context.Process(target=self._child, args=(root, kind, step, delay))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def _child(self, root: str, kind: str, step: int, delay: float) -> None:
        write_output_to(self.folder / f"{root}.log")
        scenes.PLANS["train"] = scenes.ScenePlan(16, 2)
        at_step(step, self._act(kind, delay))
        can_continue = any((self.folder / root).glob("*/checkpoints/last.ckpt"))
        if not can_continue:
            shutil.rmtree(self.folder / root, ignore_errors=True)
        argv = ["fit", "--run.root", str(self.folder / root)]
        config = json.dumps(recipes.merge(CONFIG, TRAINING))
        code = riszoo([*argv, *(["--ckpt_path", "last"] if can_continue else ["--config", config])])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _act(self, kind: str, delay: float) -> Callable[[], None]:
        if kind in ("killed in a checkpoint", "disk full"):
            return die_in_checkpoint if kind == "killed in a checkpoint" else fill_disk
        if not kind:
            return lambda: None
        signum = signal.SIGKILL if kind == "truncated checkpoint" else signal.Signals[kind]
        return threading.Timer(delay, lambda: os.kill(os.getpid(), signum)).start

    def log(self, root: str) -> str:
        return (self.folder / f"{root}.log").read_text()[-3000:]


def lose_a_process(folder: Path, rank: int) -> tuple[float, int, str]:
    """Kill one of two processes in a training: seconds until the last one ends, exit code of rank 0, its output."""
    endless = recipes.merge(recipes.merge(CONFIG, TRAINING), {"trainer": {"max_steps": 100_000, "devices": 2}})
    options = ["--trainer.strategy", "ddp", "--run.root", str(folder / f"rank{rank}"), "--run.save_steps", "1"]
    command = [sys.executable, "-m", "riszoo", "fit", "--config", json.dumps(endless), *options]
    log = folder / f"rank{rank}.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None and not list(folder.glob(f"rank{rank}/*/checkpoints/last.ckpt")):
            time.sleep(0.2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(process.pid if rank == 0 else int(children[0]), signal.SIGKILL)
        started = time.monotonic()
        others = [int(children[0])] if rank == 0 else [process.pid]
        code = process.wait(60) if rank else -9
        while any(_runs(pid) for pid in others) and time.monotonic() - started < 60:
            time.sleep(0.1)
    return time.monotonic() - started, code, log.read_text()


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def main(argv: list[str] | None = None) -> None:
    """Print how many kills of each kind were survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", action="store_true", help="also lose each of two processes")
    options = parser.parse_args(argv)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), options.seed)
        chaos.run(options.kills)
        counts = ", ".join(f"{count} {kind}" for kind, count in chaos.killed.items())
        print(f"{sum(chaos.killed.values())} kills ({counts}) in {chaos.finished} trainings of {STEPS} steps, all with")
        print(f"the weights of an uninterrupted training, bit for bit; {time.monotonic() - started:.0f} s")
        for rank in (0, 1) if options.processes else ():
            seconds, code, output = lose_a_process(Path(folder), rank)
            lines = [line for line in output.splitlines() if line.strip()]
            print(f"rank {rank} of 2 killed: the other ended after {seconds:.1f} s, exit code {code}: {lines[-1]}")


if __name__ == "__main__":
    main()
