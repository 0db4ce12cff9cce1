"""Two processes (gloo) that stay alive for all tests of a module: riszoo is imported once, before both are forked."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

Run = Callable[..., list[Any]]
"""Runs a function of a module with its arguments in both processes at once; returns both results."""


@contextmanager
def two_processes(preload: Sequence[str]) -> Iterator[Run]:
    """Both processes, of which Lightning takes the first as rank 0; `preload` names the modules of the functions."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with socket.socket() as free, ExitStack() as stack:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, context, initializer=join, initargs=(rank, port)))
            for rank in range(2)
        ]
        free.close()

        def run(function: Callable[..., Any], *arguments: Any) -> list[Any]:
            return [future.result(timeout=300) for future in [pool.submit(function, *arguments) for pool in pools]]

        yield run


def join(rank: int, port: int) -> None:
    """Set what Lightning reads in a process that it has not launched itself."""
    torch.set_num_threads(1)
    names = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
