"""Run folders: their names, their description (run.json), and the newest one of a model."""

from __future__ import annotations

import json
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
    """The checkpoint of the newest run of a model on a data set."""
    found = []
    for folder in root.iterdir() if root.is_dir() else []:
        content = card(folder) if checkpoint(folder, which).is_file() else None
        if content and content.get("model") == model_name(model) and content.get("data") == data:
            found.append((float(content.get("started", 0)), folder.name, folder))
    if not found:
        raise UserError(
            f"no run of '{model}' on '{data}' with a {which} checkpoint under {root}: "
            f"train one with 'riszoo fit --model {model} --data {data}' or give --ckpt_path FILE"
        )
    return checkpoint(max(found)[2], which)


def existing(path: str) -> Path:
    """The path of a checkpoint that exists."""
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint {path}: give --ckpt_path a .ckpt file, `best` or `last`")
    return Path(path)
