"""Checks of a checkpoint, which is an untrusted file, before its class is imported and its weights are used."""

from __future__ import annotations

import argparse
import importlib
import inspect
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riszoo import recipes
from riszoo.errors import UserError
from riszoo.files import check_not_pointer

ZIP = b"PK\x03\x04"
Weights = Mapping[str, Tensor]


def load_file(path: Path, *, mmap: bool) -> Any:
    """The content of a torch file: tensors and plain values only. Raises UserError with the reason."""
    check_file(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace, Counter]):  # plain values in published files
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError:  # its message advises to load the file without protection
        raise UserError(
            f"{path} contains objects other than tensors and plain values, which are never loaded: get a checkpoint "
            "that riszoo has written"
        ) from None
    except Exception:  # a damaged file raises nearly anything
        raise UserError(f"{path} is truncated or damaged: copy the file again") from None


def check_file(path: Path) -> None:
    """Raise UserError for a file that is recognised as something else than a checkpoint by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(len(ZIP))
        check_not_pointer(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not head:
        raise UserError(f"{path} is empty: copy the checkpoint again")
    if head != ZIP:
        raise UserError(f"{path} is not a checkpoint: give a .ckpt file that `riszoo fit` has written")


def check_content(content: Any, path: Path) -> dict[str, Any]:
    """The content if it has what a checkpoint of riszoo needs, of the right types."""
    if not isinstance(content, dict) or not {"state_dict", "riszoo"} <= content.keys():
        raise UserError(f"{path} is not a riszoo checkpoint: it lacks the model's class and weights")
    if not _has_names(content.get("hyper_parameters")):
        raise UserError(f"{path} lacks the model's options (hyper_parameters): it cannot be rebuilt")
    about, weights = content["riszoo"], content["state_dict"]
    if not isinstance(about, dict) or not isinstance(about.get("class_path"), str):
        raise UserError(f"{path} is not a riszoo checkpoint: it does not name the model's class")
    if not _has_names(weights) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(
            f"{path} is not a riszoo checkpoint: its state_dict has values that are not tensors, or no names"
        )
    broken = [part for part, is_valid in PARTS.items() if part in about and not is_valid(about[part])]
    if broken:
        raise UserError(f"{path} is not a valid riszoo checkpoint: its '{broken[0]}' is damaged; copy the file again")
    return content


def _has_names(value: Any) -> bool:
    """Whether a value is a dict whose keys are text."""
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _is_table(value: Any) -> bool:
    """Whether a value is a dict of text by text."""
    return _has_names(value) and all(isinstance(text, str) for text in value.values())


def _is_weight_files(value: Any) -> bool:
    return _has_names(value) and all(_is_table(file) and {"file", "sha256"} <= file.keys() for file in value.values())


def _is_published(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("format"), str):
        return False
    ignored = value.get("ignored")
    return isinstance(ignored, list) and all(isinstance(name, str) for name in ignored)


PARTS: dict[str, Callable[[Any], bool]] = {
    "weight_files": _is_weight_files,
    "published": _is_published,
    "run": _is_table,
    "training": _has_names,
    "trained_on": lambda value: isinstance(value, Tensor),
    "seconds": lambda value: isinstance(value, float) and 0 <= value < float("inf"),
}
"""What a checkpoint may say of its origin, each with its check."""


def check_class(content: Mapping[str, Any], path: Path, model: str = "") -> None:
    """Raise UserError where the checkpoint's class may not be imported.

    It must be the class of `model`, a recipe or a class path that the user has named; where none is named, the class
    of any recipe, or a model that this process has imported already.
    """
    found: str = content["riszoo"]["class_path"]
    recipe = recipes.find("models", model) if model else None
    if recipe is not None or "." in model:
        wanted = str(recipe.content["class_path"]) if recipe is not None else model
        if not same_class(found, wanted):
            raise UserError(f"{path} is a checkpoint of {found}, but '{model}' is {wanted}: name its own model")
        return
    known = [str(recipes.get("models", name).content["class_path"]) for name in recipes.names("models")]
    if found not in known and not _imported(found) and not any(same_class(found, each) for each in known):
        raise UserError(
            f"{path} is a checkpoint of {found:.100}, which is not the class of a recipe and is not imported: "
            "name the class with --model if you trust it"
        )


def same_class(found: str, trusted: str) -> bool:
    """Whether a class path is the trusted one, or the name of its definition: only the trusted one is imported."""
    if found == trusted:
        return True
    if found.rpartition(".")[2] != trusted.rpartition(".")[2]:
        return False
    defined = import_class(trusted)
    return found == f"{defined.__module__}.{defined.__qualname__}"


def import_class(class_path: str) -> Any:
    """The class of a path that the user or a recipe has named."""
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the class {class_path:.100} cannot be imported: {error!s:.200}") from None


def check_model_class(class_path: str) -> None:
    """Import a class that the user has named; raise UserError where it is not a model."""
    from riszoo.model import RISModule

    found = import_class(class_path)
    if not (isinstance(found, type) and issubclass(found, RISModule)):
        raise UserError(f"{class_path:.100} is not a subclass of riszoo.model.RISModule: name a recipe or such a class")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"{class_path:.100} is an abstract class: name a subclass that defines {missing:.100}")


def _imported(class_path: str) -> bool:
    """Whether a model's class is in memory, so that nothing is imported for it."""
    from riszoo.model import RISModule

    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and issubclass(found, RISModule)


def check_weights(weights: Weights, model: nn.Module, path: Path) -> None:
    """Raise UserError where weights are missing, unknown, of the wrong shape or not finite."""
    own = model.state_dict()
    problems = [
        _named("lacks {} weights", [name for name in own if name not in weights]),
        _named("has {} unknown weights", [name for name in weights if name not in own]),
        _named(
            "has {} weights of another shape", [n for n, w in weights.items() if n in own and w.shape != own[n].shape]
        ),
    ]
    if any(problems):
        raise UserError(f"{path} does not fit its model: it {', and '.join(filter(None, problems))}")
    broken = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{path} {_named('has NaN or infinite values in {} weights', broken)}: use an earlier checkpoint"
        )


def _named(problem: str, names: list[str]) -> str:
    return f"{problem.format(len(names))}, such as {names[0]:.80}" if names else ""
