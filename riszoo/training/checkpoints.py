"""Checkpoints that hold only what was trained: the rest comes back from the weight files it was trained over.

Each file is known by its sha256, kept in the checkpoint, so that another file is refused instead of half fitting.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from riszoo.encoders.adapters import trained_names
from riszoo.encoders.base import Encoder, TextConfig
from riszoo.encoders.weights import may_download
from riszoo.errors import UserError
from riszoo.files import file_hash

STATES = ("state_dict", "current_model_state")
"""Where a checkpoint keeps weights; the second beside averaged ones."""


def text_file(text: TextConfig) -> Path:
    """The file of a folder's or a hub model's weights."""
    from transformers.utils import cached_file

    for name in ("model.safetensors", "pytorch_model.bin"):
        found = cached_file(
            text.name, name, local_files_only=not may_download(), _raise_exceptions_for_missing_entries=False
        )
        if found is not None:
            return Path(found)
    raise UserError(f"no weights file of {text.name}: it needs model.safetensors in its folder or the local cache")


def frozen_sources(model: nn.Module, text: TextConfig) -> dict[str, Path]:
    """The weight files of the encoders (children `vision` and `text`) that are frozen in part or in whole."""
    sources = {}
    vision = model.get_submodule("vision")
    if isinstance(vision, Encoder) and vision.weight_file and has_frozen(vision):
        sources["vision"] = vision.weight_file
    if text.weights != "none" and has_frozen(model.get_submodule("text")):
        sources["text"] = text_file(text)
    return sources


def has_frozen(encoder: nn.Module) -> bool:
    return any(not parameter.requires_grad for parameter in encoder.parameters())


def frozen_state(model: nn.Module, sources: dict[str, Path]) -> dict[str, Tensor]:
    """What the files give back."""
    trained = trained_names(model)
    parameters = {name for name, _ in model.named_parameters()} - trained
    return {
        name: value
        for name, value in model.state_dict().items()
        if name in parameters and name.split(".", 1)[0] in sources
    }


def keep_trained(checkpoint: dict[str, Any], model: nn.Module, sources: dict[str, Path]) -> None:
    """Leave out of a checkpoint what the files give back, and note which files those are."""
    frozen = frozen_state(model, sources).keys()
    for states in STATES:
        if states in checkpoint:
            checkpoint[states] = {name: value for name, value in checkpoint[states].items() if name not in frozen}
    checkpoint["riszoo"]["sources"] = {
        name: {"file": path.name, "sha256": known_hash(path)} for name, path in sources.items()
    }


def restore_frozen(checkpoint: dict[str, Any], model: nn.Module, sources: dict[str, Path]) -> None:
    """Fill in what was left out from the model as its files made it; files that differ are an error."""
    kept = checkpoint.get("riszoo", {}).get("sources", {})
    for name, source in kept.items():
        if name not in sources:
            raise UserError(
                f"the checkpoint holds only what was trained over {source['file']}: give that file as "
                f"--model.{name}.weights, with the {name} encoder frozen as it was"
            )
        if known_hash(sources[name]) != source["sha256"]:
            raise UserError(
                f"{sources[name]} is not the file this checkpoint was trained over: {source['file']} has sha256 "
                f"{source['sha256'][:16]}..., this one {known_hash(sources[name])[:16]}..."
            )
    if kept:
        frozen = frozen_state(model, {name: sources[name] for name in kept})
        for states in STATES:
            if states in checkpoint:
                checkpoint[states] = {**frozen, **checkpoint[states]}


def known_hash(path: Path) -> str:
    """A large file is read once, unless it changes."""
    state = path.stat()
    return _hash((path, state.st_size, state.st_mtime_ns))


@cache
def _hash(version: tuple[Path, int, int]) -> str:
    return file_hash(version[0])
