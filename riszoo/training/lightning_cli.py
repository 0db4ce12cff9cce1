"""fit, validate, test, predict: LightningCLI with recipes and run folders."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger

from riszoo.blocks import compile_blocks
from riszoo.build import extended_vocabulary, instantiate, missing_vocabulary
from riszoo.data.datamodule import RISData
from riszoo.errors import UserError, find_user_error
from riszoo.model import RISModule
from riszoo.signatures import options_of
from riszoo.training import runs
from riszoo.training.callbacks.dashboard import Dashboard, build_loggers, finish
from riszoo.training.callbacks.nonfinite import NonFinite
from riszoo.training.callbacks.prediction_files import PredictionWriter
from riszoo.training.callbacks.progress import progress
from riszoo.training.checkpoint_checks import check_class, check_model_class
from riszoo.training.checkpoints import RISCheckpointIO, load_initial, model_section, read_checkpoint, run_names
from riszoo.training.interruption import Interrupted, claim, describe_stop, release_claims, requeue_job, signal_of
from riszoo.training.machine import keep_memory, leave_processors
from riszoo.training.parser_errors import parser_error
from riszoo.training.recorder import Recorder
from riszoo.training.saving import BestCheckpoint, LastCheckpoint, changed_options, keep_curves

if TYPE_CHECKING:
    from riszoo.cli.request import Request

FOLDER = "RISZOO_RUN_FOLDER"
"""Environment variable that gives the run folder to the processes that rank 0 launches."""

FINE_TUNING = 0.1
"""The learning rates of a training that starts from weights, as a share of the recipe's."""

LEAST_PROCESSES = 8
"""Processes of a run on a CPU that are allowed on every machine."""

EXPECTED_WARNINGS = (
    "LeafSpec",
    "many workers",
    "log_every_n_steps",
    "on_before_batch_transfer",
    "WeightAveraging callback",
    "callbacks used to create the checkpoint",
    "dataloader is not resumable",
    "in eval mode at the start of training",
    "custom batch sampler",
    "Experiment logs directory",
    "Checkpoint directory",
    "dirpath has changed",
    "number of worker processes",
)
"""Lightning's warnings about what riszoo does on purpose."""


@dataclass
class RunOptions:
    """Names and files of a run.

    model, data, scale  names of the recipes, saved in the run's configuration
    root                folder of the run folders
    loggers             loggers besides the CSV file: wandb, tensorboard
    log_checkpoint      upload the best checkpoint to wandb as an artifact, at the end of the training
    images              sentences whose predictions are drawn, at the end of an evaluation and by the loggers
    checkpoint          `trained` leaves out of checkpoints the frozen weights that a weight file provides
    save_steps          optimiser steps between two writes of last.ckpt; 0: no limit
    save_minutes        minutes between two writes of last.ckpt; 0: no limit
    init                a checkpoint whose weights a new training starts from
    nonfinite           `stop` at a loss or gradient that is not finite, or `skip` its optimiser step
    compiled            compile each repeated block of the model with torch.compile
    """

    model: str = "model"
    data: str = "data"
    scale: str = "own"
    root: str = "runs"
    loggers: list[str] = field(default_factory=list)
    log_checkpoint: bool = False
    images: int = 8
    checkpoint: Literal["full", "trained"] = "full"
    save_steps: int = 500
    save_minutes: float = 5.0
    nonfinite: Literal["stop", "skip"] = "stop"
    compiled: bool = False
    init: str | None = None


