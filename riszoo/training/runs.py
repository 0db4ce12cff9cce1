"""Run folders: their names, their description (run.json), and the newest one of a model."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
import zipfile
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from riszoo import shipped
from riszoo.errors import UserError
from riszoo.inference.hub.fetch import fetch, is_address, parse
from riszoo.recipes import find, read_yaml

CARD = "run.json"
CONFIG = "config.yaml"
LOCK = ".lock"
DESCRIPTION = {CARD, CONFIG, LOCK, "hparams.yaml"}
"""What every run writes before its first step."""
NAMES = ("model", "data", "scale")
"""What the section `run` of a run's configuration calls by name."""
PLACES = ("--data.root", "--data.cutouts", "--data.grounds")
"""Options that say where a data set is."""
CARD_TYPES = {"model": str, "data": str, "scale": str, "started": float}
LARGEST_CARD = 1 << 20  # bytes
LATEST = 253402300800  # seconds until the year 10000


def create(root: Path, stem: str) -> Path:
    """A new folder `<stem>-<time>`, with a number where another run has the same name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        folder = root / (f"{stem}-{stamp}" + (f"-{attempt}" if attempt else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"cannot create the run folder {folder}: {error.strerror}; choose another --run.root"
            ) from None
        return folder
    raise UserError(f"{root} already contains a thousand runs of this second: choose another --run.root")


def remove_if_unused(folder: Path) -> None:
    """Remove the folder of a run that failed before it wrote anything but what describes it."""
    if not any(path.is_file() and path.name not in DESCRIPTION for path in folder.rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def card(folder: Path) -> dict[str, Any] | None:
    """The content of a run's run.json; None where the folder is not a run, or its file is damaged, which is printed."""
    path = folder / CARD
    if not path.is_file():
        return None
    content = _read_card(path)
    if isinstance(content, dict):
        return content
    _report_damaged(path, content)
    return None


def _read_card(path: Path) -> dict[str, Any] | str:
    """The content of a run.json, or the reason why it is not one."""
    try:
        if path.stat().st_size > LARGEST_CARD:
            return f"it is larger than {LARGEST_CARD:,} bytes"
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return str(error)
    if not isinstance(content, dict):
        return "it is not a JSON object"
    for name, kind in CARD_TYPES.items():
        value = content.get(name, kind())
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            return f"'{name}' is {value!r:.40}"
    if not 0 <= content.get("started", 0) < LATEST:
        return f"'started' is {content['started']!r:.40}"
    return content


@cache
def _report_damaged(path: Path, reason: str) -> None:
    """Print the reason, once for each file."""
    print(f"riszoo: {path} is not the description of a run ({reason}): the run is skipped", file=sys.stderr)


def saved_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of a run; None where the folder has none."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    saved = read_yaml(path)
    if not isinstance(saved.get("run"), dict) or not set(NAMES) <= set(saved["run"]):
        raise UserError(f"{path} is not the configuration of a run: give --ckpt_path a checkpoint in a run's folder")
    return saved


def checkpoint(folder: Path, which: str = "best") -> Path:
    """The path of a run's checkpoint `best` or `last`."""
    return folder / "checkpoints" / f"{which}.ckpt"


def folder_of(path: Path) -> Path:
    """The run folder of a checkpoint; for a checkpoint outside a run, its own folder."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def test_command(model: str, data: str, options: Sequence[str], path: Path) -> str:
    """The command that tests a checkpoint; of the training's options, those that say where its data are."""
    words = [word for option in options for word in option.split("=", 1)]
    where = [pair for pair in pairwise(words) if pair[0] in PLACES]
    chosen = ["--model", model, "--data", data, *(word for pair in where for word in pair)]
    return shlex.join(["riszoo", "test", *chosen, "--ckpt_path", str(path)])


def model_name(model: str) -> str:
    """The name of a model in run folders: a recipe's name, or a class's name in lower case, with its module where a
    recipe has that name."""
    name = model.rsplit(".", 1)[-1].lower()
    return model.lower() if name != model and find("models", name) else name


def chosen(given: str | None, root: Path, model: str, data: str) -> Path:
    """The checkpoint for an evaluation: a file, `best` or `last` of the newest run, or `shipped`.

    Where none is given, it is the best of the newest run, and without a run the weights that riszoo ships.
    """
    if given in ("best", "last"):
        return newest(root, model, data, given)
    if given not in (None, "shipped"):
        return existing(given)
    path = (None if given else find_newest(root, model, data, "best")) or shipped.find(model, data)
    if path is None and given:
        raise UserError(f"riszoo ships no weights of '{model}' on '{data}': 'riszoo list' shows those that it has")
    return path or newest(root, model, data, "best")


def naming_its_model(given: str | Path | None) -> str:
    """A checkpoint whose file says of which model it is: `best`, `last` and `shipped` need the model's name."""
    if given in (None, "best", "last", "shipped"):
        raise UserError("--model is missing: give a recipe's name, such as lts, or your own class")
    return str(given)


