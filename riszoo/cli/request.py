"""The command line of a run, with recipe names and short options resolved to LightningCLI's configuration.

Nothing heavy is imported, so that wrong names are reported at once.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from riszoo import recipes
from riszoo.cli.limits import check_number, check_options, check_values, missing_model, settings
from riszoo.errors import UserError, unknown_name
from riszoo.recipes import Config
from riszoo.training import runs

ALIASES = {
    "--split": "split",
    "--control": "control",
    "--protocol": "protocol",
    "--logger": "logger",
    "--budget": "budget",
    "--scale": "scale",
    "--model": "model",
    "--data": "data",
    "--config": "config",
    "-c": "config",
    "--ckpt_path": "ckpt_path",
    "--init": "init",
}
"""Options that LightningCLI does not see as they are written."""
FLAGS = {"--compile": ["--run.compiled", "true"]}
"""Options without a value, and what LightningCLI reads in their place."""
KINDS = {"model": "models", "data": "data"}
SECTIONS = {"model": str | dict, "data": str | dict, "trainer": dict, "run": dict}
"""The sections of a configuration and their types."""
LOGGERS = ("csv", "wandb", "tensorboard")

Given = dict[str, list[str]]
"""The values of each alias on the command line."""


@dataclass
class Request:
    """The command line of fit, validate, test or predict, its names checked.

    verb, command  the subcommand, and all that follows it
    model          a recipe's name or a class path
    data, scale    a recipe's name, and a scale of the model on it
    checkpoint     the checkpoint to load; None to train from the start
    base           configurations in increasing precedence: the recipe's, those of --config, that of the aliases
    options        the other options, as LightningCLI reads them
    saved          the configuration of the run that is continued
    folder         that run's folder, where it is continued in place
    created        the folder that this run has created
    init           the checkpoint whose weights a new training starts from
    """

    aliases: ClassVar[tuple[str, ...]] = tuple(ALIASES)

    verb: str
    command: str
    model: str
    data: str
    scale: str
    checkpoint: Path | None
    base: list[Config]
    options: list[str]
    saved: Config | None = None
    folder: Path | None = None
    created: Path | None = None
    init: Path | None = None

    @classmethod
    def read(cls, verb: str, argv: list[str]) -> Request:
        given, options = split_aliases(argv)
        files = [read_config(text) for text in given.get("config", [])]
        paths = [str(file["ckpt_path"]) for file in files if file.get("ckpt_path") is not None]
        if paths:  # an option of the command line is later and wins
            given["ckpt_path"] = [*paths, *given.get("ckpt_path", [])]
        files = [{key: value for key, value in file.items() if key != "ckpt_path"} for file in files]
        named, files = _take_name("model", given, files)
        data, files = _take_name("data", given, files)
        init = _initial(verb, given, named)
        if named is None and init is None and "ckpt_path" not in given and not any("model" in file for file in files):
            raise missing_model(verb, options)
        if verb == "fit" and "ckpt_path" in given:
            continued = _continued(argv, given, options, files, {"model": named, "data": data})
            if continued is not None:
                return continued
        run: Config = next((file["run"] for file in reversed(files) if isinstance(file.get("run"), dict)), {})
        aliases = _aliases_config(verb, given, init)
        data = data or str(run.get("data", "scenes"))
        scale = _last(given, "scale") or str(run.get("scale") or _default_scale(data, named, init))
        if named and not _is_class(named):
            recipes.checked_scale(named, data, scale)
        check_values(data, [*files, aliases], options)
        root = _run_root(options, files)
        checkpoint = _checkpoint(verb, _last(given, "ckpt_path"), root, named or str(run.get("model", "")), data)
        source = checkpoint or init
        model = named or "" if source is None else _model_of(source, named)
        base = [_recipe_config(model, data, scale), *map(_without_names, files), aliases]
        base.append(_budget_config(verb, given, base, options))
        check_options(base, options, ALIASES)
        return cls(verb, shlex.join(argv), model, data, scale, checkpoint, base, options, init=init)

    @property
    def argv(self) -> list[str]:
        """LightningCLI's command line: the configurations follow the verb, so that later options override them."""
        configs = [word for config in self.base if config for word in ("--config", json.dumps(config))]
        return [self.verb, *configs, *self.options]


# -- words of the command line ----------------------------------------------------------------------------------------


def split_aliases(argv: list[str]) -> tuple[Given, list[str]]:
    """The values of the aliases, and all other words."""
    given: Given = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        key, equals, value = word.partition("=")
        if key == "--help-all":
            rest.append("--help")
        elif key in FLAGS and value in ("", "true"):
            rest += FLAGS[key]
        elif key not in ALIASES:
            rest.append(word)
        else:
            found = value if equals else next(words, None)
            if found is None or (found.startswith("--") and not equals):
                raise UserError(f"option {key} needs a value")
            if not found:
                raise UserError(f"{key} is empty: give a value, or leave it out")
            given.setdefault(ALIASES[key], []).append(found)
    return given, rest


def _last(given: Given, key: str) -> str | None:
    return given[key][-1] if key in given else None


def _run_root(options: list[str], files: list[Config]) -> Path:
    """The value of --run.root or of a file, which is needed before LightningCLI parses the options."""
    sections = [file["run"] for file in files if isinstance(file.get("run"), dict)]
    root = next((str(run["root"]) for run in reversed(sections) if run.get("root") is not None), "runs")
    for index, word in enumerate(options):
        name, equals, value = word.partition("=")
        if name == "--run.root" and (equals or index + 1 < len(options)):
            root = value if equals else options[index + 1]
    if not root:
        raise UserError("--run.root is empty: give a folder, or leave it out")
    return Path(root)


def _aliases_config(verb: str, given: Given, init: Path | None) -> Config:
    """The configuration that --split, --control, --protocol, --logger and --init stand for."""
    data: Config = {}
    split = _last(given, "split")
    if split is not None:
        data |= {"val_split": split} if verb in ("fit", "validate") else {"test_splits": split.split(",")}
    if "control" in given and verb == "fit":
        raise UserError("--control changes the sentences of an evaluation: leave it out of fit, give it to test")
    if "control" in given:
        data["control"] = _checked_controls(str(_last(given, "control")))
    config: Config = {"data": {"init_args": data}} if data else {}
    if "protocol" in given:
        config["model"] = {"init_args": {"protocols": _checked_protocols(str(_last(given, "protocol")))}}
    if "logger" in given:
        config["run"] = {"loggers": _checked_loggers(str(_last(given, "logger")))}
    if init is not None:
        config["run"] = {**config.get("run", {}), "init": str(init)}
    return config


def _budget_config(verb: str, given: Given, base: list[Config], options: list[str]) -> Config:
    """The configuration that --budget stands for: its sentences in steps of the total batch."""
    text = _last(given, "budget")
    if text is None:
        return {}
    check_number("budget", text)
    if verb != "fit":
        raise UserError(f"--budget is the length of a training: leave it out of 'riszoo {verb}'")
    for option in ("--trainer.max_steps", "--trainer.max_epochs"):
        if _has_option(options, option):
            raise UserError(f"--budget and {option} both give the length of the training: leave one of them out")
    batches = [value for name, value in settings(base, options) if name == "data.total_batch_size"]
    if not batches or not str(batches[-1]).isdecimal():
        raise UserError("--budget counts the sentences of all devices: give --data.total_batch_size too")
    return recipes.length_of_budget(int(text), int(batches[-1]))


def _checked_protocols(text: str) -> str:
    from riszoo.metrics.protocols import get_protocols

    get_protocols(text, published="original")
    return text


def _checked_controls(text: str) -> str:
    from riszoo.data.controls import parse_controls

    parse_controls(text)
    return text


def _checked_loggers(text: str) -> list[str]:
    loggers = [word.strip() for word in text.split(",")]
    for logger in loggers:
        if logger not in LOGGERS:
            raise unknown_name("logger", logger, LOGGERS)
        if importlib.util.find_spec(logger) is None:  # `csv` is a module of Python
            raise UserError(f"--logger {logger} needs the package {logger}: pip install {logger}")
    return loggers


# -- configuration files ----------------------------------------------------------------------------------------------


def read_config(text: str) -> Config:
    """The configuration of a file, or of JSON text."""
    if text.lstrip().startswith("{"):
        try:
            return _checked_sections(json.loads(text), "--config")
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"--config {text[:60]} is not valid JSON ({str(error)[:80]}): give a YAML file") from None
    if not Path(text).is_file():
        raise UserError(f"there is no configuration file {text}: give --config a YAML file")
    return _checked_sections(recipes.read_yaml(Path(text)), text)


def _checked_sections(config: Config, file: str) -> Config:
    """The configuration itself; raises UserError for a section of another type, and for values JSON does not have."""
    for key, types in SECTIONS.items():
        if not isinstance(config.get(key, {}), types | None):
            raise UserError(f"{file}: '{key}' is {str(config[key])[:60]}: give a mapping of its options")
    try:
        json.dumps(config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} has a value that is not text, a number, a list or a mapping ({error})") from None
    return config


def _take_name(kind: str, given: Given, files: list[Config]) -> tuple[str | None, list[Config]]:
    """The recipe or class that the command line or a file names, and the files without that name."""
    name: str | None = None
    cleaned = []
    for file in files:
        found, file = _split_name(kind, file)
        name = found or name
        cleaned.append(file)
    option = _last(given, kind)
    return (name if option is None else _checked_name(kind, option)), cleaned


def _split_name(kind: str, file: Config) -> tuple[str | None, Config]:
    """The name in one file, and the file without it.

    A file names a recipe by `model: lts`, `model: {class_path: lts, init_args: ...}`, or as the configuration that a
    run has saved, `run: {model: lts}`.
    """
    section = file.get(kind)
    word = section.get("class_path") if isinstance(section, dict) else section
    if isinstance(word, str) and not _is_class(word):
        rest = {key: value for key, value in file.items() if key != kind}
        options = section if isinstance(section, dict) else {}
        options = {key: value for key, value in options.items() if key != "class_path"}
        return _checked_name(kind, word), ({**rest, kind: options} if options else rest)
    saved = str((file.get("run") or {}).get(kind, ""))
    name = saved if recipes.find(KINDS[kind], saved) else word if kind == "model" else None
    return name, ({**file, kind: {"class_path": section}} if isinstance(section, str) else file)


def _checked_name(kind: str, name: str) -> str:
    """The name itself; raises UserError where it is neither a recipe nor a model's class path."""
    if kind == "model" and _is_class(name):
        return _checked_class(name)
    return recipes.get(KINDS[kind], name).name


def check_model(name: str) -> None:
    """Raise UserError for a name that is neither that of a model's recipe nor a class path."""
    _checked_name("model", name)


def _checked_class(name: str) -> str:
    """The class path itself; raises UserError where its module does not exist or is Python's own."""
    module = name.rpartition(".")[0]
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{name} is not a model: give --model a recipe's name or a subclass of riszoo.model.RISModule")
    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise UserError(
            f"there is no module '{module}' for --model {name}: give a recipe's name or my.module.Class "
            "(a YAML file goes to --config)"
        )
    return name


def _is_class(word: str) -> bool:
    return "." in word and all(part.isidentifier() for part in word.split("."))


def _without_names(file: Config) -> Config:
    """A configuration without the names of the run that saved it: the recipe's configuration has this run's."""
    if not isinstance(file.get("run"), dict):
        return file
    return {**file, "run": {key: v for key, v in file["run"].items() if key not in ("model", "data", "scale")}}


# -- checkpoint and recipe --------------------------------------------------------------------------------------------


def _checkpoint(verb: str, path: str | None, root: Path, model: str, data: str) -> Path | None:
    """The checkpoint to load. Evaluations default to the newest run's best one or the shipped one, `fit` to none."""
    if verb == "fit" and path != "last":
        return None if path is None else runs.existing(path)
    return runs.chosen(path, root, model, data)


def _initial(verb: str, given: Given, model: str | None) -> Path | None:
    """The file of --init."""
    path = _last(given, "init")
    if path is None:
        return None
    if verb != "fit":
        raise UserError(f"--init is an option of 'riszoo fit': give 'riszoo {verb}' the file as --ckpt_path {path}")
    if "ckpt_path" in given:
        raise UserError("--init starts a training and --ckpt_path continues one: leave one of them out")
    return runs.initial(path, model)


def _default_scale(data: str, model: str | None, init: Path | None) -> str:
    """The data set's scale; that of the initial weights where the model has it on this data set."""
    card = runs.trained(init) if init else {}
    model, scale = model or str(card.get("model", "")), str(card.get("scale", ""))
    known = recipes.scales(model, data) if recipes.find("models", model) else {}
    return scale if scale in known else recipes.default_scale(data)


def _continued(
    argv: list[str], given: Given, options: list[str], files: list[Config], names: dict[str, str | None]
) -> Request | None:
    """The request that continues a training with its saved configuration; None for a checkpoint without one."""
    root, path = _run_root(options, files), str(_last(given, "ckpt_path"))
    wanted = {"model": runs.model_name(names["model"]) if names["model"] else None, "data": names["data"]}
    checkpoint = runs.resumable(runs.latest(root, **wanted) if path == "last" else runs.existing(path))
    folder = runs.folder_of(checkpoint)
    saved = runs.saved_config(folder)
    if saved is None:
        return None
    run = {key: str(saved["run"][key]) for key in runs.NAMES}
    for key, name in {**wanted, "scale": _last(given, "scale")}.items():
        if name not in (None, run[key]):
            raise UserError(f"{checkpoint} is of a run of '{run[key]}', not of '{name}': give --{key} {run[key]}")
    model = run["model"] if recipes.find("models", run["model"]) else str(saved["model"]["class_path"])
    in_place = path == "last" or Path(path) == runs.checkpoint(folder, "last")
    moved = _has_option(options, "--run.root") and root.resolve() != folder.parent.resolve()
    base = [{**saved, "ckpt_path": None}, *map(_without_names, files), _aliases_config("fit", given, None)]
    base.append(_budget_config("fit", given, base, options))
    check_options(base, options, ALIASES)
    return Request(
        "fit", shlex.join(argv), model, run["data"], run["scale"], checkpoint, base, options,
        saved=saved, folder=folder if in_place and not moved else None,
    )  # fmt: skip


def _has_option(options: list[str], name: str) -> bool:
    return any(word.partition("=")[0] == name for word in options)


def _model_of(checkpoint: Path, named: str | None) -> str:
    """The model of the checkpoint's run, which must not differ from the one named."""
    trained = str((runs.card(runs.folder_of(checkpoint)) or {}).get("model", ""))
    if trained and named and runs.model_name(named) != trained:
        raise UserError(f"{checkpoint} is of a run of '{trained}', not of '{named}': give --model {trained}")
    return named or trained or "model"


def _recipe_config(model: str, data: str, scale: str) -> Config:
    """The recipe's configuration; for a class, the data set's, with the model options that a scale shares."""
    if not _is_class(model) and recipes.find("models", model):
        config = recipes.resolve(model, data, scale)
    else:
        config = recipes.resolve_data(data, scale)
    if _is_class(model):
        _, shared = recipes.shared_options(data, scale)
        config["model"] = {"class_path": model, "init_args": shared.get("model", {})}
    names = {"model": runs.model_name(model), "data": data, "scale": scale}
    config["run"] = config.get("run", {}) | names
    return config
