"""Objects from plain values, for the command line, checkpoints, tests and Python alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from riszoo import recipes
from riszoo.encoders.base import TextConfig
from riszoo.encoders.text import takes_vocabulary
from riszoo.encoders.vocabulary import vocabulary_of
from riszoo.errors import UserError, find_user_error
from riszoo.recipes import Config

if TYPE_CHECKING:
    from riszoo.data.datamodule import RISData
    from riszoo.model import RISModule

T = TypeVar("T")


def instantiate(base: type[T], section: Config) -> T:
    """The object of `{"class_path", "init_args"}`, its values checked against the constructor's types."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "instance")
    try:
        instance: T = parser.instantiate(parser.parse_object({"instance": section})).instance
    except ArgumentError as error:
        raise UserError(f"{section.get('class_path')}: {' '.join(str(error).split())}") from None
    except ValueError as error:  # jsonargparse wraps a constructor's own UserError
        raise find_user_error(error) or error from None
    return instance


def missing_vocabulary(model: Config, data: RISData) -> tuple[str, ...] | None:
    """The words of the training split, for a word-level text encoder without a vocabulary; None for other models."""
    text: Config = (model.get("init_args") or {}).get("text") or {}
    if text.get("vocabulary") is None and takes_vocabulary(TextConfig(**text)):
        return tuple(vocabulary_of(data.words()))
    return None


def extended_vocabulary(known: Iterable[str], data: RISData) -> tuple[str, ...]:
    """A vocabulary with the words of the training split that it lacks at its end, so that ids stay as they are."""
    return tuple(dict.fromkeys([*known, *vocabulary_of(data.words())]))


def with_vocabulary(model: Config, data: RISData) -> Config:
    """The model's configuration, with a vocabulary where it needs one."""
    words = missing_vocabulary(model, data)
    return model if words is None else recipes.merge(model, {"init_args": {"text": {"vocabulary": words}}})


def from_recipe(
    name: str, data: str = "scenes", scale: str | None = None, over: Config | None = None
) -> tuple[RISModule, RISData, Config]:
    """The model, data module and configuration of `riszoo fit`; `over` overrides the resolved recipe."""
    from riszoo.data.datamodule import RISData
    from riszoo.model import RISModule

    config = recipes.merge(recipes.resolve(name, data, scale), over or {})
    model_args = config["model"]["init_args"]
    linked = {key: model_args[key] for key in ("size", "geometry") if key in model_args}
    module = instantiate(RISData, recipes.merge(config["data"], {"init_args": linked}))  # type: ignore[type-abstract]
    config["model"] = with_vocabulary(config["model"], module)
    return instantiate(RISModule, config["model"]), module, config  # type: ignore[type-abstract]
