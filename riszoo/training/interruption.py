"""Signals that end a training: what is noted, what the user reads, and how a SLURM job is put back into its queue. A
training claims its folder, so that it is not continued twice at a time."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import IO

from lightning.pytorch.utilities.exceptions import SIGTERMException

from riszoo.errors import UserError
from riszoo.training.runs import LOCK

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


_claims: list[IO[str]] = []


def claim(folder: Path) -> None:
    """Keep other processes from training in a run's folder until `release_claims` or the end of this one, and remove
    what an interrupted one left of a checkpoint. Where the file system has no locks, nobody is kept out."""
    handle = (folder / LOCK).open("w")
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # loading processes do not inherit it
    except (BlockingIOError, PermissionError):
        handle.close()
        raise UserError(f"another process trains in {folder}: wait until it has ended, or stop it") from None
    except OSError:
        handle.close()
    else:
        _claims.append(handle)
    for partial in folder.glob("checkpoints/*.partial"):
        partial.unlink()


def release_claims() -> None:
    while _claims:
        _claims.pop().close()


class Interrupted(Exception):  # noqa: N818 - not an error
    """Raised at the end of a step, after its checkpoint was written, in a training that received a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"the training received {signal.Signals(signum).name}")
        self.signum = signum


class SignalHandler:
    """Notes the first signal in `received`; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.received = 0

    def install(self) -> None:
        """Handle the signals, where this is the main thread; Lightning restores the earlier handlers after the run."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received and signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        if not self.received and os.environ.get("LOCAL_RANK", "0") == "0":
            again = ", again to stop at once" if signum == signal.SIGINT else ""
            text = f"\nriszoo: {signal.Signals(signum).name}: saving a checkpoint at the end of this step{again}\n"
            os.write(2, text.encode())  # print could be interrupted by its own call
        self.received = self.received or signum


def signal_of(error: BaseException) -> int | None:
    """The signal that ended a run: Lightning turns Ctrl-C into sys.exit(1) and SIGTERM into its own exception."""
    if isinstance(error, Interrupted):
        return error.signum
    if isinstance(error, SIGTERMException):
        return signal.SIGTERM
    interrupted = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
    return signal.SIGINT if interrupted else None


def describe_stop(signum: int, checkpoint: Path) -> str:
    """One line: what ended the training and the command that continues it."""
    name = signal.Signals(signum).name
    if not checkpoint.is_file():
        return f"riszoo: stopped by {name} before the first checkpoint"
    return f"riszoo: stopped by {name}; continue with: riszoo fit --ckpt_path {shlex.quote(str(checkpoint))}"


def requeue_job() -> str | None:
    """Put this SLURM job back into its queue; one line about it, None outside SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    if "SLURM_ARRAY_JOB_ID" in os.environ and "SLURM_ARRAY_TASK_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if job is None:
        return None
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"riszoo: job {job} could not be requeued: scontrol: {error.strerror}"
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        return f"riszoo: job {job} could not be requeued: {reason}"
    return f"riszoo: requeued job {job}"
