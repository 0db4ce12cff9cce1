"""Two processes (gloo) that stay alive for all tests of a module: riszoo is imported once, before both are forked."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

Run = Callable[..., list[Any]]
"""Runs a function of a module with its arguments in both processes at once; returns both results."""


@contextmanager
def two_processes(preload: Sequence[str]) -> Iterator[Run]:
    """Both processes, of which Lightning takes the first as rank 0; `preload` names the modules of the functions.

    Where the operating system or gloo lost one of them or their connection, the call is made once more, by two new
    ones, with a warning: what these tests compare does not depend on it, and a crash of ours comes again.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with ExitStack() as stack:

        def start() -> list[ProcessPoolExecutor]:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            pools = [ProcessPoolExecutor(1, context, initializer=join, initargs=(rank, port)) for rank in range(2)]
            return [stack.enter_context(pool) for pool in pools]

        pools = start()

        def run(function: Callable[..., Any], *arguments: Any) -> list[Any]:
            futures = submit(pools, function, *arguments)
            if told := failures(futures):
                assert lost(futures), told
                warnings.warn(f"{function.__name__} runs once more, as a process was lost: {told}", stacklevel=2)
                pools[:] = start()
                futures = submit(pools, function, *arguments)
                assert not failures(futures), failures(futures)
            return [future.result() for future in futures]

        yield run


def submit(pools: Sequence[ProcessPoolExecutor], function: Callable[..., Any], *arguments: Any) -> list[Future[Any]]:
    """The calls in both processes, ended; shortly after one has failed, the other may still be at work."""
    futures = [pool.submit(function, *arguments) for pool in pools]
    wait(futures, timeout=300, return_when=FIRST_EXCEPTION)
    wait(futures, timeout=10)
    return futures


def failures(futures: Sequence[Future[Any]]) -> str:
    """Every failed call with its traceback, as the error of a peer is often but the consequence; empty where none."""
    told = []
    for rank, future in enumerate(futures):
        error = future.exception() if future.done() else TimeoutError("still at work")
        told += [f"process {rank}: {''.join(traceback.format_exception(error))}"] if error else []
    return "\n".join(told)


def lost(futures: Sequence[Future[Any]]) -> bool:
    """Whether every failure is that of a process or connection that is gone."""
    signs = ("Connection closed by peer", "Connection reset by peer", "terminated abruptly")
    errors = [future.exception() for future in futures if future.done()]
    return all(any(sign in str(error) for sign in signs) for error in errors if error) and any(errors)


def join(rank: int, port: int) -> None:
    """Set what Lightning reads in a process that it has not launched itself; a crash says where."""
    faulthandler.enable()
    torch.set_num_threads(1)
    names = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
