"""fit, validate, test, predict: LightningCLI with recipes, run folders and one-sentence errors."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import torch
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger

from riszoo import recipes
from riszoo.build import instantiate, vocabulary_for
from riszoo.cli.request import Request
from riszoo.data.datamodule import RISData
from riszoo.errors import UserError, find_user_error
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.callbacks import PredictionWriter, Progress, Recorder
from riszoo.training.checkpoints import RISCheckpointIO, model_section, read_checkpoint

FOLDER = "RISZOO_RUN_FOLDER"
NOT_THE_USERS = (
    "LeafSpec",
    "many workers",
    "log_every_n_steps",
    "on_before_batch_transfer",
    "WeightAveraging callback",
    "callbacks used to create the checkpoint",
    "dataloader is not resumable",
    "in eval mode at the start of training",
    "custom batch sampler",
)
"""Warnings of Lightning's about what riszoo does on purpose."""


@dataclass
class RunOptions:
    """What a run is called and where it goes.

    model, data, scale  the recipe's names, kept so that a saved configuration knows what it was
    root                where run folders are made
    loggers             curves besides the CSV file: wandb, tensorboard
    images              overlay images drawn at the end of a run
    checkpoint          `trained` leaves out of checkpoints the frozen weights that a weight file provides
    """

    model: str = "model"
    data: str = "data"
    scale: str = "own"
    root: str = "runs"
    loggers: list[str] = field(default_factory=list)
    images: int = 8
    checkpoint: Literal["full", "trained"] = "full"


class RISCLI(LightningCLI):
    """Stock LightningCLI in subclass mode; `run` is the only section of its own."""

    def __init__(self, request: Request) -> None:
        self.request = request
        super().__init__(
            RISModule,
            RISData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=SaveConfigCallback if request.verb == "fit" else None,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={verb: {"exit_on_error": False} for verb in self.subcommands()} | {"exit_on_error": False},
            args=request.argv,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunOptions, "run")
        for name in ("size", "geometry"):
            parser.link_arguments(f"model.init_args.{name}", f"data.init_args.{name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """A wrong option or value becomes one sentence, before any data or weights load."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise UserError(sentence(str(error), self._known_options(), self.request.options)) from None

    def _parse_ckpt_path(self) -> None:
        """The checkpoint's hyperparameters are in the request already, below what the user overrides."""

    def _known_options(self) -> list[str]:
        actions = self._subcommand_parsers[self.request.verb]._actions
        known = [option for action in actions for option in action.option_strings]
        for section in ("model", "data"):
            paths = [config[section].get("class_path") for config in self.request.base if section in config]
            known += [option for path in paths if path for option in options_of(section, path)]
        return known

    @property
    def run(self) -> Namespace:
        options: Namespace = self._get(self.config, "run")
        return options

    @property
    def rank_zero(self) -> bool:
        return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))

    def before_instantiate_classes(self) -> None:
        config = self.config[self.request.verb]
        config.model.init_args = self._with_vocabulary(config)
        self.folder = self._name_folder()

    def _with_vocabulary(self, config: Namespace) -> Namespace:
        """A word vocabulary is made before the model, and becomes one of its plain hyperparameters."""
        model = config.model.clone().as_dict()
        if ((model["init_args"] or {}).get("text") or {}).get("vocabulary") is None:
            section = config.data.clone().as_dict()
            words = vocabulary_for(model, instantiate(RISData, section))  # type: ignore[type-abstract]
            if words is not None:
                config.model.init_args.text.vocabulary = words
        return config.model.init_args

    def _name_folder(self) -> Path:
        """Rank 0 names the run's folder; processes it starts read the name, others are told when they meet."""
        if not self.rank_zero:
            return Path(os.environ.get(FOLDER, self.run.root))
        if self.request.verb != "fit" and self.request.checkpoint is not None:
            folder = runs.folder_of(self.request.checkpoint)
            if runs.card(folder) is not None:
                return folder
        folder = runs.create(Path(self.run.root), f"{self.run.model}-{self.run.data}")
        os.environ[FOLDER] = str(folder)
        return folder

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        if config.get("logger") in (None, True):
            kwargs["logger"] = self._loggers() if self.request.verb == "fit" else False
        plugins = config.get("plugins") or []
        plugins = [*plugins] if isinstance(plugins, list | tuple) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, RISCheckpointIO(self.model, self.run.checkpoint == "trained")]
        if config.get("enable_model_summary") is None:
            kwargs["enable_model_summary"] = False
        kwargs.setdefault("use_distributed_sampler", False)
        kwargs.setdefault("default_root_dir", str(self.folder))
        if torch.cuda.is_available() and not config.get("sync_batchnorm"):
            kwargs["sync_batchnorm"] = True  # without effect on one device
        kwargs["callbacks"] = [*(config.get("callbacks") or []), *self._callbacks()]
        return super().instantiate_trainer(**kwargs)

    def _callbacks(self) -> list[Callback]:
        shown: list[Callback] = (
            [Progress()] if self._get(self.config_init, "trainer").enable_progress_bar is not False else []
        )
        recorder = Recorder(self.folder, self.request, self.run.as_dict())
        if self.request.verb == "predict":
            return [*shown, PredictionWriter(self.folder, self.run.data)]
        if self.request.verb != "fit":
            return [*shown, recorder]
        best = ModelCheckpoint(
            dirpath=self.folder / "checkpoints",
            filename="best",
            monitor="val/mIoU",
            mode="max",
            save_last=True,
            enable_version_counter=False,
        )
        return [*shown, best, recorder, LearningRateMonitor("step")]

    def _loggers(self) -> list[Logger]:
        csv = CSVLogger(str(self.folder), name="", version="")
        return [csv, *(_logger(name, self.folder) for name in self.run.loggers if name != "csv")]

    def after_instantiate_classes(self) -> None:
        if self.rank_zero:
            strategy = self.trainer.strategy
            devices = f"{self.trainer.num_devices} x " if self.trainer.num_devices > 1 else ""
            size = f"{sum(p.numel() for p in self.model.parameters()):,} parameters"
            print(
                f"riszoo {self.request.verb}: {self.run.model} on {self.run.data}, scale {self.run.scale}, "
                f"{devices}{strategy.root_device.type}, {size}, folder {self.folder}"
                + (f", checkpoint {self.request.checkpoint}" if self.request.checkpoint else "")
            )

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        kwargs["weights_only"] = True
        if self.request.checkpoint is not None:
            kwargs["ckpt_path"] = str(self.request.checkpoint)
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        return kwargs

    def after_fit(self) -> None:
        """The best checkpoint is measured on the whole of the validation split."""
        best = runs.checkpoint(self.folder)
        if self.trainer.interrupted or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not best.is_file():
            if self.trainer.is_global_zero:
                print(f"no validation was reached, so there is no best checkpoint: see {self.folder}/checkpoints")
            return
        self.trainer.validate(
            self.model, datamodule=self.datamodule, ckpt_path=str(best), verbose=False, weights_only=True
        )
        if self.trainer.is_global_zero:
            print(f"test it with: riszoo test --model {self.request.model} --data {self.run.data} --ckpt_path {best}")


