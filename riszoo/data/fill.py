"""Filling the feature cache: before a run asks its first question, every image it will ask about is encoded once.

The cache of a backbone is a folder named by all that its features depend on beside the image: its weights, its
options, the frame, the pixels' normalisation, the precision it runs in and the kind of number kept.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from rich.console import Console
from rich.progress import track
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader, Dataset

from riszoo.batch import Geometry, GeometryKind
from riszoo.data.dataset import place_image
from riszoo.data.features import FeatureCache, default_folder
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.files import write_atomically

if TYPE_CHECKING:
    from riszoo.data.datamodule import RISData
    from riszoo.model import RISModule

FORMAT = 1
"""Raised when the way from an image's file to its features changes."""

Place = tuple[Split, int]


class Frames(Dataset[tuple[str, Tensor, Tensor]]):
    """Images alone: what each is known by, its pixels in the frame, its box."""

    def __init__(self, places: dict[str, Place], frame: tuple[int, int], geometry: GeometryKind) -> None:
        self.places, self.frame, self.geometry = list(places.items()), frame, geometry

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> tuple[str, Tensor, Tensor]:
        version, (split, image) = self.places[place]
        record = split[image]
        geometry = Geometry.fit(self.geometry, record.size, self.frame)
        return version, place_image(record.load(), geometry), torch.tensor(geometry.valid)


def filled(data: RISData, trainer: Trainer, images: list[Place]) -> FeatureCache:
    """The cache of the trainer's model, with the features of all these images in it."""
    model: RISModule = trainer.lightning_module  # type: ignore[assignment]
    refuse_training(model)
    blank = maps_of_blank(model, trainer)
    assert data.cache_features is not None
    about = identity(model, blank, str(trainer.precision), data.cache_features)
    cache = FeatureCache(_folder(data.cache_dir, about), data.cache_features)
    places = {split.image_version(image): (split, image) for split, image in images}
    # one process looks: what it finds missing is shared out, whatever others have written by then
    missing, free = trainer.strategy.broadcast(_missing(cache, places, about) if trainer.is_global_zero else ([], 0))
    needed = len(missing) * sum(cache.rounded(one).nbytes for one in blank)
    if trainer.is_global_zero:
        print(_announcement(cache, len(places), len(missing), needed, free))
    if needed > free:
        raise UserError(
            f"--data.cache_features needs {_bytes(needed)} and {cache.folder} has {_bytes(free)} free: name "
            "another folder with --data.cache_dir, keep half the bytes with bf16, or leave it out"
        )
    own = {version: places[version] for version in missing[trainer.global_rank :: trainer.world_size]}
    _encode(data, trainer, model, own, cache)
    trainer.strategy.barrier("features")
    return cache


def _missing(cache: FeatureCache, places: dict[str, Place], about: dict[str, Any]) -> tuple[list[str], int]:
    """Which images have no features yet, and how many bytes are free for them."""
    try:
        write_atomically(cache.folder / "about.json", json.dumps(about, indent=2) + "\n")
    except UserError as error:
        raise UserError(f"{error}; choose another --data.cache_dir") from error
    return [version for version in places if not cache.has(version)], shutil.disk_usage(cache.folder).free


def _announcement(cache: FeatureCache, wanted: int, missing: int, needed: int, free: int) -> str:
    head = f"cache_features {cache.kind}: {wanted - missing:,} of {wanted:,} images are in {cache.folder}"
    if not missing:
        return head
    each = f"{_bytes(needed / missing)} an image, {_bytes(needed)} needed, {_bytes(free)} free"
    return f"{head}; encoding the other {missing:,} first: {each}"


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


def _encode(data: RISData, trainer: Trainer, model: RISModule, own: dict[str, Place], cache: FeatureCache) -> None:
    """Each image's maps into its file, as the backbone gives them in evaluation."""
    loader = DataLoader(Frames(own, data.frame, data.geometry), batch_size=data.eval_images, num_workers=data.workers)
    silent = not own or not trainer.is_global_zero or trainer.progress_bar_callback is None
    for versions, images, valid in track(loader, "encoding", console=Console(stderr=True), disable=silent):
        with torch.no_grad(), at_rest(model), trainer.precision_plugin.forward_context():
            maps = model.backbone(images.to(model.device), valid.to(model.device)).maps
        for place, version in enumerate(versions):
            cache.write(version, [one[place] for one in maps])


# -- which backbones may be kept, and what their features depend on ---------------------------------------------------


def refuse_training(model: RISModule) -> None:
    """Features of a backbone that moves while a run lasts would be another backbone's."""
    way = f"set {model.vision.freeze_option}, or leave --data.cache_features out"
    for name, parameter in model.vision.named_parameters():
        if parameter.requires_grad:
            raise UserError(
                f"--data.cache_features keeps what an encoder makes of an image, and this one trains, so that what "
                f"was kept would be wrong after one step (vision.{name} is trained): {way}"
            )
    for name, layer in model.vision.named_modules():
        if layer.training and _restless(layer):
            raise UserError(
                f"--data.cache_features keeps what an encoder makes of an image, and vision.{name} makes something "
                "else of it in training (batch statistics or dropout): set --model.vision.frozen true"
            )


def vision_options(model: RISModule) -> dict[str, Any]:
    """What the encoder was asked to be; nothing where the model was made with the default one."""
    options: dict[str, Any] = model.hparams.get("vision", {})
    return options


def _restless(layer: nn.Module) -> bool:
    return (
        isinstance(layer, _BatchNorm)
        or (isinstance(layer, _DropoutNd) and layer.p > 0)
        or (isinstance(layer, DropPath) and bool(layer.drop_prob))
    )


def maps_of_blank(model: RISModule, trainer: Trainer) -> list[Tensor]:
    """A blank frame's maps, each (C, h, w): their form, and whether anything that made them trains."""
    blank = torch.zeros((1, 3, *model.size), dtype=torch.uint8, device=model.device)
    valid = torch.tensor([[0, 0, *model.size]], device=model.device)
    with torch.inference_mode(False), torch.enable_grad(), at_rest(model), trainer.precision_plugin.forward_context():
        maps = model.backbone(blank, valid).maps
    if any(one.requires_grad for one in maps):
        raise UserError(
            f"--data.cache_features keeps what {type(model).__name__}.backbone makes of an image, and a part of it "
            "trains: freeze that part, or leave --data.cache_features out"
        )
    return [one[0] for one in maps]


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards each part as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def identity(model: RISModule, blank: list[Tensor], precision: str, kind: str) -> dict[str, Any]:
    """All that features depend on beside the image."""
    vision = {name: value for name, value in vision_options(model).items() if name not in ("weights", "frozen")}
    return {
        "format": FORMAT,
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "vision": vision,
        "weights": state_hash(model.vision),
        "maps": [[*one.shape, str(one.dtype)] for one in blank],
        "pixels": [one.flatten().tolist() for one in (model.pixel_mean, model.pixel_std, model.pixel_fill)],
        "size": list(model.size),
        "geometry": model.geometry,
        "precision": precision,
        "kept_as": kind,
    }


def state_hash(module: nn.Module) -> str:
    """SHA-256 of every weight, whichever file it came from."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _folder(named: str | None, about: dict[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
    return (Path(named).expanduser() if named else default_folder()) / key
