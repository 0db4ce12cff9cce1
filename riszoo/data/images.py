"""Images from files, as stored, in RGB; and their way into the network's frame."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from riszoo.batch import Geometry, View
from riszoo.data.masks import Size
from riszoo.data.readers.validation import PIXELS
from riszoo.data.record import Pixels
from riszoo.errors import UserError

Image.init()
KNOWN = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
FORMATS = tuple(name for name in KNOWN if name in Image.OPEN)
"""The formats that are read: Pillow's others include PostScript, for which it starts another program."""


class ImageError(UserError):
    """An image file that exists and cannot be read."""


def decode(path: Path, *, upright: bool = False) -> Pixels:
    """(H0, W0, 3), as stored, because masks belong to the stored pixels; `upright` applies the EXIF orientation.

    torchvision's libjpeg gives Pillow's pixels in two thirds of its time; other formats are left to Pillow.
    """
    try:
        blob = path.read_bytes()
        with _quiet(), Image.open(io.BytesIO(blob), formats=FORMATS) as image:
            _check_pixels(image)
            if upright and _orientation(image) != 1:
                return as_rgb(ImageOps.exif_transpose(image))
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                return _decode_jpeg(blob)
            return as_rgb(image)
    except Exception as error:  # a hostile file raises nearly anything
        raise _unreadable(path, error) from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 2 to 8; 1 where there is none or it is damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged tag raises nearly anything
        return 1
    return orientation if orientation in range(2, 9) else 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Pillow's warnings about tags and sizes; sizes are checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def as_rgb(image: Image.Image) -> Pixels:
    """Any image as (H0, W0, 3): transparency becomes white, 16-bit greys are scaled to 8 bits."""
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        image = Image.fromarray(_shallow(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _shallow(image: Image.Image) -> NDArray[np.uint8]:
    """Greys of 16 bits or more, or fractions, as 8 bits: Pillow itself would cut off what is above 255.

    The one that a PNG names as transparent is white.
    """
    levels = np.nan_to_num(np.asarray(image, np.float32))
    top = 65535.0 if image.mode.startswith("I;") else _range(float(levels.max(initial=0)))
    grey = (levels.clip(0, top) * (255 / top)).round().astype(np.uint8)
    grey[levels == image.info.get("transparency")] = 255
    return grey


def _range(greatest: float) -> float:
    """The scale that greys are filed on, by the greatest of them."""
    return next((top for top in (1.0, 255.0, 65535.0) if greatest <= top), greatest)


def _unreadable(path: Path, error: Exception) -> ImageError:
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"image {path} cannot be read: it is not an image of a known format; replace the file")
    reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    reason = re.sub(r"^\w+, \S+:\d+, ", "", reason)  # where in torchvision's sources
    return ImageError(f"image {path} cannot be read: {reason or type(error).__name__}; replace the file")


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than an image may have")


def _decode_jpeg(blob: bytes) -> Pixels:
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
    pixels: Pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).contiguous().numpy()
    return pixels


def resize(pixels: Pixels, size: Size) -> Pixels:
    """Bilinear with antialiasing: Pillow's values, in a third of its time."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = F.interpolate(image, size=tuple(size), mode="bilinear", antialias=True)[0]
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


def size_of(path: Path) -> Size:
    """Height and width, from the head of the file."""
    try:
        with _quiet(), Image.open(path, formats=FORMATS) as image:
            _check_pixels(image)
            return image.height, image.width
    except Exception as error:  # as above
        raise _unreadable(path, error) from error


def load(path: Path, size: Size, strict: bool) -> Pixels:
    """The image at its annotated size.

    An image of another size is scaled to the annotated one, where its outlines belong. One that cannot be read is
    black, so that every process still has the same batches. Both warn once in each process; `strict` makes them errors.
    """
    try:
        pixels = decode(path)
    except ImageError as error:
        if strict:
            raise
        warn_once(f"{error} (shown as black; --data.strict true makes this an error)")
        return np.zeros((*size, 3), np.uint8)
    if pixels.shape[:2] == size:
        return pixels
    message = f"image {path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, its annotation {size[1]} x {size[0]}"
    if strict:
        raise ImageError(f"{message}: replace the file, or leave --data.strict off to scale it")
    warn_once(f"{message}: it is scaled")
    return resize(pixels, size)


@cache
def warn_once(message: str) -> None:
    """Warn with a message that this process has not shown: `catch_warnings` makes Python forget what it has shown."""
    warnings.warn(message, stacklevel=3)


def view_of(pixels: Pixels, view: View) -> Tensor:
    """(H0, W0, 3) uint8 -> (3, h, w) float32, 0..255"""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    return F.interpolate(image, size=view.size, mode=view.kernel, antialias=view.antialias)[0]


def place_image(pixels: Pixels, geometry: Geometry) -> Tensor:
    """(H0, W0, 3) uint8 -> (3, H, W) uint8 in the frame; what is outside the image is left at zero."""
    top, left, bottom, right = geometry.valid
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    if image.shape[-2:] != geometry.inside:
        image = F.interpolate(image[None], size=geometry.inside, mode="bilinear", antialias=True)[0]
    if geometry.inside == geometry.frame:
        return image.contiguous()
    frame = torch.zeros((3, *geometry.frame), dtype=torch.uint8)
    frame[:, top:bottom, left:right] = image
    return frame
