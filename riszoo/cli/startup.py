"""Faster imports of PyTorch, Lightning and what they import, which are nearly all of a short command's time."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

UNUSED = ("wandb",)
"""timm imports wandb for its own training script where it is installed; with it, the imports take a twelfth longer."""


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import modules without collecting garbage, and as if the packages of `UNUSED` were not installed.

    Classes and functions that are imported live as long as the process. Collections visit them again and again while
    more are imported, which takes a sixth of the processor time of the imports, and find little to free.

    Ctrl-C ends the imports when they are done, or at the second time: one in the middle may be swallowed by a package
    that tries to import another one, and leave that half imported.
    """
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in UNUSED if name not in modules]
    enabled = gc.isenabled()
    modules.update(dict.fromkeys(hidden))  # None: an import raises ModuleNotFoundError
    gc.disable()
    try:
        with _interrupts_held():
            yield
    finally:
        for name in hidden:
            del modules[name]
        if enabled:
            gc.freeze()
            gc.unfreeze()  # everything is in the oldest generation now, which the next collections leave out
            gc.enable()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a Ctrl-C at the end; a second one at once."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(signum: int, frame: FrameType | None) -> None:
        if held:
            signal.default_int_handler(signum, frame)
        held.append(signum)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt
