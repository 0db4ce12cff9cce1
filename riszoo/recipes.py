"""Recipes: the YAML files that name everything there is. Nothing heavier than a YAML reader is imported here.

A model recipe holds what all its scales share (`common`) and one section a scale; a data recipe may add to it by
scale. A scale that all models share (configs/scales) is laid upon both. Resolving gives the plain configuration that
LightningCLI reads:

    {"model": {"class_path", "init_args"}, "data": {"class_path", "init_args"}, "trainer": {...}, "run": {...}}
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from riszoo.errors import UserError, unknown_name

Config = dict[str, Any]
ENTRY_POINTS = "riszoo.recipes"
NOT_SCALES = {"title", "class_path", "reference", "specification", "assumed", "common", "sets", "scale"}


@dataclass(frozen=True)
class Recipe:
    """One YAML file. `kind` is `models` or `data`."""

    name: str
    kind: str
    path: Path
    content: Config

    @property
    def title(self) -> str:
        return str(self.content.get("title", self.name))

    @property
    def scales(self) -> list[str]:
        return [key for key in self.content if key not in NOT_SCALES]


def read_yaml(path: Path) -> Config:
    """A YAML mapping, or one sentence that says where it is broken."""
    try:
        content = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping such as 'model: lts', not {type(content).__name__}")
    return content


@cache
def folders() -> tuple[Path, ...]:
    """Where recipes are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
    return tuple(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())[:1]


@cache
def plugin_folders() -> tuple[Path, ...]:
    """Folders of installed plug-ins: an entry point of the group `riszoo.recipes` names a package that holds
    `models/` and `data/`."""
    from importlib.metadata import entry_points

    found = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            spec = importlib.util.find_spec(point.module)
        except ImportError:
            spec = None
        places = [] if spec is None else list(spec.submodule_search_locations or [])
        if not places:
            raise UserError(f"the plug-in '{point.name}' names {point.module}, which is not an installed package")
        found += [Path(place) for place in places]
    return tuple(found)


def names(kind: str, *, plugins: bool = True) -> list[str]:
    """Every recipe of a kind, sorted; installed plug-ins last."""
    own = sorted(path.stem for folder in folders() for path in (folder / kind).glob("*.yaml"))
    if not plugins:
        return own
    return own + sorted(p.stem for folder in plugin_folders() for p in (folder / kind).glob("*.yaml"))


def find(kind: str, name: str) -> Recipe | None:
    """A recipe by name; plug-ins are only looked through when riszoo has none of that name."""
    for places in (folders, plugin_folders):
        for folder in places():
            path = folder / kind / f"{name}.yaml"
            if path.name == f"{name}.yaml" and "/" not in name and path.is_file():
                return Recipe(name, kind, path, read_yaml(path))
    return None


def get(kind: str, name: str) -> Recipe:
    recipe = find(kind, name)
    if recipe is None:
        what = {"models": "model", "data": "data set"}[kind]
        raise unknown_name(what, name, names(kind))
    return recipe


def merge(base: Config, over: Config) -> Config:
    """`over` laid upon `base`, mapping by mapping; anything else is replaced. Neither is changed."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def default_scale(data: str) -> str:
    """tiny on the embedded set, the paper's setting on real data."""
    content = get("data", data).content
    return str(content.get("scale", "paper"))


def scales(model: str, data: str) -> dict[str, str]:
    """The scales of a model on a set, each with the model's section it uses: a set may offer another one's again,
    trained longer."""
    recipe, source = get("models", model), get("data", data)
    own = {scale: scale for scale in recipe.scales}
    like = {scale: str((source.content[scale] or {}).get("like", scale)) for scale in source.scales}
    return own | {scale: section for scale, section in like.items() if section in own}


def checked_scale(model: str, data: str, scale: str) -> str:
    known = scales(model, data)
    if scale not in known:
        raise unknown_name(f"scale of '{model}'", scale, known)
    return scale


def shared(data: str, scale: str) -> tuple[str, Config]:
    """What configs/scales/SCALE.yaml gives every model alike on a set, and the section of the recipes that it is laid
    upon: the set's usual scale. Of most scales there is no such file, and nothing is shared."""
    recipe, usual = find("scales", scale), default_scale(data)
    if recipe is None:
        return "", {}
    if not recipe.content.get(usual):
        raise UserError(f"{recipe.path} has no section '{usual}', the usual scale of '{data}': add one")
    return usual, recipe.content[usual]


def setting(data: str, *names: str) -> list[Config]:
    """A data recipe's layers: `common`, then the sections of these names as far as it has them."""
    content = get("data", data).content
    return [content.get(name) or {} for name in ("common", *names)]


def resolve(model: str, data: str, scale: str | None = None) -> Config:
    """The plain configuration of a model on a set at a scale."""
    recipe, source = get("models", model), get("data", data)
    scale = checked_scale(model, data, scale or default_scale(data))
    section = scales(model, data)[scale]
    under, same = shared(data, section)
    own = [recipe.content.get("common", {}), recipe.content[section]]
    if same:  # a recipe's data and trainer are no part of an architecture
        own = [own[0], recipe.content.get(under) or {}, recipe.content[section].get(under) or {}]
        own = [{"model": layer.get("model", {})} for layer in own]
    sets = recipe.content.get("sets", {}).get(data, {}) if scale == "paper" else {}
    config = laid([*setting(data, under, section, scale), *own, sets], same)
    return {
        "run": config.get("run", {}) | {"model": model, "data": data, "scale": scale},
        "model": {"class_path": recipe.content["class_path"], "init_args": config.get("model", {})},
        "data": {"class_path": source.content["class_path"], "init_args": config.get("data", {})},
        "trainer": _with_budget(config),
    }


def laid(layers: Iterable[Config], same: Config) -> Config:
    """Each layer merged into the last; then what is shared, which replaces an option whole."""
    config: Config = {}
    for layer in layers:
        config = merge(config, layer)
    return config | {part: config.get(part, {}) | copy.deepcopy(options) for part, options in same.items()}


def _with_budget(config: Config) -> Config:
    """A budget is a number of training sentences; how many steps that makes follows from the total batch."""
    trainer: Config = dict(config.get("trainer", {}))
    if "budget" in config:
        batch = config["data"].get("total_batch_size") or config["data"]["batch_size"]
        trainer["max_steps"] = int(config["budget"]) // int(batch)
    return trainer


def listing() -> Iterator[tuple[str, Recipe]]:
    for kind in ("models", "data"):
        for name in names(kind):
            yield kind, get(kind, name)
