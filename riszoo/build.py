"""From plain values to objects: one way for the command line, checkpoints, tests and Python."""

from __future__ import annotations

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
    """`{"class_path", "init_args"}` -> an object, its values checked against the constructor's types."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it")
    try:
        built: T = parser.instantiate(parser.parse_object({"it": section})).it
    except ArgumentError as error:
        raise UserError(f"{section.get('class_path')}: {' '.join(str(error).split())}") from None
    except ValueError as error:  # a constructor's own sentence, buried under every type that was tried
        raise find_user_error(error) or error from None
    return built


def vocabulary_for(model: Config, data: RISData) -> tuple[str, ...] | None:
    """The words a word-level text encoder is missing, made of the training split; None where it needs none."""
    text: Config = (model.get("init_args") or {}).get("text") or {}
    if text.get("vocabulary") is None and takes_vocabulary(TextConfig(**text)):
        return tuple(vocabulary_of(data.words()))
    return None


def with_vocabulary(model: Config, data: RISData) -> Config:
    words = vocabulary_for(model, data)
    return model if words is None else recipes.merge(model, {"init_args": {"text": {"vocabulary": words}}})


def from_recipe(
    name: str, data: str = "scenes", scale: str | None = None, over: Config | None = None
) -> tuple[RISModule, RISData, Config]:
    """A model and its data module as `riszoo fit` would make them; `over` is laid on the resolved recipe."""
    from riszoo.data.datamodule import RISData
    from riszoo.model import RISModule

    config = recipes.merge(recipes.resolve(name, data, scale), over or {})
    linked = {
        key: config["model"]["init_args"][key] for key in ("size", "geometry") if key in config["model"]["init_args"]
    }
    module = instantiate(RISData, recipes.merge(config["data"], {"init_args": linked}))  # type: ignore[type-abstract]
    config["model"] = with_vocabulary(config["model"], module)
    return instantiate(RISModule, config["model"]), module, config  # type: ignore[type-abstract]
