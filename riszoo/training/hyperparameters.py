"""Hyperparameters as plain values, so that a checkpoint can be read with weights_only and rebuilt without a config."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


def plain(value: Any) -> Any:
    """The value with dataclasses as dictionaries, tuples as lists and paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def record_hyperparameters(module: LightningModule) -> None:
    """Save the arguments of the most derived class's constructor as plain values; called in a base class's."""
    frame = inspect.currentframe()
    assert frame is not None
    module.save_hyperparameters(frame=frame.f_back)
    module.save_hyperparameters({name: plain(value) for name, value in module.hparams.items()})
