"""The trained weights that riszoo ships: one .safetensors file for each model that has them.

Only the metadata of a file is read here, so that a model is found by name before anything heavy is imported.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riszoo.errors import UserError, reason
from riszoo.files import check_not_pointer

METADATA = "riszoo"
"""The key of a .safetensors file's metadata that has all but the weights, as JSON."""
SUFFIX = ".safetensors"
LARGEST_HEADER = 100_000_000
"""Bytes of a file's header, at most, as in the safetensors package."""


@dataclass(frozen=True)
class Origin:
    """How weights were trained: the names of the recipes, and the time when the training started (0: unknown)."""

    model: str
    data: str
    scale: str
    started: float

    def __str__(self) -> str:
        day = time.strftime(", %Y-%m-%d", time.gmtime(self.started)) if self.started else ""
        return f"scale {self.scale}{day}"


def folder() -> Path:
    """The folder of the shipped weights: inside the package when installed, in `benchmarks` in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "benchmarks" / "weights"


def files() -> dict[str, Path]:
    """The shipped files by the name of their model."""
    return {path.stem: path for path in sorted(folder().glob(f"*{SUFFIX}"))}


def find(model: str, data: str) -> Path | None:
    """The shipped weights of a recipe, if they were trained on this data set."""
    path = files().get(model)
    return path if path is not None and origin(path).data == data else None


def origin(path: Path) -> Origin:
    """How the weights of a .safetensors file were trained; raises UserError where the file does not say it."""
    about = card(path)
    names = [about.get(name) for name in ("model", "data", "scale")]
    started = about.get("started", 0)
    if not all(isinstance(name, str) for name in names) or not isinstance(started, int | float):
        raise UserError(f"{path} does not say how it was trained: pack the run again with 'riszoo convert RUN'")
    model, data, scale = map(str, names)
    return Origin(model, data, scale, float(started))


def card(path: Path) -> dict[str, Any]:
    """The run.json of the training that gave the weights of a .safetensors file; empty where the file has none."""
    about = metadata(path)
    run = about.get("riszoo") if isinstance(about, dict) else None
    content = run.get("card") if isinstance(run, dict) else None
    return content if isinstance(content, dict) else {}


def metadata(path: Path) -> Any:
    """The JSON value in the metadata of a .safetensors file; None where riszoo has not written the file."""
    try:
        check_not_pointer(path)
        return json.loads(_header(path).get("__metadata__", {}).get(METADATA, "null"))
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {reason(error)}; copy the file again") from None


def _header(path: Path) -> dict[str, Any]:
    """The JSON header of a .safetensors file; raises ValueError where the file is not as long as its header says.

    The safetensors package would import NumPy, which takes longer than every other part of `riszoo list`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, LARGEST_HEADER):
            raise ValueError(f"its header has {length:,} bytes")
        header: dict[str, Any] = json.loads(file.read(length))
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
    if size != expected:
        raise ValueError(f"it has {size:,} bytes instead of {expected:,}")
    return header