def _logger(name: str, folder: Path) -> Logger:
    if name == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(project="riszoo", name=folder.name, save_dir=str(folder))
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(str(folder), name="", version="tensorboard")


def options_of(section: str, class_path: str) -> Iterator[str]:
    """Every option of a class and of those it is made from, groups opened; none of a class that is not there, of which
    the parser's own sentence tells."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return
    for base in found.__mro__:
        if issubclass(base, RISModule | RISData) and "__init__" in vars(base):
            for option, kind in get_type_hints(base.__init__).items():
                yield f"--{section}.{option}"
                for group in filter(is_dataclass, (kind, *get_args(kind))):
                    yield from (f"--{section}.{option}.{inner.name}" for inner in fields(group))


ONE_KIND = r"Expected (.*?)\. Got value: (\S+)"
SEVERAL_KINDS = r"Does not validate.*?Errors: Expected (.*?) Given value type: .*?Given value: (\S+)"
"""A parser's complaint of a value: what it must be, what it is."""


def sentence(message: str, options: list[str], words: list[str]) -> str:
    """The heart of a parser's complaint, with the nearest option where one was misspelt."""
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip())
    wrong = re.search(r"(?:[Uu]nrecognized arguments:|Key|Option) '?(-{0,2}[\w.]+)'?", text)
    if wrong:
        name = as_written(wrong.group(1).lstrip("-"), words)
        near = difflib.get_close_matches(f"--{name}", options, 1, 0.6)
        return f"unknown option --{name}" + (f": did you mean {near[0]}?" if near else ": see --help-all")
    value = re.search(rf'key "(model|data)":.*key "([\w.]+)": (?:{ONE_KIND}|{SEVERAL_KINDS})', text)
    if value:
        section, name, *kinds = value.groups()
        name, (expected, given) = as_written(name, words, f"{section}."), [kind for kind in kinds if kind]
        return f"--{name} {given}: expected {plain(expected)}"
    return text


def as_written(name: str, words: list[str], section: str = "") -> str:
    """The whole name of an option of which the parser tells the end, as far as the command line has it."""
    written = (word.partition("=")[0].lstrip("-") for word in words if word.startswith("--"))
    return next((word for word in written if f".{word}".endswith(f".{name}")), section + name)


def plain(kinds: str) -> str:
    """`a typing.Literal['a'] Expected a <class 'NoneType'>` -> `a Literal['a'] or null`"""
    text = re.sub(r"<class '(\w+)'>", r"\1", kinds.replace("typing.", ""))
    return re.sub(r"\ba int\b", "an int", text.replace(" Expected a ", " or ").replace("NoneType", "null"))


def quieten() -> None:
    """Leave out what Lightning says of itself on every run; its warnings about the user's run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for known in NOT_THE_USERS:
        warnings.filterwarnings("ignore", message=f".*{known}.*")


def main(request: Request) -> int:
    """Run a verb that LightningCLI knows."""
    if os.environ.get("RISZOO_DOWNLOAD") != "1":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    quieten()
    if request.checkpoint is not None:
        request.base[0] = recipes.merge(request.base[0], {})
        request.base[0]["model"] = model_section(read_checkpoint(request.checkpoint))
    kept = os.environ.get(FOLDER)
    try:
        RISCLI(request)
    except ValueError as error:
        raise find_user_error(error) or error from None
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    finally:
        os.environ.pop(FOLDER, None) if kept is None else os.environ.update({FOLDER: kept})
    sys.stdout.flush()
    return 0
