"""Recipes: the YAML files of models, data sets, shared scales and ablations. Imports nothing heavier than PyYAML.

A model recipe has options for all of its scales (`common`) and one section for each scale. A data recipe may add to
them, scale by scale. A scale of configs/scales overrides the options that all models share at that scale. Resolving a
model on a data set gives a plain LightningCLI configuration:

    {"run": {...}, "model": {"class_path", "init_args"}, "data": {"class_path", "init_args"}, "trainer": {...}}
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
from riszoo.signatures import options_of

Config = dict[str, Any]
ENTRY_POINTS = "riszoo.recipes"
LARGEST_FILE, LARGEST_DEPTH, MOST_VALUES = 8 << 20, 64, 500_000
"""Limits of a YAML file: bytes, nesting, and values once its aliases are expanded."""
NOT_SCALES = {
    *("title", "class_path", "checkpoints", "reference", "specification", "assumed"),
    *("common", "sets", "scale", "splits", "other_splits"),
}


@dataclass(frozen=True)
class Recipe:
    """One YAML file. `kind` is the folder it is in: `models`, `data`, `scales` or `ablations`."""

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


# -- files ------------------------------------------------------------------------------------------------------------


def read_yaml(path: Path) -> Config:
    """The mapping of a YAML file, which is read as untrusted: no classes, and within limits of size."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} is larger than {LARGEST_FILE >> 20} MiB: give a YAML file of options")
        content = _load_yaml(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: give a YAML file") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not valid YAML{_problem(error)}: correct it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a mapping such as 'model: lts', not {type(content).__name__}")
    return content


