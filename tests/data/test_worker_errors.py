"""An error in a loading process is reported as its sentence, without the process's traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from riszoo.data.images import ImageError
from riszoo.errors import UserError

SENTENCE = "image a: b.png cannot be read: it is cut; replace the file"


class Broken(Dataset[int]):
    def __init__(self, kind: type[UserError]) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            raise OSError("the cause")
        except OSError as error:
            raise self.kind(SENTENCE) from error


@pytest.mark.parametrize("kind", [UserError, ImageError])
def test_an_error_of_a_loading_process_is_its_sentence(kind: type[UserError]) -> None:
    with pytest.raises(kind) as caught:
        next(iter(DataLoader(Broken(kind), num_workers=1)))
    assert str(caught.value) == SENTENCE


LEFT = """
from torch.utils.data import DataLoader
from riszoo.data.datamodule import ignore_signals
batches = iter(DataLoader(range(100), num_workers=1, worker_init_fn=ignore_signals))
print(int(next(batches)))
"""


def test_a_program_ends_although_loading_processes_are_left() -> None:
    """They ignore the signal by which multiprocessing ends its processes at exit."""
    with subprocess.Popen([sys.executable, "-c", LEFT], stdout=subprocess.PIPE, start_new_session=True) as program:
        try:
            output, _ = program.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            raise
    assert (program.returncode, output) == (0, b"0\n")
