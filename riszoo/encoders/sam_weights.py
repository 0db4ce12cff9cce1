"""Segment Anything's official weight files: finding them, and loading them into an encoder of another size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from riszoo.encoders.adapters import added_names
from riszoo.encoders.base import VisionConfig
from riszoo.encoders.weights import first_line, read_state
from riszoo.errors import UserError

PREFIX = "image_encoder."
OFFICIAL_FILES = {
    "sam_vit_b": "sam_vit_b_01ec64.pth",
    "sam_vit_l": "sam_vit_l_0b3195.pth",
    "sam_vit_h": "sam_vit_h_4b8939.pth",
}
OFFICIAL_URL = "https://dl.fbaipublicfiles.com/segment_anything"


def find_weights(vision: VisionConfig) -> Path:
    """The file given, or for `pretrained` the official one in torch's cache; never downloads."""
    if vision.weights != "pretrained":
        path = Path(vision.weights).expanduser()
        if not path.is_file():
            raise UserError(f"no SAM weights at {path}; give the path of an official .pth file")
        return path
    if vision.name not in OFFICIAL_FILES:
        raise UserError(f"{vision.name} has no pretrained weights; set vision.weights to none or to a file")
    path = Path(torch.hub.get_dir()) / "checkpoints" / OFFICIAL_FILES[vision.name]
    if not path.is_file():
        raise UserError(f"no SAM weights at {path}; download {OFFICIAL_URL}/{path.name} to there, or give its path")
    return path


def load_official(encoder: nn.Module, path: Path) -> None:
    """Load the image encoder's part of a file. Position tables are resized; all other shapes must be equal."""
    own = encoder.state_dict()
    try:
        state = {name: resized(name, value, own) for name, value in read_official(path).items()}
    except RuntimeError as error:
        raise UserError(f"{path} does not fit this SAM encoder: {first_line(error)}") from error
    missing = own.keys() - added_names(encoder) - state.keys()
    wrong = {name for name, value in state.items() if name not in own or value.shape != own[name].shape}
    if odd := sorted(missing | wrong):
        raise UserError(
            f"{path} does not fit this SAM encoder ({odd[0]:.80} is {shape(state, odd[0])} in the file and "
            f"{shape(own, odd[0])} in the encoder); choose the name and options of the encoder it was saved from"
        )
    encoder.load_state_dict(state, strict=False)


def read_official(path: Path, prefix: str = PREFIX) -> dict[str, Tensor]:
    """The tensors of an official file whose names start with `prefix`, under their full names."""
    state = {name: value for name, value in read_state(path).items() if name.startswith(prefix)}
    if not state:
        raise UserError(f"{path} contains no {prefix}* weights; give an official SAM .pth file")
    return state


def resized(name: str, value: Tensor, own: dict[str, Tensor]) -> Tensor:
    """A position table resized to the encoder's; any other tensor unchanged."""
    if name not in own or value.ndim != own[name].ndim:
        return value
    if name.endswith(".pos_embed"):
        return resize_absolute(value, (own[name].shape[1], own[name].shape[2]))
    if name.endswith((".rel_pos_h", ".rel_pos_w")):
        return resize_relative(value, len(own[name]))
    return value


def resize_absolute(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """(1, h0, w0, C) -> (1, h, w, C), resized as an image."""
    if table.shape[1:3] == grid:
        return table
    image = F.interpolate(table.permute(0, 3, 1, 2), size=grid, mode="bicubic", antialias=True)
    return image.permute(0, 2, 3, 1)


def resize_relative(table: Tensor, length: int) -> Tensor:
    """(distances, d) -> (length, d), linear along the distances, as in segment_anything."""
    if len(table) == length:
        return table
    return F.interpolate(table.T[None], size=length, mode="linear")[0].T


def shape(state: dict[str, Tensor], name: str) -> str:
    return " x ".join(map(str, state[name].shape)) if name in state else "absent"
