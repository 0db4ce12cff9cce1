"""The circumstances of a result: code, package versions, device, training images."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from riszoo import __version__
from riszoo.data.record import Ints

CODE = ("riszoo", "configs", "pyproject.toml")
"""Files that can change a result; tables and docs cannot."""
PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "lightning", "transformers", "timm", "torchmetrics", "numpy", "pillow")


def commit(package: Path = PACKAGE) -> str:
    """The checkout's commit, with `+changed` where files differ from it; `installed` outside a checkout.

    A package that is installed inside another project is not tracked there: that project's commit says nothing.
    """
    root = package.parent
    try:
        _git(root, "ls-files", "--error-unmatch", f"{package.name}/__init__.py")
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+changed" if _git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        return "installed"


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()


def versions() -> dict[str, str]:
    found = {"riszoo": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def device_name(device: torch.device) -> str:
    """The name of the accelerator, or the CPU's architecture and number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def image_hashes(ids: Iterable[str]) -> Ints:
    """Sorted 64-bit hashes of image ids, small enough to be saved in a checkpoint."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids)
    return np.unique(np.frombuffer(digests, dtype="<i8")).astype(np.int64)


def circumstances(device: torch.device) -> dict[str, Any]:
    return {"commit": commit(), "versions": versions(), "device": device_name(device)}
