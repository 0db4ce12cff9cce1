"""Run folders: their names, their description (run.json), and the newest one of a model."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from riszoo.errors import UserError

CARD = "run.json"


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


def card(folder: Path) -> dict[str, Any] | None:
    """The content of a run's run.json; None where the folder is not a run."""
    try:
        content = json.loads((folder / CARD).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def checkpoint(folder: Path, which: str = "best") -> Path:
    """The path of a run's checkpoint `best` or `last`."""
    return folder / "checkpoints" / f"{which}.ckpt"


def folder_of(path: Path) -> Path:
    """The run folder of a checkpoint; for a checkpoint outside a run, its own folder."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def model_name(model: str) -> str:
    """The name of a model in run folders: a recipe's name, or a class's name in lower case."""
    return model.rsplit(".", 1)[-1].lower()


def newest(root: Path, model: str, data: str, which: str) -> Path:
    """The checkpoint of the newest run of a model on a data set; where no run has a best one, its last one."""
    folders = sorted(root.iterdir(), key=_started) if root.is_dir() else []
    of_model = [folder for folder in folders if _is_run(folder, model, data)]
    for kind in ("best", "last") if which == "best" else (which,):
        found = [checkpoint(folder, kind) for folder in of_model if checkpoint(folder, kind).is_file()]
        if found and kind != which:
            print(f"riszoo: no run of '{model}' on '{data}' has a best checkpoint; using {found[-1]}", file=sys.stderr)
        if found:
            return found[-1]
    raise UserError(
        f"no run of '{model}' on '{data}' with a {which} checkpoint under {root}: "
        f"train one with 'riszoo fit --model {model} --data {data}' or give --ckpt_path FILE"
    )


def _started(folder: Path) -> tuple[float, str]:
    """When a run started, then its name: the order of run folders."""
    return float((card(folder) or {}).get("started", 0)), folder.name


def _is_run(folder: Path, model: str, data: str) -> bool:
    content = card(folder) or {}
    return content.get("model") == model_name(model) and content.get("data") == data


def existing(path: str) -> Path:
    """The path of a checkpoint that exists."""
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint {path}: give --ckpt_path a .ckpt file, `best` or `last`")
    return Path(path)
