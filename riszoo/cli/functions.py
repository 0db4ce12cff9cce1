"""`riszoo.train` and `riszoo.evaluate`: the verbs `fit` and `test` as functions, for notebooks and scripts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riszoo.cli.request import Request
from riszoo.errors import UserError
from riszoo.training import runs

if TYPE_CHECKING:
    from os import PathLike

RESULTS = "test-*/metrics.json"
Options = Mapping[str, Any]
"""Options of the command line by name, without the dashes: {"trainer.max_steps": 100, "model.optim.lr": 1e-4}."""


def train(
    model: str,
    data: str = "scenes",
    *,
    scale: str | None = None,
    root: str | PathLike[str] = "runs",
    options: Options | None = None,
) -> Path:
    """Train a model as `riszoo fit` does; returns the run's folder, whose weights `riszoo.load` finds.

    Args:
        model: a recipe's name, or your own class as my.module.Class
        data, scale: a data set's recipe, and a scale of the model on it
        root: the folder of the run folders
        options: any others of the command line, by name
    """
    named = {"model": model, "data": data, "scale": scale, "run.root": str(root)}
    request = Request.read("fit", _words({**named, **(options or {})}))
    _start(request)
    folder = request.folder or request.created
    if folder is None or not folder.is_dir():
        raise UserError(f"the training of '{model}' left no run folder: see its messages")
    return folder


def evaluate(
    model: str,
    data: str = "scenes",
    *,
    checkpoint: str | PathLike[str] | None = None,
    splits: str | Sequence[str] | None = None,
    protocols: str | Sequence[str] = "original",
    root: str | PathLike[str] = "runs",
    options: Options | None = None,
) -> dict[str, Any]:
    """Measure a model as `riszoo test` does; returns the content of metrics.json.

    Args:
        model: a recipe's name, or your own class as my.module.Class
        data: the data set's recipe
        checkpoint: a file, hf://user/repository, or the folder of a run; default: the best of the newest run, then the
            shipped
        splits: default: those of the data set
        protocols: names of evaluation protocols
        root: the folder of the run folders
        options: any others of the command line, by name
    """
    named = {
        "model": model, "data": data, "ckpt_path": None if checkpoint is None else _checkpoint_in(str(checkpoint)),
        "split": _joined(splits), "protocol": _joined(protocols), "run.root": str(root),
    }  # fmt: skip
    request = Request.read("test", _words({**named, **(options or {})}))
    assert request.checkpoint is not None
    folder = runs.folder_of(request.checkpoint)
    before = set(folder.glob(RESULTS))
    _start(request)
    written = set((request.created or folder).glob(RESULTS)) - before
    metrics: dict[str, Any] = json.loads(max(written).read_bytes())
    return metrics


def _checkpoint_in(place: str) -> str:
    """The file, repository or address itself, or the best checkpoint of a run's folder."""
    best = runs.checkpoint(Path(place))
    return str(best) if best.is_file() else place


def _joined(names: str | Sequence[str] | None) -> str | None:
    return names if names is None or isinstance(names, str) else ",".join(names)


def _words(options: Options) -> list[str]:
    """The words of a command line; options without a value are left out."""
    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in options.items()
        if value is not None
    }
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items()]


def _start(request: Request) -> None:
    """Run a verb in this process; an interruption raises KeyboardInterrupt."""
    from riszoo.training import lightning_cli

    if lightning_cli.main(request) != 0:
        raise KeyboardInterrupt