class RISCLI(LightningCLI):
    """LightningCLI in subclass mode, with one more section of options, `run`."""

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

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb that was asked for: a parser of its own for each of the four takes a noticeable time."""
        return {self.request.verb: super().subcommands()[self.request.verb]}

    # -- parsing ------------------------------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunOptions, "run")
        for name in ("size", "geometry"):
            parser.link_arguments(f"model.init_args.{name}", f"data.init_args.{name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Report a wrong option or value in one sentence, before any data or weights are loaded."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise parser_error(str(error), self._known_options(), self.request.options) from None

    def _known_options(self) -> list[str]:
        actions = self._subcommand_parsers[self.request.verb]._actions
        known = [*self.request.aliases, *(option for action in actions for option in action.option_strings)]
        for section in ("model", "data"):
            paths = [config[section].get("class_path") for config in self.request.base if section in config]
            known += [option for path in paths if path for option in options_of(section, path) or ()]
        return known

    def _parse_ckpt_path(self) -> None:
        """Do nothing: `main` has put the checkpoint's hyperparameters below the user's options."""

    @property
    def run(self) -> Namespace:
        options: Namespace = self._get(self.config, "run")
        return options

    @property
    def initial(self) -> Path | None:
        """The checkpoint whose weights this training starts from; None where one is continued or evaluated."""
        if self.run.init is None or self.request.verb != "fit" or self.request.checkpoint is not None:
            return None
        return Path(self.run.init)

    # -- objects ------------------------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Add a vocabulary to the model's hyperparameters where it needs one, and create the run folder."""
        config = self.config[self.request.verb]
        self._print_changes(config)
        model = config.model.clone().as_dict()
        if ((model["init_args"] or {}).get("text") or {}).get("vocabulary") is None:
            data = instantiate(RISData, config.data.clone().as_dict())  # type: ignore[type-abstract]
            vocabulary = missing_vocabulary(model, data)
            if vocabulary is not None:
                config.model.init_args.text.vocabulary = vocabulary
        elif self.initial is not None:
            data = instantiate(RISData, config.data.clone().as_dict())  # type: ignore[type-abstract]
            config.model.init_args.text.vocabulary = extended_vocabulary(model["init_args"]["text"]["vocabulary"], data)
        self.folder = self._run_folder()

    def _print_changes(self, config: Namespace) -> None:
        """Name the options that differ from those of the training that is continued."""
        if self.request.saved is not None and is_rank_zero():
            parser = self._subcommand_parsers[self.request.verb]
            line = changed_options(self.request.saved, yaml.safe_load(parser.dump(config, skip_none=False)))
            if line:
                print(line)

    def _run_folder(self) -> Path:
        """Rank 0 chooses the folder; the other processes learn its name from the environment or by a broadcast."""
        if not is_rank_zero():
            return Path(os.environ.get(FOLDER, self.run.root))
        if self.request.folder is not None:
            claim(self.request.folder)
            os.environ[FOLDER] = str(self.request.folder)
            return self.request.folder
        if self.request.verb != "fit" and self.request.checkpoint is not None:
            folder = runs.folder_of(self.request.checkpoint)
            if runs.card(folder) is not None and os.access(folder, os.W_OK):
                return folder
        folder = self.request.created = runs.create(Path(self.run.root), f"{self.run.model}-{self.run.data}")
        claim(folder)
        os.environ[FOLDER] = str(folder)
        return folder

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        if config.get("logger") in (None, True):
            kwargs["logger"] = self._loggers() if self.request.verb == "fit" else False
        if config.get("enable_model_summary") is None:
            kwargs["enable_model_summary"] = False
        if torch.cuda.is_available() and not config.get("sync_batchnorm"):
            kwargs["sync_batchnorm"] = True  # without effect on one device
        if config.get("strategy") == "fsdp2":
            from riszoo.training.sharding import ShardedStrategy

            kwargs["strategy"] = ShardedStrategy()
        kwargs.setdefault("use_distributed_sampler", False)
        kwargs.setdefault("default_root_dir", str(self.folder))
        kwargs["plugins"] = self._plugins(config.get("plugins"))
        kwargs["callbacks"] = [*(config.get("callbacks") or []), *self._callbacks()]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError) as error:
            raise find_user_error(error) or UserError(f"the trainer's options do not fit: {error}") from error
        most = max(LEAST_PROCESSES, os.cpu_count() or 1)
        if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > most:
            raise UserError(f"--trainer.devices {trainer.num_devices}: give at most {most} on the CPU of this machine")
        return trainer

    def _plugins(self, given: Any) -> list[Any]:
        """The user's plug-ins, with riszoo's checkpoints and SLURM without its requeuing unless one replaces them."""
        plugins = list(given) if isinstance(given, list | tuple) else [given] if given else []
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(RISCheckpointIO(self.model, trained_only=self.run.checkpoint == "trained"))
        if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins) and SLURMEnvironment.detect():
            plugins.append(SLURMEnvironment(auto_requeue=False))  # LastCheckpoint handles the scheduler's signal
        return plugins

    @property
    def seed(self) -> int:
        """The seed of the run; 0 where `--seed_everything false` sets none."""
        return int(self._get(self.config, "seed_everything"))

    def _callbacks(self) -> list[Callback]:
        callbacks: list[Callback] = []
        run, config, request = self.run, self._logged(), self.request
        if self._get(self.config_init, "trainer").enable_progress_bar is not False:
            callbacks.append(progress())
        if request.verb == "predict":
            return [*callbacks, PredictionWriter(self.folder, run.data)]
        if request.verb == "fit":
            last = LastCheckpoint(runs.checkpoint(self.folder, "last"), run.save_steps, run.save_minutes, self.seed)
            rates = [] if config["trainer"].get("logger") is False else [LearningRateMonitor("step")]
            callbacks += [BestCheckpoint(self.folder / "checkpoints"), last, *rates]
            callbacks += [NonFinite(self.folder, run.nonfinite, self.seed), Dashboard(config, run.images)]
        recorder = Recorder(self.folder, request.verb, request.command, run.as_dict(), config["data"], self.seed)
        if self.initial is not None:
            recorder.add_trained_on(load_initial(self.model, self.initial))
        return [*callbacks, recorder]

    def _loggers(self) -> list[Logger]:
        csv = CSVLogger(str(self.folder), name="", version="")
        if self.request.folder is not None and self.request.checkpoint is not None and is_rank_zero():
            step = int(read_checkpoint(self.request.checkpoint)["global_step"])
            keep_curves(csv, self.folder / "metrics.csv", step)
        return [csv, *build_loggers(self.run.loggers, self.folder, self.run.log_checkpoint)]

    def _logged(self) -> dict[str, Any]:
        """The configuration without the model, whose hyperparameters Lightning logs."""
        config = self.config[self.request.verb].as_dict()
        return {name: config[name] for name in ("seed_everything", "data", "trainer", "run")}

    # -- the run ------------------------------------------------------------------------------------------------------

    def after_instantiate_classes(self) -> None:
        """Give the data the run's seed, compile, and print one line: verb, model, data, devices, size, folder."""
        if self.run.compiled:
            compile_blocks(self.model, self.trainer.strategy.root_device.type)
        if self.datamodule.seed is None:
            self.datamodule.seed = self.seed
        if self.trainer.strategy.root_device.type == "cpu":
            keep_memory()
            leave_processors(0 if self.request.verb == "fit" else self.datamodule.workers)
        if is_rank_zero():
            devices = f"{self.trainer.num_devices} x " if self.trainer.num_devices > 1 else ""
            checkpoint = f", checkpoint {runs.described(self.request.checkpoint)}" if self.request.checkpoint else ""
            print(
                f"riszoo {self.request.verb}: {self.run.model} on {self.run.data}, scale {self.run.scale}, "
                f"{devices}{self.trainer.strategy.root_device.type}, "
                f"{sum(p.numel() for p in self.model.parameters()):,} parameters, folder {self.folder}{checkpoint}",
                flush=True,
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
        """Evaluate the best checkpoint on the whole validation split."""
        if self.trainer.interrupted or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        best = Path(self.trainer.strategy.broadcast(str(runs.checkpoint(self.folder))))
        if best.is_file():
            self.trainer.validate(
                self.model, datamodule=self.datamodule, ckpt_path=str(best), verbose=False, weights_only=True
            )
            note = f"test it with: {runs.test_command(self.request.model, self.run.data, self.request.options, best)}"
        else:
            note = f"without validation there is no best checkpoint: test {runs.checkpoint(self.folder, 'last')}"
        if self.trainer.is_global_zero:
            print(note)


def is_rank_zero() -> bool:
    """Whether this is the first process of a run, by the environment: the trainer may not exist yet."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def silence_lightning() -> None:
    """Hide Lightning's messages of every run and its expected warnings; warnings about the user's run remain."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=f".*{message}.*")


def _stopped(error: BaseException, verb: str) -> int:
    """Say how an interrupted training continues, and return the exit code: 128 plus the signal's number.

    A process that rank 0 has launched returns 0, because Lightning kills rank 0 where one of them fails.
    """
    signum = signal_of(error)
    if signum is None:
        raise error
    if not is_rank_zero():
        return 0
    if verb == "fit" and FOLDER in os.environ:
        print(describe_stop(signum, runs.checkpoint(Path(os.environ[FOLDER]), "last")), file=sys.stderr)
        requeued = requeue_job() if signum == signal.SIGUSR1 else None
        if requeued:
            print(requeued, file=sys.stderr)
    return 128 + signum


def _use_initial(request: Request, path: Path) -> None:
    """Take the model and its options from the checkpoint, with a tenth of the recipe's learning rates."""
    content = read_checkpoint(path)
    check_class(content, path, request.model)
    recipe, section = request.base[0], model_section(content)
    optim = recipe.get("model", {}).get("init_args", {}).get("optim") or section["init_args"].get("optim") or {}
    rates = {name: FINE_TUNING * optim[name] for name in ("lr", "lr_vision", "lr_text") if optim.get(name)}
    section["init_args"]["optim"] = {**optim, **rates}
    request.base[0] = {**recipe, "model": section, "run": {**recipe["run"], "model": run_names(content)["model"]}}


def _use_checkpoint(request: Request, path: Path) -> None:
    """Take the model, its options and the names of its recipes from the checkpoint."""
    content = read_checkpoint(path)
    check_class(content, path, request.model)
    if request.verb == "fit" and "optimizer_states" not in content:
        raise UserError(f"{path} has weights, but no training that `fit` could continue: test it")
    names = run_names(content)
    recipe = request.base[0]
    run = {**recipe["run"], "model": names["model"], "scale": names["scale"]}
    request.base[0] = {**recipe, "model": model_section(content), "run": run}


def main(request: Request) -> int:
    """Run one of LightningCLI's subcommands."""
    if os.environ.get("RISZOO_DOWNLOAD") != "1":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    silence_lightning()
    if "." in request.model:
        check_model_class(request.model)
    if request.checkpoint is not None:
        _use_checkpoint(request, request.checkpoint)
    elif request.init is not None:
        _use_initial(request, request.init)
    folder = os.environ.get(FOLDER)
    try:
        finish(RISCLI(request).trainer)
    except (Interrupted, SystemExit, KeyboardInterrupt) as error:
        return _stopped(error, request.verb)
    except ValueError as error:
        raise find_user_error(error) or error from None
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    finally:
        release_claims()
        if request.created is not None:
            runs.remove_if_unused(request.created)
        os.environ.pop(FOLDER, None) if folder is None else os.environ.update({FOLDER: folder})
    sys.stdout.flush()
    return 0
