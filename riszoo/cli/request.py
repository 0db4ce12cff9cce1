"""From a command line with recipe names in it to the plain one that LightningCLI reads. Nothing heavy is imported."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riszoo import recipes
from riszoo.errors import UserError, unknown_name
from riszoo.recipes import Config
from riszoo.training import runs

ALIASES = {
    "--split": "split",
    "--control": "control",
    "--protocol": "protocol",
    "--logger": "logger",
    "--scale": "scale",
    "--model": "model",
    "--data": "data",
    "--config": "config",
    "-c": "config",
    "--ckpt_path": "ckpt_path",
}
FOLDER = {"model": "models", "data": "data"}
LOGGERS = ("csv", "wandb", "tensorboard")


@dataclass
class Request:
    """What a run was asked for, names checked.

    base      the recipe's configuration, then the user's configuration files, in order of precedence
    options   everything else on the command line, in LightningCLI's own words
    """

    verb: str
    model: str
    data: str
    scale: str
    checkpoint: Path | None
    base: list[Config] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    command: str = ""

    @classmethod
    def read(cls, verb: str, argv: list[str]) -> Request:
        given, options = split_aliases(argv)
        files = [read_config(text) for text in given.get("config", [])]
        model, files = _named("model", given, files)
        data, files = _named("data", given, files)
        if model is None and "ckpt_path" not in given and not any("model" in file for file in files):
            known = ", ".join(recipes.names("models"))
            raise UserError(
                f"name a model: riszoo {verb} --model NAME, where NAME is one of {known}, or my.module.Class"
            )
        saved: Config = next((file["run"] for file in reversed(files) if isinstance(file.get("run"), dict)), {})
        shorthands = _shorthands(verb, given)
        request = cls(verb, model or "", data or str(saved.get("data", "scenes")), "", None, command=shlex.join(argv))
        request._choose_scale(_last(given, "scale"), saved)
        request._choose_checkpoint(_last(given, "ckpt_path"), saved, options)
        request._fill([*files, shorthands], options)
        return request

    @property
    def argv(self) -> list[str]:
        """LightningCLI's command line: the recipe straight after the verb, so that what follows overrides it."""
        configs = [word for config in self.base if config for word in ("--config", json.dumps(config))]
        return [self.verb, *configs, *self.options]

    def _choose_scale(self, scale: str | None, saved: Config) -> None:
        self.scale = scale or str(saved.get("scale") or recipes.default_scale(self.data))
        if self.model and "." not in self.model:
            recipes.checked_scale(self.model, self.data, self.scale)

    def _choose_checkpoint(self, path: str | None, saved: Config, options: list[str]) -> None:
        """`last` and a missing path mean a run of this model and data."""
        name = self.model or str(saved.get("model", ""))
        root = runs.root_of(options)
        if self.verb == "fit":
            if path == "last":
                self.checkpoint = runs.newest(root, name, self.data, "last")
            elif path is not None:
                self.checkpoint = runs.existing(path)
        elif path is None or path in ("best", "last"):
            self.checkpoint = runs.newest(root, name, self.data, path or "best")
        else:
            self.checkpoint = runs.existing(path)
        if self.checkpoint is not None:
            self._take_name(str((runs.card(runs.folder_of(self.checkpoint)) or {}).get("model", "")))

    def _take_name(self, trained: str) -> None:
        """The checkpoint decides what runs, so its results carry no other name."""
        if trained and self.model and self.model.rsplit(".", 1)[-1].lower() != trained:
            raise UserError(
                f"{self.checkpoint} is of a run of '{trained}', not of '{self.model}': give --model {trained}"
            )
        self.model = self.model or trained or "model"

    def _fill(self, files: list[Config], options: list[str]) -> None:
        own_class = "." in self.model
        recipe = recipes.find("models", self.model) if not own_class else None
        base = recipes.resolve(self.model, self.data, self.scale) if recipe else _data_only(self.data, self.scale)
        names = {"model": self.model.rsplit(".", 1)[-1].lower(), "data": self.data, "scale": self.scale}
        base["run"] = base.get("run", {}) | names
        if own_class:
            base["model"] = {
                "class_path": self.model,
                "init_args": recipes.shared(self.data, self.scale)[1].get("model", {}),
            }
        self.base = [base, *map(_nameless, files)]
        self.options = options