def _load_yaml(text: str, path: Path) -> Any:
    """The content of YAML text, whose nesting and expanded size are checked before any value is made."""
    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, Loader=loader_class):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > LARGEST_DEPTH:
            raise UserError(f"{path} is nested deeper than {LARGEST_DEPTH} levels: give a YAML file of options")
    loader = loader_class(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _exceeds(node, MOST_VALUES):
            raise UserError(f"{path} expands to more than {MOST_VALUES:,} values: remove its aliases")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _exceeds(root: yaml.Node, limit: int) -> bool:
    """Whether a document has more values than `limit`, each alias counted as a copy."""
    stack, count = [root], 0
    while stack and count <= limit:
        count += 1
        value = stack.pop().value
        if isinstance(value, list):
            stack += [child for item in value for child in (item if isinstance(item, tuple) else (item,))]
    return count > limit


def _problem(error: Exception) -> str:
    """Line and reason of a YAML error, as far as it has them."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f" at line {mark.line + 1}" if mark else ""
    return where + (f" ({str(problem)[:120]})" if problem else "")


@cache
def folders() -> tuple[Path, ...]:
    """The folder of riszoo's recipes: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return tuple(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())[:1]


@cache
def plugin_folders() -> tuple[Path, ...]:
    """Recipe folders of installed plug-ins: packages named by an entry point of the group `riszoo.recipes`."""
    from importlib.metadata import entry_points

    found: list[Path] = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            spec = importlib.util.find_spec(point.module)
        except ImportError:
            spec = None
        locations = [] if spec is None else list(spec.submodule_search_locations or [])
        if not locations:
            raise UserError(f"the plug-in '{point.name}' names {point.module}, which is not an installed package")
        found += map(Path, locations)
    return tuple(found)


def names(kind: str, *, plugins: bool = True) -> list[str]:
    """The names of all recipes of a kind, sorted; those of plug-ins last."""
    own, added = (
        sorted(path.stem for folder in group for path in (folder / kind).glob("*.yaml"))
        for group in (folders(), plugin_folders() if plugins else ())
    )
    return own + added


def find(kind: str, name: str) -> Recipe | None:
    """A recipe by name, or None. Plug-ins are searched only where riszoo has no recipe of that name."""
    if Path(name).name != name:
        return None
    for group in (folders, plugin_folders):
        for folder in group():
            path = folder / kind / f"{name}.yaml"
            if path.is_file():
                return Recipe(name, kind, path, read_yaml(path))
    return None


def get(kind: str, name: str) -> Recipe:
    """A model's or data set's recipe by name; raises UserError with the nearest name."""
    recipe = find(kind, name)
    if recipe is None:
        raise unknown_name({"models": "model", "data": "data set"}[kind], name, names(kind))
    return recipe


def listing() -> Iterator[tuple[str, Recipe]]:
    """All recipes of models, then of data sets, each with its kind."""
    for kind in ("models", "data"):
        for name in names(kind):
            yield kind, get(kind, name)


# -- scales -----------------------------------------------------------------------------------------------------------


def default_scale(data: str) -> str:
    """The scale used on a data set when none is given: `tiny` on scenes, `paper` on real data."""
    return str(get("data", data).content.get("scale", "paper"))


def scales(model: str, data: str) -> dict[str, str]:
    """The scales of a model on a data set, each with the section of the model's recipe it uses.

    A data set can offer another scale's section under a new name (`like`), for example with a longer training.
    """
    recipe, source = get("models", model), get("data", data)
    own = {scale: scale for scale in recipe.scales}
    like = {scale: section_like(source.content, scale) for scale in source.scales}
    return own | {scale: section for scale, section in like.items() if section in own}


def checked_scale(model: str, data: str, scale: str) -> str:
    """The scale itself; raises UserError where the model does not have it on that data set."""
    known = scales(model, data)
    if scale not in known:
        raise unknown_name("scale", scale, known, of=f"'{model}' on '{data}'")
    return scale


def check_splits(data: str, splits: Iterable[str]) -> None:
    """Raise UserError for a split that the data set does not have.

    A recipe without `splits`, or whose files may contain `other_splits`, accepts every name: opening the files decides.
    """
    content = get("data", data).content
    known: list[str] = [] if content.get("other_splits") else content.get("splits") or []
    for split in splits if known else ():
        if split not in known:
            raise unknown_name("split", split, known, of=data)


# -- resolving --------------------------------------------------------------------------------------------------------


def resolve(model: str, data: str, scale: str | None = None) -> Config:
    """The configuration of a model on a data set at a scale."""
    recipe = get("models", model)
    scale = checked_scale(model, data, scale or default_scale(data))
    section = scales(model, data)[scale]
    base, overrides = shared_options(data, scale)
    layers = [*_data_layers(data, base, section, scale), *_model_layers(recipe, section, base, scale)]
    if scale == "paper":
        layers.append(recipe.content.get("sets", {}).get(data, {}))
    options = _combined(layers, overrides)
    return {
        "run": options.get("run", {}) | {"model": model, "data": data, "scale": scale},
        "model": {"class_path": recipe.content["class_path"], "init_args": options.get("model", {})},
        **_data_and_trainer(data, options),
    }


def resolve_data(data: str, scale: str) -> Config:
    """The sections `data` and `trainer` for a model without a recipe."""
    section = section_like(get("data", data).content, scale)
    base, overrides = shared_options(data, scale)
    return _data_and_trainer(data, _combined(_data_layers(data, base, section, scale), overrides))


def section_like(content: Config, scale: str) -> str:
    """The scale whose section of a model's recipe the scale of a data recipe uses: another one (`like`), or itself."""
    return str((content.get(scale) or {}).get("like", scale))


def shared_options(data: str, scale: str) -> tuple[str, Config]:
    """The options that a scale of configs/scales gives to every model, and the section of the recipes they override.

    That section is the data set's default scale. A scale without such a file has that of the scale it is like; where
    neither has one, both values are empty.
    """
    base, section = default_scale(data), section_like(get("data", data).content, scale)
    recipe = find("scales", scale) or find("scales", section)
    if recipe is None:
        return "", {}
    if not recipe.content.get(base):
        raise UserError(f"{recipe.path} has no section '{base}', the default scale of '{data}': add one")
    return base, recipe.content[base]


def _data_layers(data: str, *sections: str) -> list[Config]:
    """A data recipe's `common` and those of the sections that it has."""
    content = get("data", data).content
    return [content.get(section) or {} for section in ("common", *sections)]


def _model_layers(recipe: Recipe, section: str, base: str, scale: str) -> list[Config]:
    """A model recipe's `common` and section; at a shared scale, the model options of `base` only.

    A section of a shared scale has those for a `base`, and those for a scale that is like it.
    """
    content = recipe.content
    if not base:
        return [content.get("common", {}), content[section]]
    own = content[section] or {}
    if not isinstance(own, dict):
        raise UserError(f"{recipe.path}: '{section}' must be a mapping from scales to options, not {own!s:.60}")
    if "model" in own:
        raise UserError(
            f"{recipe.path}: '{section}' has options of its own; put them under '{base}', the data set's scale"
        )
    known = own.keys() if own.keys() <= {base, scale} else _names_in_shared(section)
    for name in own.keys() - known:
        raise UserError(f"{recipe.path}: {unknown_name('scale', str(name), sorted(known), of=section)}")
    layers = [content.get("common", {}), content.get(base) or {}, own.get(base) or {}, own.get(scale) or {}]
    return [{"model": layer.get("model", {})} for layer in layers]


def _names_in_shared(section: str) -> set[str]:
    """What a section of a shared scale may have: default scales of data sets, and scales that are like it."""
    sources = [get("data", name) for name in names("data")]
    like = {scale for source in sources for scale in source.scales if section_like(source.content, scale) == section}
    return {default_scale(source.name) for source in sources} | like - {section}


def _combined(layers: Iterable[Config], overrides: Config) -> Config:
    """The layers merged in order; `overrides` then replace whole options."""
    options: Config = {}
    for layer in layers:
        options = merge(options, layer)
    return options | {part: options.get(part, {}) | copy.deepcopy(given) for part, given in overrides.items()}


def _data_and_trainer(data: str, options: Config) -> Config:
    """The sections `data` and `trainer`. A budget of training sentences becomes a number of steps."""
    trainer: Config = dict(options.get("trainer", {}))
    if "budget" in options:
        given = options.get("data", {})
        batch = given.get("total_batch_size") or given.get("batch_size")
        if batch is None:
            raise UserError(
                f"data recipe '{data}' has a budget but no batch_size at this scale: choose another --scale"
            )
        trainer["max_steps"] = int(options["budget"]) // int(batch)
    class_path = get("data", data).content["class_path"]
    return {"data": {"class_path": class_path, "init_args": options.get("data", {})}, "trainer": trainer}


def length_of_budget(sentences: int, batch: int) -> Config:
    """The configuration that trains on so many sentences, in steps of `batch`."""
    if sentences < batch:
        raise UserError(f"--budget {sentences} is less than one batch of {batch} sentences: raise it")
    return {"trainer": {"max_steps": sentences // batch, "max_epochs": -1}}


def data_section(name: str, root: str | None = None) -> Config:
    """The class and the options of a data set that is read without a model."""
    recipe = get("data", name).content
    known = options_of("data", recipe["class_path"])
    if root and known is not None and "--data.root" not in known:
        raise UserError(f"{name} is not read from files: leave out --root {root}")
    options = merge(recipe.get("common", {}).get("data", {}), {"root": root} if root else {})
    return {"class_path": recipe["class_path"], "init_args": options}


def check_mappings(base: Config, over: Config, prefix: str = "") -> None:
    """Raise UserError where `over` has a number or a list in place of a mapping of `base`."""
    for key, value in over.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".lstrip(".")
        if isinstance(base.get(key), dict):
            if isinstance(value, dict):
                check_mappings(base[key], value, name)
            elif value is not None and not isinstance(value, str):  # text may name a YAML file
                raise UserError(f"--{name} {str(value)[:60]}: expected a mapping such as that of the recipe")


def merge(base: Config, over: Config) -> Config:
    """A copy of `base` overridden by `over`; mappings are merged, other values replaced."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged
