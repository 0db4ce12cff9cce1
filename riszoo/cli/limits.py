"""Checks that need neither data nor weights: numbers within their limits, precisions, names of splits and options."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from riszoo import recipes
from riszoo.errors import UserError
from riszoo.recipes import Config
from riszoo.signatures import is_known, options_of, run_options, trainer_options
from riszoo.training.parser_errors import unknown_option

INFINITY = math.inf


class Limits(NamedTuple):
    """The type of an option's numbers and their limits, both included; `positive` excludes zero."""

    kind: type[int] | type[float]
    least: float
    most: float = INFINITY
    positive: bool = False

    def advice(self) -> str:
        if self.positive:
            return "give a number above 0"
        noun = "a whole number" if self.kind is int else "a number"
        if self.most == INFINITY:
            return f"give at least {self.least:g}, {noun}"
        return f"give {noun} from {self.least:.10g} to {self.most:.10g}"

    def accepts(self, value: Any) -> bool:
        try:
            number = self.kind(value) if isinstance(value, str) else value
        except ValueError:
            return False
        in_range = isinstance(number, int | self.kind) and self.least <= number <= self.most
        return in_range and not (self.positive and number == 0)


COUNT = Limits(int, 1)
SHARE = Limits(float, 0, 1)
RATE = Limits(float, 0, 10)
LIMITS = {
    "model.size": Limits(int, 16, 4096),
    "model.text.length": Limits(int, 1, 4096),
    "model.optim.lr": RATE,
    "model.optim.lr_vision": RATE,
    "model.optim.lr_text": RATE,
    "model.optim.weight_decay": RATE,
    "model.optim.power": Limits(float, 0, 100),
    "model.optim.gamma": SHARE,
    "model.optim.ema": SHARE,
    "model.optim.warmup": Limits(float, 0, 1e9),
    "data.batch_size": COUNT,
    "data.total_batch_size": COUNT,
    "data.sentences_per_image": COUNT,
    "data.eval_images": COUNT,
    "data.val_images": COUNT,
    "data.test_images": COUNT,
    "data.workers": Limits(int, 0, 256),
    "data.seed": Limits(int, 0, 2**32 - 1),
    "trainer.max_steps": Limits(int, -1),
    "trainer.max_epochs": Limits(int, -1),
    "trainer.devices": Limits(int, -1, 1024),
    "trainer.num_nodes": Limits(int, 1, 65_536),
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": Limits(float, 0),
    "trainer.val_check_interval": Limits(float, 0, positive=True),
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.log_every_n_steps": Limits(int, 0),
    "trainer.num_sanity_val_steps": Limits(int, -1),
    **{f"trainer.limit_{loop}_batches": Limits(float, 0) for loop in ("train", "val", "test", "predict")},
    "run.images": Limits(int, 0),
    "run.save_steps": Limits(int, 0),
    "run.save_minutes": Limits(float, 0),
    "budget": COUNT,
    "seed_everything": Limits(int, 0, 2**32 - 1),
}
"""The limits of an option's numbers. A list is checked item by item."""

WORDS = ("null", "none", "true", "false", "auto", "")
"""Values that are not numbers and are left to the parser."""

PRECISION = "trainer.precision"
NOT_SUPPORTED = ("bf16-true", "16-true", "64-true", "64")
"""Precisions for which Lightning converts each batch; those of riszoo contain frozen dataclasses, which it refuses."""

CHECKPOINTS = {"trainer.barebones": "true", "trainer.enable_checkpointing": "false"}
"""Values that would leave a training without checkpoints."""

ROOTS = (
    *("model", "data", "trainer", "run", "seed_everything", "optimizer", "lr_scheduler"),
    *("config", "ckpt_path", "print_config", "help", "verbose", "weights_only", "return_predictions"),
)
"""The names of LightningCLI's options, up to the first point."""

SPLITS = ("data.train_split", "data.val_split", "data.test_splits")