def _nameless(file: Config) -> Config:
    """A configuration without the names of an earlier run: those of this one are in the base."""
    if not isinstance(file.get("run"), dict):
        return file
    return {**file, "run": {k: v for k, v in file["run"].items() if k not in ("model", "data", "scale")}}


def split_aliases(argv: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Our own short options, with their values, and all the rest."""
    given: dict[str, list[str]] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        key, equals, value = word.partition("=")
        if key == "--help-all":
            rest.append("--help")
        elif key not in ALIASES:
            rest.append(word)
        else:
            found = value if equals else next(words, None)
            if found is None:
                raise UserError(f"option {key} needs a value")
            given.setdefault(ALIASES[key], []).append(found)
    return given, rest


def read_config(text: str) -> Config:
    """A configuration file, or the same as text."""
    path = Path(text)
    if text.lstrip().startswith("{"):
        config = json.loads(text)
        return config if isinstance(config, dict) else {}
    if not path.is_file():
        raise UserError(f"there is no configuration file {text}: give --config a YAML file")
    return recipes.read_yaml(path)


def _named(kind: str, given: dict[str, list[str]], files: list[Config]) -> tuple[str | None, list[Config]]:
    """The recipe (or class) that the command line or a file names, and the files with that name taken out."""
    name: str | None = None
    cleaned = []
    for file in files:
        found, file = _plain(kind, file)
        name = found or name
        cleaned.append(file)
    asked = _last(given, kind)
    return (_checked(kind, asked) if asked is not None else name), cleaned


def _plain(kind: str, file: Config) -> tuple[str | None, Config]:
    """A file's `model: lts`, `model: {class_path: lts, init_args: ...}` and a saved run's `run: {model: lts}` all name
    a recipe; what is left is a configuration without names."""
    section = file.get(kind)
    word = section.get("class_path") if isinstance(section, dict) else section
    if isinstance(word, str) and not _is_class(word):
        rest = {key: value for key, value in file.items() if key != kind}
        inside = {k: v for k, v in section.items() if k != "class_path"} if isinstance(section, dict) else {}
        return _checked(kind, word), ({**rest, kind: inside} if inside else rest)
    saved = str((file.get("run") or {}).get(kind, ""))
    name = saved if recipes.find(FOLDER[kind], saved) else word if kind == "model" else None
    return name, ({**file, kind: {"class_path": section}} if isinstance(section, str) else file)


def _is_class(word: str) -> bool:
    return "." in word and all(part.isidentifier() for part in word.split("."))


def _checked(kind: str, word: str) -> str:
    if kind == "model" and _is_class(word):
        return word
    return recipes.get(FOLDER[kind], word).name


def _last(given: dict[str, list[str]], key: str) -> str | None:
    return given[key][-1] if key in given else None


def _data_only(data: str, scale: str) -> Config:
    """The configuration of a data set for a model that is no recipe."""
    under, same = recipes.shared(data, scale)
    config = recipes.laid(recipes.setting(data, under, scale), same)
    return {
        "data": {"class_path": recipes.get("data", data).content["class_path"], "init_args": config.get("data", {})},
        "trainer": recipes._with_budget(config),
    }


def _shorthands(verb: str, given: dict[str, list[str]]) -> Config:
    """--split, --control, --protocol and --logger as configuration."""
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    config: Config = {}
    split = _last(given, "split")
    if split is not None:
        data |= {"val_split": split} if verb in ("fit", "validate") else {"test_splits": split.split(",")}
    if "control" in given:
        data["control"] = _last(given, "control")
    if "protocol" in given:
        model["protocols"] = _protocols(str(_last(given, "protocol")))
    for key, section in (("data", data), ("model", model)):
        if section:
            config[key] = {"init_args": section}
    if "logger" in given:
        config["run"] = {"loggers": _loggers(str(_last(given, "logger")))}
    return config


def _protocols(text: str) -> str:
    """The names, each known; `published` is looked up by the model."""
    from riszoo.metrics.protocols import get_protocols

    get_protocols(text, published="original")
    return text


def _loggers(text: str) -> list[str]:
    chosen = [word.strip() for word in text.split(",")]
    for word in chosen:
        if word not in LOGGERS:
            raise unknown_name("logger", word, LOGGERS)
    return chosen
