"""The feature cache: what a frozen backbone returns for an image, on disk, one memory-mapped file an image.

The cache of a backbone is a folder named by everything that its features depend on beside the image. A file has the
backbone's maps and after them the image's views, which a model reads as well. Before a run starts, `fill_cache` encodes
every image that the run will use. A file is written under a temporary name and renamed, so it is complete or absent,
also when a process is killed or several write the same image.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Trainer
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader, Dataset

from riszoo.batch import Geometry
from riszoo.data.images import place_image, view_of
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.files import write_atomically

if TYPE_CHECKING:
    from riszoo.model import RISModule

FORMAT = 1
"""Raised when the way from an image's file to its features changes."""

CHANNELS_LAST = " channels last"
"""Follows the name of a map that is stored as (h, w, C)."""

FeatureType = Literal["float32", "bf16"]
Images = dict[str, tuple[Split, int]]  # version -> split and index of the image


@dataclass(frozen=True)
class FeatureCache:
    """The features of one backbone, by `Split.image_version`.

    `float32` stores maps and views as they are, `bf16` rounds them to half the bytes.
    """

    folder: Path
    kind: FeatureType

    def __contains__(self, version: str) -> bool:
        try:
            with safe_open(self._file(version), "pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def read(self, version: str) -> list[Tensor]:
        """The image's maps and views, each (C, h, w), memory-mapped."""
        try:
            with safe_open(self._file(version), "pt") as file:
                names = sorted(file.keys(), key=lambda name: int(name.removesuffix(CHANNELS_LAST)))
                maps = [(name, file.get_tensor(name)) for name in names]
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{self._file(version)} existed when the run began and cannot be read now ({error}): do not change "
                "images or --data.cache_dir during a run, and name a folder that every machine shares"
            ) from error
        return [one.movedim(-1, -3) if CHANNELS_LAST in name else one for name, one in maps]

    def write(self, version: str, maps: Sequence[Tensor]) -> None:
        stored = {}
        for level, one in enumerate(map(self.rounded, maps)):
            last = not one.is_contiguous()
            name = f"{level}{CHANNELS_LAST}" if last else str(level)
            stored[name] = (one.movedim(-3, -1) if last else one).cpu().contiguous()
        try:
            write_atomically(self._file(version), save(stored))
        except UserError as error:
            raise UserError(f"{error}; choose another --data.cache_dir") from error

    def rounded(self, one: Tensor) -> Tensor:
        return one.to(torch.bfloat16) if self.kind == "bf16" else one

    def _file(self, version: str) -> Path:
        name = hashlib.sha256(version.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:34]}.safetensors"


def default_folder() -> Path:
    """The folder of all caches where none is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "riszoo" / "features"


def stack_maps(maps: Sequence[Tensor]) -> Tensor:
    """(I, C, h, w), in the memory layout of the backbone's own output, so that what follows rounds alike."""
    if maps[0].is_contiguous():
        return torch.stack(list(maps))
    return torch.stack([one.movedim(-3, -1) for one in maps]).movedim(-1, -3)


# -- filling ----------------------------------------------------------------------------------------------------------


class _Frames(Dataset[tuple[str, Tensor, Tensor, list[Tensor]]]):
    """Images alone: version, pixels in the frame, valid box, views."""

    def __init__(self, images: Images, model: RISModule) -> None:
        self.images, self.frame, self.geometry = list(images.items()), model.size, model.geometry
        self.views = model.views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[str, Tensor, Tensor, list[Tensor]]:
        version, (split, image) = self.images[index]
        record = split[image]
        geometry = Geometry.fit(self.geometry, record.size, self.frame)
        pixels = record.load()
        views = [view_of(pixels, view) for view in self.views]
        return version, place_image(pixels, geometry), torch.tensor(geometry.valid), views


