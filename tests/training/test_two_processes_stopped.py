"""A signal to one of two processes (gloo) stops both at the same step, with one checkpoint."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from riszoo import recipes
from riszoo.cli.main import main
from tests.reliability.chaos import at_step, write_output_to
from tests.support.tiny_training import CONFIG, checkpoint, few_images

ENDLESS = {
    "trainer": {"max_steps": 100_000, "val_check_interval": 50_000, "devices": 2, "strategy": "ddp"},
    "run": {"save_steps": 1},
}
SECONDS = 120
"""Until a process that does not end counts as hanging."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def start(argv: list[str], act: Callable[[int], None]) -> list[ForkProcess]:
    """Two forks that train together, as processes of a launcher; `act` is called with the rank at step 2."""
    port = free_port()

    def child(rank: int) -> None:
        write_output_to(Path(f"rank{rank}.log"))
        names = {"LOCAL_RANK": rank, "RANK": rank, "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()})
        at_step(2, lambda: act(rank))
        code = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    processes = [multiprocessing.get_context("fork").Process(target=child, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes: list[ForkProcess]) -> list[int | None]:
    """The exit codes; None for a process that hangs, which is killed."""
    deadline = time.monotonic() + SECONDS
    codes = []
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        codes.append(process.exitcode)
        process.kill()
    return codes


@pytest.mark.parametrize(("receiver", "signum", "code"), [(0, signal.SIGTERM, 143), (1, signal.SIGINT, 130)])
def test_a_signal_to_one_of_two_processes_stops_both_with_one_checkpoint(
    receiver: int, signum: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_images(monkeypatch)

    def act(rank: int) -> None:
        if rank == receiver:
            os.kill(os.getpid(), signum)

    processes = start(["fit", "--config", json.dumps(recipes.merge(CONFIG, ENDLESS))], act)
    assert exit_codes(processes) == [code, 0], Path("rank0.log").read_text()
    assert checkpoint()["global_step"] == 3
    name = signal.Signals(signum).name
    lines = Path("rank0.log").read_text().splitlines()
    assert lines[-1].startswith(f"riszoo: stopped by {name}; continue with: riszoo fit --ckpt_path runs/")
    assert "continue with" not in Path("rank1.log").read_text()


def test_a_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    def child() -> None:
        write_output_to(Path("log"))
        at_step(2, twice)
        os._exit(main(["fit", "--config", json.dumps(CONFIG), "--run.save_steps", "1"]))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert exit_codes([process]) == [-signal.SIGINT]
    assert checkpoint()["global_step"] == 2, "the step was not finished"
