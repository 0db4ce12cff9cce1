"""Masks in files of their own: PNG and other images, and ReferIt's MATLAB matrices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.images import FORMATS
from riszoo.data.masks import Bitmap, Mask, Segmentation, Size
from riszoo.data.readers.matlab import read_matrix
from riszoo.errors import UserError

MATRIX = "segimg_t"
HEADERS = 1 << 12  # bytes of a MATLAB matrix beside its values


@dataclass(frozen=True)
class MaskFile(Segmentation):
    """A mask in its own file: in an image non-zero is inside, in a `.mat` file zero is inside."""

    size: Size
    path: Path

    def draw(self, ground_truth: GroundTruth) -> Mask:
        return Bitmap(read_mask(self.path, self.size)).draw(ground_truth)


def read_mask(path: Path, size: Size) -> Mask:
    """The mask of a `.mat` file or of an image; it must have the size of its image."""
    try:
        return _matlab_mask(path, size) if path.suffix == ".mat" else _image_mask(path, size)
    except UserError:
        raise
    except Exception as error:  # a damaged or hostile file raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"mask {path} cannot be read: {reason}; replace the file") from error


def _check_size(path: Path, found: tuple[int, ...], size: Size) -> None:
    """Called before anything is decompressed."""
    if found != size:
        shape = " x ".join(map(str, reversed(found)))
        raise UserError(
            f"mask {path} is {shape} pixels, its image {size[1]} x {size[0]}: save the mask at the image's own size"
        )


def _image_mask(path: Path, size: Size) -> Mask:
    with Image.open(path, formats=FORMATS) as image:
        _check_size(path, (image.height, image.width), size)
        if image.format in ("JPEG", "MPO"):
            raise UserError(f"mask {path} is a JPEG file, whose noise around an outline is not 0: save it as PNG")
        if image.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
            return _visible(np.asarray(image.convert("RGBA")))
        pixels: NDArray[Any] = np.asarray(image)  # an indexed image gives its indices: 0 is background
    if pixels.ndim == 3:
        return np.asarray(pixels.any(axis=2), dtype=np.bool_)
    return pixels != 0 if pixels.dtype != np.bool_ else pixels.copy()


def _visible(pixels: NDArray[Any]) -> Mask:
    """Of (h, w, 4): what is not transparent and not black; where everything has one colour, what is not transparent."""
    colours, visible = pixels[..., :3], pixels[..., 3] > 0
    one_colour = (colours == colours[0, 0]).all() or not colours[visible].any()
    return np.asarray(visible if one_colour and not visible.all() else visible & colours.any(axis=2), dtype=np.bool_)


def _matlab_mask(path: Path, size: Size) -> Mask:
    matrix = read_matrix(path.read_bytes(), MATRIX, limit=8 * size[0] * size[1] + HEADERS)
    _check_size(path, matrix.shape, size)
    return np.asarray(matrix == 0, dtype=np.bool_)
