"""Checkpoints: how they are written, read, and turned into a model.

With `run.checkpoint: trained` a checkpoint leaves out the frozen encoder weights that came from a weight file. It
records the file's name and SHA-256 instead, and reading it takes these weights from a model built over the same file.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn

from riszoo.build import instantiate
from riszoo.encoders.base import Encoder
from riszoo.errors import UserError
from riszoo.files import file_hash
from riszoo.recipes import Config

if TYPE_CHECKING:
    from riszoo.model import RISModule

STATES = ("state_dict", "current_model_state")
"""Keys of a checkpoint's weights; the second exists beside averaged weights only."""


class RISCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, and reads those that leave out the weights of `model`'s weight files.

    Args:
        model: the model that is trained or loaded
        trained_only: write checkpoints that leave these weights out
    """

    def __init__(self, model: nn.Module, trained_only: bool = False) -> None:
        self.model, self.trained_only = model, trained_only

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a temporary file and rename it: a run that is killed leaves the last complete checkpoint."""
        partial = Path(f"{path}.partial")
        content = drop_file_weights(checkpoint, self.model) if self.trained_only else checkpoint
        super().save_checkpoint(content, partial, storage_options)
        partial.replace(path)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return add_file_weights(super().load_checkpoint(*args, **kwargs), self.model)


def weight_files(model: nn.Module) -> dict[str, Path]:
    """The weight files of the encoders that are frozen in part or in whole, by the encoder's name in the model."""
    encoders = {name: child for name, child in model.named_children() if isinstance(child, Encoder)}
    return {
        name: encoder.weight_file
        for name, encoder in encoders.items()
        if encoder.weight_file is not None and any(not p.requires_grad for p in encoder.parameters())
    }


def file_weights(model: nn.Module, encoders: Iterable[str]) -> dict[str, Tensor]:
    """The frozen parameters of these encoders, under their names in the model."""
    return {
        f"{encoder}.{name}": parameter.detach()
        for encoder in encoders
        for name, parameter in model.get_submodule(encoder).named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }


def drop_file_weights(checkpoint: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The checkpoint without the weights that the weight files provide, with the name and hash of each file."""
    files = weight_files(model)
    dropped = file_weights(model, files).keys()
    states = {
        key: {name: value for name, value in checkpoint[key].items() if name not in dropped}
        for key in STATES
        if key in checkpoint
    }
    recorded = {name: {"file": path.name, "sha256": cached_hash(path)} for name, path in files.items()}
    return {**checkpoint, **states, "riszoo": {**checkpoint.get("riszoo", {}), "weight_files": recorded}}


def add_file_weights(checkpoint: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The whole checkpoint; a model built over another weight file raises UserError."""
    recorded = recorded_files(checkpoint)
    files = weight_files(model)
    for name, original in recorded.items():
        if name not in files:
            raise UserError(
                f"the checkpoint leaves out the weights of {original['file']}: give that file as "
                f"--model.{name}.weights, with the {name} encoder frozen as in training"
            )
        if cached_hash(files[name]) != original["sha256"]:
            raise UserError(
                f"{files[name]} is not the file this checkpoint was trained with: {original['file']} has sha256 "
                f"{original['sha256'][:16]}..., this one {cached_hash(files[name])[:16]}..."
            )
    weights = file_weights(model, recorded)
    return {**checkpoint, **{key: {**weights, **checkpoint[key]} for key in STATES if key in checkpoint}}


def recorded_files(checkpoint: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The weight files that a checkpoint depends on, by encoder: `file` and `sha256`."""
    files: dict[str, dict[str, str]] = checkpoint.get("riszoo", {}).get("weight_files", {})
    return files


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A riszoo checkpoint as it was written, read with weights_only."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a checkpoint that can be read safely: {reason}") from None
    if not isinstance(content, dict) or "state_dict" not in content or "riszoo" not in content:
        raise UserError(f"{path} is not a riszoo checkpoint: it lacks the model's class and weights")
    return content


def model_section(checkpoint: dict[str, Any]) -> Config:
    """The configuration that rebuilds a checkpoint's model. Weights that the checkpoint contains load no file."""
    hyperparameters = checkpoint.get("hyper_parameters", {})
    init_args = {key: value for key, value in hyperparameters.items() if not key.startswith("_")}
    for encoder in ("vision", "text"):
        if isinstance(init_args.get(encoder), dict) and encoder not in recorded_files(checkpoint):
            init_args[encoder] = {**init_args[encoder], "weights": "none"}
    return {"class_path": checkpoint["riszoo"]["class_path"], "init_args": init_args}


def from_checkpoint(path: Path) -> RISModule:
    """The model of a checkpoint with its weights, in evaluation mode."""
    from riszoo.model import RISModule

    checkpoint = read_checkpoint(path)
    model = instantiate(RISModule, model_section(checkpoint))  # type: ignore[type-abstract]
    model.load_state_dict(add_file_weights(checkpoint, model)["state_dict"])
    return model.eval()


def cached_hash(path: Path) -> str:
    """The file's SHA-256, computed once for each version of the file."""
    state = path.stat()
    return _hash(path, state.st_size, state.st_mtime_ns)


@cache
def _hash(path: Path, _size: int, _modified: int) -> str:
    return file_hash(path)