def check_values(data: str, configs: list[Config], options: list[str]) -> None:
    """Raise UserError for the first value that is not allowed: a number, a precision, a split of another data set."""
    for name, value in settings(configs, options):
        if name in LIMITS:
            check_number(name, value)
        if name == PRECISION and str(value) in NOT_SUPPORTED:
            raise UserError(f"--{name} {value} is not supported: choose 32-true, bf16-mixed or 16-mixed")
        if CHECKPOINTS.get(name) == str(value).lower():
            raise UserError(f"--{name} {value} is not supported: a training saves its checkpoints; leave it out")
        if name == "data.val_split" and "," in str(value):
            raise UserError(f"--split {str(value)[:60]}: fit and validate measure one split, and `riszoo test` several")
        if name in SPLITS:
            recipes.check_splits(data, map(str, _items(value)) if name == "data.test_splits" else [str(value)])


def check_number(name: str, value: Any) -> None:
    """Raise UserError for a number outside the limits of its option."""
    for item in _items(value):
        left_to_parser = item is None or isinstance(item, bool | dict) or str(item).strip().lower() in WORDS
        if not left_to_parser and not LIMITS[name].accepts(item):
            raise UserError(f"--{name} {str(value)[:60]}: {LIMITS[name].advice()}")


def check_options(base: list[Config], options: list[str], aliases: Iterable[str] = ()) -> None:
    """Raise UserError for an option that does not exist, or that the class of the model or the data does not have.

    Classes whose source does not tell are left to LightningCLI, as are those that another option names.
    """
    for config in base[1:]:
        recipes.check_mappings(base[0], config)
    known = {section: _section_options(section, base, options) for section in ("model", "data")}
    known |= {"trainer": trainer_options(), "run": run_options()}
    for word in options:
        name = word.partition("=")[0].rstrip("+").replace(".init_args.", ".")
        section, point, _ = name.removeprefix("--").partition(".")
        if not name.startswith("--"):
            continue
        if section not in ROOTS:
            names = [option for some in known.values() for option in some or ()]
            raise unknown_option(name, [*aliases, *(f"--{root}" for root in ROOTS), *names])
        own = known.get(section) if point else None
        if own and not is_known(name, own + [f"--{section}.{key}" for key in ("help", "init_args", "dict_kwargs")]):
            raise unknown_option(name, own)


def _section_options(section: str, base: list[Config], options: list[str]) -> list[str] | None:
    """The options of the class of the model or the data; None where its source does not tell, or an option names it."""
    paths = [config[section].get("class_path") for config in base if isinstance(config.get(section), dict)]
    path = next((str(path) for path in reversed(paths) if path), None)
    is_named = any(word.partition("=")[0] == f"--{section}.class_path" for word in options)
    return None if path is None or is_named else options_of(section, path)


def missing_model(verb: str, options: list[str]) -> UserError:
    """The error for a command line that names no model: its option may be misspelt or left out."""
    written = [word.partition("=")[0] for word in options if word.startswith("--")]
    if misspelt := difflib.get_close_matches("--model", written, 1, 0.8):
        return unknown_option(misspelt[0], ["--model"])
    known = recipes.names("models")
    if bare := next((word for word in options if word in known), None):
        return UserError(f"unexpected '{bare}': did you mean --model {bare}?")
    return UserError(
        f"name a model: riszoo {verb} --model NAME, where NAME is one of {', '.join(known)}, or my.module.Class"
    )


def settings(configs: list[Config], options: list[str]) -> Iterator[tuple[str, Any]]:
    """(name, value) of every setting in configurations and on the command line, named as the options are."""
    for config in configs:
        yield from _leaves(config, "")
    words = iter([*options, ""])
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            name = name.replace(".init_args.", ".")
            if name in LIMITS or name in CHECKPOINTS or name in (*SPLITS, PRECISION):
                yield name, value if equals else next(words, "")


def _leaves(config: Config, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict):
            yield from _leaves(value, name)
        else:
            yield name, value


def _items(value: Any) -> list[Any]:
    """The items of a list, or of text such as `[64, 96]` or `val,testA`; any other value as one item."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        return [item.strip(" '\"") for item in value.strip("[]() ").split(",")]
    return [value]
