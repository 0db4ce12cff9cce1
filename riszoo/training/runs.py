"""Run folders: how they are named, what marks them, which is the newest."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from riszoo.errors import UserError

CARD = "run.json"


def create(root: Path, stem: str) -> Path:
    """A new folder `<stem>-<time>`; two of one second get different ones."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        folder = root / (f"{stem}-{stamp}" + (f"-{attempt}" if attempt else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"cannot make the run folder {folder}: {error.strerror}; choose another --run.root"
            ) from None
        return folder
    raise UserError(f"{root} already holds a thousand runs of this second: choose another --run.root")


def card(folder: Path) -> dict[str, Any] | None:
    """What a run says of itself, or None where the folder is no run."""
    try:
        content = json.loads((folder / CARD).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def checkpoint(folder: Path, which: str = "best") -> Path:
    return folder / "checkpoints" / f"{which}.ckpt"


def folder_of(path: Path) -> Path:
    """The run a checkpoint lies in, or its own folder."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def newest(root: Path, model: str, data: str, which: str) -> Path:
    """The checkpoint of the newest run of a model on a data set."""
    found = []
    for folder in root.iterdir() if root.is_dir() else []:
        content = card(folder) if checkpoint(folder, which).is_file() else None
        if content and content.get("model") == model.rsplit(".", 1)[-1].lower() and content.get("data") == data:
            found.append((float(content.get("started", 0)), folder.name, folder))
    if not found:
        raise UserError(
            f"no run of '{model}' on '{data}' with a {which} checkpoint lies under {root}: "
            f"train one with 'riszoo fit --model {model} --data {data}' or give --ckpt_path FILE"
        )
    return checkpoint(max(found)[2], which)


def existing(path: str) -> Path:
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint {path}: give --ckpt_path a .ckpt file, `best` or `last`")
    return Path(path)


def root_of(options: list[str]) -> Path:
    """--run.root, which is needed before the options are parsed."""
    for place, word in enumerate(options):
        if word.startswith("--run.root="):
            return Path(word.partition("=")[2])
        if word == "--run.root" and place + 1 < len(options):
            return Path(options[place + 1])
    return Path("runs")