def fill_cache(
    trainer: Trainer, images: Images, kind: FeatureType, folder: str | None, batch_size: int, workers: int
) -> FeatureCache:
    """The cache of the trainer's model, with the features of all these images in it."""
    model: RISModule = trainer.lightning_module  # type: ignore[assignment]
    check_frozen(model)
    blank = _maps_of_blank(model, trainer)
    about = _description(model, blank, str(trainer.precision), kind)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
    cache = FeatureCache((Path(folder).expanduser() if folder else default_folder()) / key, kind)
    # the first process decides what is missing; the others must not look after it has begun to write
    missing, free = trainer.strategy.broadcast(_missing(cache, images, about) if trainer.is_global_zero else ([], 0))
    blank_views = [torch.empty(3, *view.size) for view in model.views]
    needed = len(missing) * sum(cache.rounded(one).nbytes for one in [*blank, *blank_views])
    if trainer.is_global_zero:
        print(_announcement(cache, len(images), len(missing), needed, free))
    if needed > free:
        raise UserError(
            f"--data.cache_features needs {_bytes(needed)} and {cache.folder} has {_bytes(free)} free: name "
            "another folder with --data.cache_dir, store half the bytes with bf16, or leave it out"
        )
    own = {version: images[version] for version in missing[trainer.global_rank :: trainer.world_size]}
    silent = not own or not trainer.is_global_zero or trainer.progress_bar_callback is None
    loader = DataLoader(_Frames(own, model), batch_size=batch_size, num_workers=workers)
    for versions, pixels, valid, views in track(loader, "encoding", console=Console(stderr=True), disable=silent):
        with torch.no_grad(), evaluation_mode(model), trainer.precision_plugin.forward_context():
            maps = model.backbone(pixels.to(model.device), valid.to(model.device)).maps
        for index, version in enumerate(versions):
            cache.write(version, [one[index] for one in [*maps, *views]])
    trainer.strategy.barrier("features")
    return cache


def _missing(cache: FeatureCache, images: Images, about: dict[str, Any]) -> tuple[list[str], int]:
    """Which images have no features yet, and how many bytes are free for them."""
    try:
        write_atomically(cache.folder / "about.json", json.dumps(about, indent=2) + "\n")
    except UserError as error:
        raise UserError(f"{error}; choose another --data.cache_dir") from error
    return [version for version in images if version not in cache], shutil.disk_usage(cache.folder).free


def _announcement(cache: FeatureCache, total: int, missing: int, needed: int, free: int) -> str:
    head = f"cache_features {cache.kind}: {total - missing:,} of {total:,} images are in {cache.folder}"
    if not missing:
        return head
    each = f"{_bytes(needed / missing)} an image, {_bytes(needed)} needed, {_bytes(free)} free"
    return f"{head}; encoding the other {missing:,} first: {each}"


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


# -- which backbones can be cached, and what their features depend on -------------------------------------------------


def check_frozen(model: RISModule) -> None:
    """Raises a UserError unless the encoder returns the same features in every step."""
    advice = f"set {model.vision.freeze_option}, or leave --data.cache_features out"
    for name, parameter in model.vision.named_parameters():
        if parameter.requires_grad:
            raise UserError(f"--data.cache_features needs a frozen encoder, and vision.{name} is trained: {advice}")
    for name, layer in model.vision.named_modules():
        if layer.training and _is_stochastic(layer):
            raise UserError(
                f"--data.cache_features needs an encoder in evaluation mode, and vision.{name} uses batch statistics "
                f"or dropout: {advice}"
            )


def _is_stochastic(layer: nn.Module) -> bool:
    return (
        isinstance(layer, _BatchNorm)
        or (isinstance(layer, _DropoutNd) and layer.p > 0)
        or (isinstance(layer, DropPath) and bool(layer.drop_prob))
    )


def _maps_of_blank(model: RISModule, trainer: Trainer) -> list[Tensor]:
    """The maps of a blank image, each (C, h, w). They require gradients if anything in the backbone trains."""
    blank = torch.zeros((1, 3, *model.size), dtype=torch.uint8, device=model.device)
    valid = torch.tensor([[0, 0, *model.size]], device=model.device)
    context = trainer.precision_plugin.forward_context()
    with torch.inference_mode(False), torch.enable_grad(), evaluation_mode(model), context:
        maps = model.backbone(blank, valid).maps
    if any(one.requires_grad for one in maps):
        raise UserError(
            f"--data.cache_features needs a frozen backbone, and a part of {type(model).__name__}.backbone is trained: "
            "freeze that part, or leave --data.cache_features out"
        )
    return [one[0] for one in maps]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards each module's own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _description(model: RISModule, blank: list[Tensor], precision: str, kind: str) -> dict[str, Any]:
    """Everything that features depend on beside the image."""
    options: dict[str, Any] = model.hparams.get("vision", {})
    digest = hashlib.sha256()  # of every weight, whichever file it came from
    for name, value in sorted(model.vision.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return {
        "format": FORMAT,
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "vision": {name: value for name, value in options.items() if name not in ("weights", "frozen")},
        "weights": digest.hexdigest(),
        "maps": [[*one.shape, str(one.dtype)] for one in blank],
        "views": [asdict(view) for view in model.views],
        "pixels": [one.flatten().tolist() for one in (model.pixel_mean, model.pixel_std, model.pixel_fill)],
        "size": list(model.size),
        "geometry": model.geometry,
        "precision": precision,
        "stored_as": kind,
    }
