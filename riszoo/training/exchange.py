"""Checkpoints in other forms: those of a model's authors, and weights without the state of a training.

A published checkpoint is recognised by its keys and read as riszoo's own. A recipe names, as `checkpoints`, the module
beside its model that recognises and translates them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from riszoo import recipes
from riszoo.errors import UserError, reason
from riszoo.recipes import Config
from riszoo.shipped import METADATA, SUFFIX, metadata
from riszoo.training import runs
from riszoo.translation import Translation

Content = dict[str, Any]
KEPT = ("hyper_parameters", "riszoo", "pytorch-lightning_version", "epoch", "global_step")
CARD = ("model", "data", "scale", "command", "started", "seed", "devices", "commit", "versions", "device", "training")
"""What a file of weights contains of its run's description."""
TRAINED_ON = "riszoo.trained_on"
"""The tensor of a .safetensors file with the hashes of the training images."""


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
            f"({type(error).__name__}: {reason(error)}): download it again"
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


def with_origin(checkpoint: Content, path: Path) -> Content:
    """The checkpoint of a run with the run's description and the configuration of its data and trainer."""
    folder = runs.folder_of(path)
    card, config = runs.card(folder), folder / runs.CONFIG
    if card is None:
        return checkpoint
    about = {"card": {key: card[key] for key in CARD if key in card}}
    if config.is_file():
        saved = recipes.read_yaml(config)
        about["config"] = {key: saved[key] for key in ("seed_everything", "data", "trainer") if key in saved}
    return {**checkpoint, "riszoo": {**checkpoint["riszoo"], **about}}


def halved(checkpoint: Content) -> Content:
    """The checkpoint with its matrices in half precision; biases, norms and statistics keep theirs."""
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    half = {name: value.half() if _is_matrix(value) else value for name, value in weights.items()}
    broken = [name for name, value in half.items() if not value.isfinite().all()]
    if broken:
        raise UserError(f"{broken[0]:.80} has values that half precision cannot represent: leave out --half")
    return {**checkpoint, "state_dict": half}


def _is_matrix(value: Tensor) -> bool:
    return value.is_floating_point() and value.ndim > 1


def write_weights(checkpoint: Content, path: Path) -> None:
    """Write the model of a checkpoint, without the state of its training; complete or not at all."""
    from safetensors.torch import save

    about = {key: checkpoint[key] for key in KEPT if key in checkpoint}
    weights: dict[str, Tensor] = {name: value.contiguous() for name, value in checkpoint["state_dict"].items()}
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == SUFFIX:
            about, tensors = _as_json_and_tensors(about, weights)
            partial.write_bytes(save(tensors, {METADATA: json.dumps(about)}))
        else:
            torch.save({**about, "state_dict": weights, "callbacks": {}}, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error}; choose another --out") from None


def _as_json_and_tensors(about: Content, weights: dict[str, Tensor]) -> tuple[Content, dict[str, Tensor]]:
    """What is written as metadata, with the hash of the tensors, and the tensors with the hashes of training images."""
    own = dict(about["riszoo"])
    images = own.pop("trained_on", None)
    tensors = weights if images is None else {**weights, TRAINED_ON: images}
    return {**about, "riszoo": {**own, "sha256": tensors_hash(tensors)}}, tensors


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_safetensors(path: Path) -> Content:
    """A checkpoint that `write_weights` has written as .safetensors; the tensors alone of any other file."""
    from safetensors import SafetensorError, safe_open

    about = metadata(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {reason(error)}; copy the file again") from None
    if not isinstance(about, dict):
        return tensors
    own = about.get("riszoo")
    if isinstance(own, dict) and own.get("sha256") != tensors_hash(tensors):
        raise UserError(f"the tensors of {path} are not those that were written (sha256): copy the file again")
    images = tensors.pop(TRAINED_ON, None)
    if images is not None and isinstance(own, dict):
        about["riszoo"] = {**own, "trained_on": images}
    return {**about, "state_dict": tensors, "callbacks": {}}
