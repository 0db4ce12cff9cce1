"""Checkpoints in other forms: those of a model's authors, and weights without the state of a training.

A published checkpoint is recognised by its keys and read as riszoo's own. A recipe names, as `checkpoints`, the module
beside its model that recognises and translates them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from riszoo import recipes
from riszoo.errors import UserError
from riszoo.recipes import Config
from riszoo.translation import Translation

Content = dict[str, Any]
METADATA = "riszoo"
"""The key of a .safetensors file's metadata that has all but the weights, as JSON."""
KEPT = ("hyper_parameters", "riszoo", "pytorch-lightning_version", "epoch", "global_step")


class Format(Protocol):
    """What a recipe's module provides for the files of its model's authors."""

    def recognises(self, content: Content) -> bool: ...

    def variant(self, content: Content) -> str: ...

    def translate(self, content: Content) -> Translation: ...

    def options(self, content: Content) -> Config: ...


def beside(format: Format, path: Path) -> Config:
    """The options in files beside a checkpoint, such as a tokenizer, where the format's module has `beside(folder)`."""
    found: Config = getattr(format, "beside", lambda _folder: {})(path.parent)
    return found


def formats() -> Iterator[tuple[recipes.Recipe, Format]]:
    """The recipes whose model has published checkpoints, each with its module."""
    for name in recipes.names("models"):
        recipe = recipes.get("models", name)
        if "checkpoints" in recipe.content:
            yield recipe, cast(Format, importlib.import_module(recipe.content["checkpoints"]))


def own_form(content: Any, path: Path) -> Any:
    """The content of a published checkpoint as a checkpoint of riszoo; any other content unchanged."""
    if not isinstance(content, dict) or "riszoo" in content:
        return content
    for recipe, format in formats():
        if format.recognises(content):
            return _translated(recipe, format, content, path)
    return content


def _translated(recipe: recipes.Recipe, format: Format, content: Content, path: Path) -> Content:
    variant = format.variant(content)
    try:
        translation = format.translate(content)
        options = recipes.merge(format.options(content), beside(format, path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} has the form of a published '{variant}' checkpoint but is not a complete one "
            f"({type(error).__name__}: {str(error)[:80]}): download it again"
        ) from None
    if translation.unknown:
        raise UserError(
            f"{path} is a published '{variant}' checkpoint with {len(translation.unknown)} tensors that the model does "
            f"not have, such as {translation.unknown[0]:.80}: it may be of a changed model"
        )
    about = {"format": variant, "file": path.name, "ignored": translation.ignored}
    return {
        "state_dict": translation.state,
        "hyper_parameters": options,
        "riszoo": {"class_path": recipe.content["class_path"], "published": about},
        **TRAINER_STATE,
    }


TRAINER_STATE: Content = {"pytorch-lightning_version": "2.5.0", "epoch": 0, "global_step": 0, "callbacks": {}}
"""What Lightning expects in a checkpoint that it evaluates."""


def published(checkpoint: Content) -> Content | None:
    """What a translated checkpoint says about the file it came from; None for a checkpoint of riszoo's own."""
    about: Content | None = checkpoint.get("riszoo", {}).get("published")
    return about


def completed(checkpoint: Content, model: nn.Module) -> Content:
    """The checkpoint with the model's batch counters, which published files may lack: only training reads them."""
    if published(checkpoint) is None:
        return checkpoint
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    return {**checkpoint, "state_dict": {**counters, **checkpoint["state_dict"]}}


# -- weights without a training --------------------------------------------------------------------------------------


def write_weights(checkpoint: Content, path: Path) -> None:
    """Write the model of a checkpoint, without the state of its training; complete or not at all."""
    from safetensors.torch import save_file

    about = {key: checkpoint[key] for key in KEPT if key in checkpoint}
    weights: dict[str, Tensor] = {name: value.contiguous() for name, value in checkpoint["state_dict"].items()}
    partial = path.with_name(f"{path.name}.partial")
    try:
        if path.suffix == ".safetensors":
            save_file(weights, partial, {METADATA: json.dumps(about)})
        else:
            torch.save({**about, "state_dict": weights, "callbacks": {}}, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error}; choose another --out") from None


def read_safetensors(path: Path) -> Content:
    """A checkpoint that `write_weights` has written as .safetensors; the tensors alone of any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(METADATA, "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {str(error)[:100]}; copy the file again") from None
    return {**about, "state_dict": weights, "callbacks": {}} if isinstance(about, dict) else weights
