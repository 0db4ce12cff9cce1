"""riszoo: a zoo of referring image segmentation models with one training and one evaluation.

`riszoo.load("lts")` returns a trained model for any image; `riszoo.train` and `riszoo.evaluate` are the verbs `fit` and
`test` as functions. Importing riszoo itself loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from riszoo.cli.functions import evaluate as evaluate
    from riszoo.cli.functions import train as train
    from riszoo.inference.hub.loading import from_pretrained as from_pretrained
    from riszoo.inference.predictor import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "from_pretrained", "load", "train"]

FUNCTIONS = {
    "evaluate": "riszoo.cli.functions",
    "from_pretrained": "riszoo.inference.hub.loading",
    "load": "riszoo.inference.predictor",
    "train": "riszoo.cli.functions",
}
"""The module of each function, which is imported when the function is first used."""


def __getattr__(name: str) -> Any:
    if name in FUNCTIONS:
        return getattr(importlib.import_module(FUNCTIONS[name]), name)
    raise AttributeError(f"module 'riszoo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *FUNCTIONS})