def initial(given: str, model: str | None) -> Path:
    """The checkpoint of `--init`: a file, or `shipped`, the weights that riszoo ships of the model."""
    if given != "shipped":
        return existing(given, "--init")
    files = shipped.files()
    if model not in files:
        raise UserError(f"--init shipped: give --model one of {', '.join(files)}; riszoo ships no other weights")
    return files[model]


def trained(path: Path) -> dict[str, Any]:
    """The run.json of the training that gave a checkpoint; empty where it is not recorded."""
    content = card(folder_of(path))
    if content is None and path.suffix == shipped.SUFFIX:
        content = shipped.card(path)
    return content or {}


def described(path: Path) -> str:
    """A checkpoint's path, with how it was trained where that is known."""
    if path.parent == shipped.folder():
        return f"{path} (shipped with riszoo, {shipped.origin(path)})"
    content = card(folder_of(path))
    if content is None:
        return str(path)
    model, data, scale = (str(content.get(name, "not recorded")) for name in ("model", "data", "scale"))
    return f"{path} ({shipped.Origin(model, data, scale, float(content.get('started', 0)))})"


def newest(root: Path, model: str, data: str, which: str) -> Path:
    """The checkpoint of the newest run of a model on a data set; where no run has a best one, its last one."""
    path = find_newest(root, model, data, which)
    if path is None:
        raise UserError(
            f"no run of '{model}' on '{data}' with a {which} checkpoint under {root}: "
            f"train one with 'riszoo fit --model {model} --data {data}' or give --ckpt_path FILE"
        )
    return path


def find_newest(root: Path, model: str, data: str, which: str) -> Path | None:
    """The checkpoint that `newest` returns, or None."""
    folders = sorted(_entries(root), key=_started)
    of_model = [folder for folder in folders if _is_run(folder, model, data)]
    for kind in ("best", "last") if which == "best" else (which,):
        found = [checkpoint(folder, kind) for folder in of_model if checkpoint(folder, kind).is_file()]
        if found and kind != which:
            print(f"riszoo: no run of '{model}' on '{data}' has a best checkpoint; using {found[-1]}", file=sys.stderr)
        if found:
            return found[-1]
    return None


def latest(root: Path, model: str | None, data: str | None) -> Path:
    """The last checkpoint of the newest run, of any model or data set where none is named."""
    for folder in sorted(_entries(root), key=_started, reverse=True):
        content = card(folder) or {}
        same = model in (None, content.get("model")) and data in (None, content.get("data"))
        if content and same and checkpoint(folder, "last").is_file():
            return checkpoint(folder, "last")
    of = f" of '{model}'" * bool(model) + f" on '{data}'" * bool(data)
    raise UserError(f"no run{of} under {root} has a last checkpoint: give --ckpt_path FILE, or leave it out to start")


def resumable(path: Path) -> Path:
    """The checkpoint itself; the best one of its run where a crash of the machine has damaged it."""
    best = checkpoint(folder_of(path), "best")
    if zipfile.is_zipfile(path) or path == best or not zipfile.is_zipfile(best):
        return path
    print(f"riszoo: {path} is damaged; continuing from {best}", file=sys.stderr)
    return best


def _entries(root: Path) -> list[Path]:
    """What the folder of the runs contains; none where it does not exist."""
    if root.exists() and not root.is_dir():
        raise UserError(f"--run.root {root} is not a folder: give the folder that contains the run folders")
    return list(root.iterdir()) if root.is_dir() else []


def _started(folder: Path) -> tuple[float, str]:
    """When a run started, then its name: the order of run folders."""
    return float((card(folder) or {}).get("started", 0)), folder.name


def _is_run(folder: Path, model: str, data: str) -> bool:
    content = card(folder) or {}
    return content.get("model") == model_name(model) and content.get("data") == data


PUBLISHED_FILES = ("model.safetensors", "pytorch_model.bin")
"""The weights in a folder of the Hugging Face Hub."""


def existing(path: str, option: str | None = "--ckpt_path") -> Path:
    """The path of a checkpoint that exists; of a run's folder its best one; of a folder or an address of the Hugging
    Face Hub, that of its weights.

    `option` is the one that names the checkpoint, None where an argument without an option does.
    """
    if is_address(path):
        return fetch(parse(path))
    for name in PUBLISHED_FILES:
        if (Path(path) / name).is_file():
            return Path(path) / name
    if (best := checkpoint(Path(path))).is_file():
        return best
    if not Path(path).is_file():
        if path in ("best", "shipped") and option == "--ckpt_path":
            raise UserError(
                f"--ckpt_path {path} is for evaluations: `fit` continues `last` or a file, and --init FILE starts from "
                "weights"
            )
        words = {"--ckpt_path": ", or `best`, `last` or `shipped`", "--init": ", or `shipped`"}
        others = words.get(option or "", "")
        given = "a file" if option is None else f"{option} FILE"
        raise UserError(
            f"checkpoint {path} is not a file: give {given} or hf://user/repository{others}, or the folder of a run"
        )
    return Path(path)
