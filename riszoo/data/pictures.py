"""Pictures from files: the stored pixels, as RGB, whatever the file calls itself."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from riszoo.data.masks import Size
from riszoo.data.safe import PIXELS
from riszoo.errors import UserError

if TYPE_CHECKING:
    from riszoo.data.base import Pixels


class PictureError(UserError):
    """A picture that is there and cannot be read."""


def decode(path: Path) -> Pixels:
    """(H0, W0, 3): masks belong to the stored pixels, so a rotation tag is not applied.

    libjpeg by way of torchvision gives Pillow's pixels in two thirds of its time; whatever it refuses goes to Pillow.
    """
    try:
        blob = path.read_bytes()
        with Image.open(io.BytesIO(blob)) as picture:
            _possible(picture)
            if picture.format == "JPEG" and picture.mode in ("RGB", "L"):
                return _decode_jpeg(blob)
            return np.array(picture.convert("RGB"))
    except (OSError, RuntimeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"picture {path} cannot be read: {error}; replace the file") from error


def _possible(picture: Image.Image) -> None:
    if picture.width * picture.height > PIXELS:
        raise ValueError(f"{picture.width} x {picture.height} pixels are more than a picture may have")


def _decode_jpeg(blob: bytes) -> Pixels:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
    pixels: Pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).contiguous().numpy()
    return pixels


def resize(pixels: Pixels, size: Size) -> Pixels:
    """Bilinear with antialiasing: Pillow's values, in a third of its time."""
    import torch
    import torch.nn.functional as F

    if pixels.shape[:2] == tuple(size):
        return pixels
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = F.interpolate(image, size=tuple(size), mode="bilinear", antialias=True)[0]
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


def size_of(path: Path) -> Size:
    """Height and width, from the head of the file."""
    try:
        with Image.open(path) as picture:
            _possible(picture)
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"picture {path} cannot be read: {error}; replace the file") from error


def load(path: Path, size: Size, strict: bool) -> Pixels:
    """The picture at its annotated size.

    A picture of another size is scaled to the annotated one, where its outlines belong. One that cannot be read is
    black, so that every process still asks the same questions. Both warn once; `strict` makes them errors.
    """
    try:
        pixels = decode(path)
    except PictureError as error:
        if strict:
            raise
        warnings.warn(f"{error} (shown as black; --data.strict true makes this an error)", stacklevel=2)
        return np.zeros((*size, 3), np.uint8)
    if pixels.shape[:2] == size:
        return pixels
    message = f"picture {path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, its annotation {size[1]} x {size[0]}"
    if strict:
        raise PictureError(f"{message}: replace the file, or leave --data.strict off to scale it")
    warnings.warn(f"{message}: it is scaled", stacklevel=2)
    return resize(pixels, size)
