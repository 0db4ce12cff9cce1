"""Checkpoints: how they are written, read, and turned into a model.

With `run.checkpoint: trained` a checkpoint leaves out the frozen encoder weights that came from a weight file. It
records the file's name and SHA-256 instead, and reading it takes these weights from a model built over the same file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from riszoo.training.checkpoint_checks import check_class, check_content, check_weights, load_file
from riszoo.training.exchange import completed, own_form, read_safetensors

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
        try:
            super().save_checkpoint(content, partial, storage_options)
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError where a write fails
            partial.unlink(missing_ok=True)
            kept = "the earlier one is kept" if Path(path).is_file() else "there is no earlier one"
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            raise UserError(
                f"cannot write the checkpoint {path}: {reason} ({kept}); make room there or choose another --run.root"
            ) from error

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The whole checkpoint; weights that do not fit the model raise UserError."""
        content = completed(load_content(Path(path), mmap=False), self.model)
        content = add_file_weights(content, self.model)
        check_weights(content["state_dict"], self.model, Path(path))
        return content


def pretrained_files(model: nn.Module) -> dict[str, Path]:
    """The files that the weights of the encoders began with, by the encoder's name in the model."""
    encoders = {name: child for name, child in model.named_children() if isinstance(child, Encoder)}
    files = {name: Path(child.weight_file) for name, child in encoders.items() if child.weight_file is not None}
    return {name: path for name, path in files.items() if path.is_file()}


def weight_files(model: nn.Module) -> dict[str, Path]:
    """The weight files of the encoders that are frozen in part or in whole, by the encoder's name in the model."""
    return {
        name: path
        for name, path in pretrained_files(model).items()
        if any(not p.requires_grad for p in model.get_submodule(name).parameters())
    }


def hashes(files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Name and hash of weight files, by encoder."""
    return {name: {"file": path.name, "sha256": cached_hash(path)} for name, path in files.items()}


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
    return {**checkpoint, **states, "riszoo": {**checkpoint.get("riszoo", {}), "weight_files": hashes(files)}}


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


def load_content(path: Path, *, mmap: bool = True) -> Any:
    """The content of a file, read with weights_only; a published checkpoint is translated to riszoo's form."""
    return own_form(read_safetensors(path) if path.suffix == ".safetensors" else load_file(path, mmap=mmap), path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of riszoo as it was written, or a published one translated."""
    return check_content(load_content(path), path)


NOT_RECORDED = "not recorded"
"""The name of a recipe that a checkpoint does not state."""


def run_names(checkpoint: dict[str, Any]) -> dict[str, str]:
    """The recipes that a checkpoint's model was trained by: `model`, `data`, `scale`."""
    names: dict[str, str] = checkpoint["riszoo"].get("run", {})
    model = checkpoint["riszoo"]["class_path"].rpartition(".")[2].lower()
    return {"model": model, "data": NOT_RECORDED, "scale": NOT_RECORDED, **names}


def model_section(checkpoint: dict[str, Any]) -> Config:
    """The configuration that rebuilds a checkpoint's model. Weights that the checkpoint contains load no file."""
    init_args = {key: value for key, value in checkpoint["hyper_parameters"].items() if not key.startswith("_")}
    for encoder in ("vision", "text"):
        if isinstance(init_args.get(encoder), dict) and encoder not in recorded_files(checkpoint):
            init_args[encoder] = {**init_args[encoder], "weights": "none"}
    return {"class_path": checkpoint["riszoo"]["class_path"], "init_args": init_args}


def from_checkpoint(path: Path, model: str = "") -> RISModule:
    """The model of a checkpoint with its weights, in evaluation mode.

    Its class must be that of `model`, a recipe or a class path; where none is given, that of any recipe.
    """
    from riszoo.model import RISModule

    checkpoint = read_checkpoint(path)
    check_class(checkpoint, path, model)
    built = instantiate(RISModule, model_section(checkpoint))  # type: ignore[type-abstract]
    weights = add_file_weights(completed(checkpoint, built), built)["state_dict"]
    check_weights(weights, built, path)
    built.load_state_dict(weights)
    return built.eval()


def load_initial(model: RISModule, path: Path) -> dict[str, Any]:
    """Load a checkpoint's weights into a model whose vocabulary may be larger; returns the checkpoint.

    The vectors of words that the checkpoint lacks keep their random values.
    """
    checkpoint = read_checkpoint(path)
    weights = dict(add_file_weights(completed(checkpoint, model), model)["state_dict"])
    for name, own in model.text.state_dict(prefix="text.").items():
        vectors = weights.get(name)
        if vectors is not None and own.ndim == 2 and own.shape[1:] == vectors.shape[1:] and len(own) > len(vectors):
            weights[name] = torch.cat([vectors, own[len(vectors) :].to(vectors)])
    check_weights(weights, model, path)
    model.load_state_dict(weights)
    return checkpoint


def cached_hash(path: Path) -> str:
    """The file's SHA-256, computed once for each version of the file."""
    state = path.stat()
    return _hash(path, state.st_size, state.st_mtime_ns)


@cache
def _hash(path: Path, _size: int, _modified: int) -> str:
    return file_hash(path)
