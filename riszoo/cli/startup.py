"""Faster imports of PyTorch, Lightning and what they import, which are nearly all of a short command's time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

UNUSED = ("wandb",)
"""timm imports wandb for its own training script where it is installed; with it, the imports take a twelfth longer."""


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import modules without collecting garbage, and as if the packages of `UNUSED` were not installed.

    Classes and functions that are imported live as long as the process. Collections visit them again and again while
    more are imported, which takes a sixth of the processor time of the imports, and find little to free.
    """
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in UNUSED if name not in modules]
    enabled = gc.isenabled()
    modules.update(dict.fromkeys(hidden))  # None: an import raises ModuleNotFoundError
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
        if enabled:
            gc.freeze()
            gc.unfreeze()  # everything is in the oldest generation now, which the next collections leave out
            gc.enable()
