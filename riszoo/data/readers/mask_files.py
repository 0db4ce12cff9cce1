"""Masks that lie in files of their own."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from riszoo.data.masks import Mask, Size
from riszoo.errors import UserError

MATRIX, COMPRESSED = 14, 15  # kinds of MATLAB 5 elements
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CAP = 1 << 28  # bytes one matrix may unfold to


def read_mask(path: Path, size: Size) -> Mask:
    """The mask of a `.mat` file or of an image; it must be of the size of the image it is about."""
    try:
        mask = _matlab_mask(path) if path.suffix == ".mat" else _image_mask(path, size)
    except (OSError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise UserError(f"mask {path} cannot be read: {error}; replace the file") from error
    if mask.shape != size:
        raise UserError(f"mask {path}: {_other_size(mask.shape, size)}")
    return mask


def _other_size(found: tuple[int, ...], size: Size) -> str:
    return f"it is {found[1]} x {found[0]} pixels, its image {size[1]} x {size[0]}: file it at the image's own size"


def _image_mask(path: Path, size: Size) -> Mask:
    with Image.open(path) as image:
        if (image.height, image.width) != size:  # told before anything is unfolded
            raise ValueError(_other_size((image.height, image.width), size))
        pixels: NDArray[Any] = np.asarray(image)  # an indexed image gives its indices: 0 is the ground
    if pixels.ndim == 3:
        colours = pixels[..., :3] if pixels.shape[2] in (3, 4) else pixels[..., :1]
        return np.asarray(colours.any(axis=2), dtype=np.bool_)
    return pixels != 0 if pixels.dtype != np.bool_ else pixels.copy()


def _matlab_mask(path: Path) -> Mask:
    return np.asarray(matlab_matrix(path.read_bytes(), "segimg_t") == 0, dtype=np.bool_)


def matlab_matrix(blob: bytes, name: str) -> NDArray[np.generic]:
    """The real matrix of that name in a MATLAB 5 file."""
    if len(blob) < 128 or blob[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB 5 file")
    order = "<" if blob[126:128] == b"IM" else ">"
    for kind, content in _elements(blob[128:], order):
        if kind == COMPRESSED:
            kind, content = next(_elements(_unfold(content), order), (0, b""))
        if kind == MATRIX:
            found, matrix = _matrix(content, order)
            if found == name:
                return matrix
    raise ValueError(f"no matrix '{name}' in it")


def _unfold(content: bytes) -> bytes:
    unfolding = zlib.decompressobj()
    blob = unfolding.decompress(content, CAP)
    if unfolding.unconsumed_tail:
        raise ValueError(f"a matrix unfolds to more than {CAP} bytes")
    return blob


def _elements(blob: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of each element; up to four bytes of content may lie in the tag itself."""
    place = 0
    while place + 8 <= len(blob):
        (tag, length) = struct.unpack_from(f"{order}II", blob, place)
        if tag >> 16:
            tag, length, start, place = tag & 0xFFFF, tag >> 16, place + 4, place + 8
        else:
            start = place + 8
            place = start + length + (-length % 8 if tag != COMPRESSED else 0)
        if start + length > len(blob):
            raise ValueError("it is cut short")
        yield tag, blob[start : start + length]


def _matrix(content: bytes, order: str) -> tuple[str, NDArray[np.generic]]:
    flags, dims, name, real, *_ = [*_elements(content, order), (0, b""), (0, b""), (0, b""), (0, b"")]
    if flags[0] != 6 or real[0] not in NUMBERS:
        return "", np.zeros(0)
    shape = np.frombuffer(dims[1], f"{order}i4")
    values = np.frombuffer(real[1], order + NUMBERS[real[0]])
    return name[1].decode("latin-1"), values.reshape(shape, order="F")
