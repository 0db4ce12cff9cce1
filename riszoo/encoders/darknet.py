"""Weights as the Darknet framework files them, read into timm's `darknet53`.

A file is a header and then float32 numbers in the order of the network: for each convolution the BatchNorm's bias,
scale, running mean and running variance, and the kernel (out, in, h, w). `darknet53.conv.74` holds the 52
convolutions of the body; a detector's `yolov3.weights` holds them first and its neck and heads after.
Darknet fed its networks RGB in 0..1, with no mean and deviation taken off.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from riszoo.errors import UserError

SLOPE = 0.1  # of Darknet's LeakyReLU; timm's default is PyTorch's 0.01
CONVOLUTIONS = 52
SUFFIXES = (".weights", ".74")

Floats = NDArray[np.float32]


def is_darknet_file(path: Path) -> bool:
    return path.suffix in SUFFIXES


def read_floats(path: Path) -> Floats:
    """All numbers after the header, whose counter of images grew from 4 to 8 bytes in version 0.2."""
    content = path.read_bytes()
    if len(content) < 20:
        raise UserError(f"{path} is too short for a Darknet weights file; download it again")
    major, minor, _ = struct.unpack_from("<3i", content)
    header = 12 + (8 if major * 10 + minor >= 2 else 4)
    if (len(content) - header) % 4:
        raise UserError(f"{path} does not end on a whole number; it is cut or no Darknet weights file: get it again")
    return np.frombuffer(content, dtype="<f4", offset=header)


def body_tensors(model: nn.Module) -> Iterator[Tensor]:
    """The tensors of every convolution with its BatchNorm, in the order of the file."""
    units = [unit for unit in model.modules() if hasattr(unit, "conv") and hasattr(unit, "bn")]
    for unit in units:
        norm = unit.get_submodule("bn").state_dict(keep_vars=True)
        yield from (norm[name] for name in ("bias", "weight", "running_mean", "running_var"))
        yield unit.get_parameter("conv.weight")


def load_darknet(model: nn.Module, path: Path) -> None:
    """Copy a file's body into timm's darknet53, in place."""
    _check_network(model, path)
    floats = read_floats(path)
    tensors = list(body_tensors(model))
    needed = sum(tensor.numel() for tensor in tensors)
    if len(floats) < needed:
        raise UserError(f"{path} holds {len(floats):,} numbers, darknet53 needs {needed:,}; get the whole file")
    if len(floats) > needed:
        warnings.warn(
            f"{path} holds more than the body of darknet53 and looks like a detector's: weights trained on all of "
            "COCO have seen the test images of the RefCOCO series; say so beside any result",
            stacklevel=2,
        )
    taken = 0
    with torch.no_grad():
        for tensor in tensors:
            part = floats[taken : taken + tensor.numel()]
            tensor.copy_(torch.from_numpy(part.copy()).view_as(tensor))
            taken += tensor.numel()


def _check_network(model: nn.Module, path: Path) -> None:
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    if 5 * convolutions != len(list(body_tensors(model))) or convolutions != CONVOLUTIONS:
        raise UserError(f"{path} is a file of Darknet's; vision.name must be darknet53 to read it")
    slopes = {module.negative_slope for module in model.modules() if isinstance(module, nn.LeakyReLU)}
    if slopes != {SLOPE}:
        raise UserError(
            f"{path} was trained with LeakyReLU({SLOPE}), this network has {sorted(slopes)}; "
            f"give --model.vision.options.negative_slope {SLOPE}"
        )
