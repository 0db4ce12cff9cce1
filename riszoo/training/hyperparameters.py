"""Hyperparameters as plain values, so that a checkpoint opens with weights_only and is rebuilt from itself."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


def plain(value: Any) -> Any:
    """Dataclasses to dictionaries, tuples to lists, paths to text; everything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def record_hyperparameters(module: LightningModule) -> None:
    """Called in a base class's constructor: keeps the arguments of the most derived one, plainly."""
    frame = inspect.currentframe()
    assert frame is not None
    module.save_hyperparameters(frame=frame.f_back)
    module.save_hyperparameters({name: plain(value) for name, value in module.hparams.items()})
