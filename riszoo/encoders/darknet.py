"""Weight files of the Darknet framework, loaded into timm's `darknet53`.

A file is a header followed by float32 numbers in the order of the network: for each convolution the BatchNorm's bias,
scale, running mean and running variance, and the kernel (out, in, h, w). `darknet53.conv.74` contains the 52
convolutions of the body; a detector's `yolov3.weights` contains its neck and heads after them.
Darknet's networks take RGB in 0..1, without mean and deviation.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
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
    """All numbers after the header, whose image counter has 8 bytes since version 0.2 and 4 before."""
    content = path.read_bytes()
    if len(content) < 20:
        raise UserError(f"{path} is too short for a Darknet weight file; download it again")
    major, minor, _ = struct.unpack_from("<3i", content)
    header = 12 + (8 if major * 10 + minor >= 2 else 4)
    if (len(content) - header) % 4:
        raise UserError(f"{path} is truncated or not a Darknet weight file: it ends inside a number; download it again")
    return np.frombuffer(content, dtype="<f4", offset=header)


def body_tensors(model: nn.Module) -> Iterator[Tensor]:
    """The tensors of every convolution with its BatchNorm, in the order of the file."""
    units = [unit for unit in model.modules() if hasattr(unit, "conv") and hasattr(unit, "bn")]
    for unit in units:
        norm = unit.get_submodule("bn").state_dict(keep_vars=True)
        yield from (norm[name] for name in ("bias", "weight", "running_mean", "running_var"))
        yield unit.get_parameter("conv.weight")


def load_darknet(model: nn.Module, path: Path) -> None:
    """Load the body of a file into timm's darknet53."""
    check_network(model, path)
    floats = read_floats(path)
    tensors = list(body_tensors(model))
    needed = sum(tensor.numel() for tensor in tensors)
    if len(floats) < needed:
        raise UserError(f"{path} contains {len(floats):,} numbers, darknet53 needs {needed:,}; download it again")
    if len(floats) > needed:
        warnings.warn(
            f"{path} contains more than the body of darknet53, so it is probably a detector's: weights trained on all "
            "of COCO have seen the test images of RefCOCO, RefCOCO+ and RefCOCOg; state this beside any result",
            stacklevel=2,
        )
    parts = torch.split(torch.from_numpy(floats[:needed].copy()), [tensor.numel() for tensor in tensors])
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def check_pixels(weights: str, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise UserError where a file of Darknet would get other pixels than it was trained with."""
    if is_darknet_file(Path(weights)) and (any(mean) or any(value != 255 for value in std)):
        raise UserError(
            f"{weights} was trained on RGB in 0..1: give --model.mean '[0, 0, 0]' --model.std '[255, 255, 255]'"
        )


def check_network(model: nn.Module, path: Path) -> None:
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    if 5 * convolutions != len(list(body_tensors(model))) or convolutions != CONVOLUTIONS:
        raise UserError(f"{path} is a Darknet file; vision.name must be darknet53 to load it")
    slopes = {module.negative_slope for module in model.modules() if isinstance(module, nn.LeakyReLU)}
    if slopes != {SLOPE}:
        raise UserError(
            f"{path} was trained with LeakyReLU({SLOPE}), this network has {sorted(slopes)}; "
            f"give --model.vision.options.negative_slope {SLOPE}"
        )
