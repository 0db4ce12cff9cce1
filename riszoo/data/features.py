"""What a frozen backbone makes of images, kept on disk: one memory-mapped file an image.

A file is written under a passing name and renamed, so it is whole or not there, whoever is killed and however many
processes write the same image. A file cut short in any other way does not open, and counts as not there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from riszoo.errors import UserError
from riszoo.files import write_atomically

LAST = " channels last"
"""Follows the name of a map that lies in memory as (h, w, C)."""

Kind = Literal["float32", "bf16"]


def default_folder() -> Path:
    """Where features are kept when no folder is named: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "riszoo" / "features"


@dataclass(frozen=True)
class FeatureCache:
    """The features of one backbone. Images are known by `Split.image_version`.

    `float32` keeps maps as the backbone gave them, `bf16` rounds them to half the bytes.
    """

    folder: Path
    kind: Kind

    def has(self, version: str) -> bool:
        try:
            with safe_open(self._file(version), "pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def read(self, version: str) -> list[Tensor]:
        """The image's maps, each (C, h, w); nothing is copied until it is used."""
        try:
            with safe_open(self._file(version), "pt") as file:
                names = sorted(file.keys(), key=lambda name: int(name.removesuffix(LAST)))
                return [
                    channels_first(file.get_tensor(name)) if LAST in name else file.get_tensor(name) for name in names
                ]
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{self._file(version)} was there when the run began and cannot be read now ({error}): keep images "
                "and --data.cache_dir as they are while it lasts, in a folder that every machine shares"
            ) from error

    def write(self, version: str, maps: list[Tensor]) -> None:
        kept = {}
        for level, one in enumerate(map(self.rounded, maps)):
            last = not one.is_contiguous()
            kept[f"{level}{LAST * last}"] = (channels_last(one) if last else one).cpu().contiguous()
        try:
            write_atomically(self._file(version), save(kept))
        except UserError as error:
            raise UserError(f"{error}; choose another --data.cache_dir") from error

    def rounded(self, one: Tensor) -> Tensor:
        return one.to(torch.bfloat16) if self.kind == "bf16" else one

    def _file(self, version: str) -> Path:
        name = hashlib.sha256(version.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:34]}.safetensors"


def channels_last(one: Tensor) -> Tensor:
    """(..., C, h, w) -> (..., h, w, C)."""
    return one.movedim(-3, -1)


def channels_first(one: Tensor) -> Tensor:
    return one.movedim(-1, -3)


def together(maps: Sequence[Tensor]) -> Tensor:
    """One map of several images, (I, C, h, w), as the backbone lays it in memory: what follows rounds alike."""
    if maps[0].is_contiguous():
        return torch.stack(list(maps))
    return channels_first(torch.stack([channels_last(one) for one in maps]))
