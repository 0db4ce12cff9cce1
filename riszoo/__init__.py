"""riszoo: a zoo of referring image segmentation models with one training and one evaluation.

`riszoo.load("lts")` returns a trained model for any image. Importing riszoo itself loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from riszoo.inference.predictor import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":
        from riszoo.inference.predictor import load

        return load
    raise AttributeError(f"module 'riszoo' has no attribute '{name}'")
