"""The images and sentences that `Predictor.segment` accepts, in one form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from riszoo.data.images import as_rgb, decode
from riszoo.data.record import Pixels
from riszoo.errors import UserError

ImageLike = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor
"""A file, a PIL image, a uint8 array (H, W) or (H, W, 3 or 4), or a tensor (1, 3 or 4, H, W), uint8 or from 0 to 1."""
Sentences = str | Sequence[str] | Sequence[Sequence[str]]
"""One sentence or several for every image, or a list of them for each image."""


def pixels_of(image: ImageLike) -> Pixels:
    """(H0, W0, 3) uint8 from any image, upright by its EXIF orientation."""
    if isinstance(image, str | Path):
        return decode(_file(Path(image)), upright=True)
    if isinstance(image, Tensor):
        image = _channels_last(image)
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise UserError(
            f"an object of type {type(image).__name__} is not an image: give a path, a PIL image, an array or a tensor"
        )
    image = ImageOps.exif_transpose(image)
    if 0 in image.size:
        raise UserError(f"an image of {image.width} x {image.height} pixels is empty")
    return as_rgb(image)


def _file(path: Path) -> Path:
    """The file itself, or the one in a home folder that a `~` names; raises UserError where there is none."""
    try:
        found = path if path.is_file() else path.expanduser()
        if found.is_file():
            return found
    except (OSError, RuntimeError):  # a name that is too long, or a home folder of nobody
        pass
    raise UserError(f"image {path} is not a file: give the path of an image file")


def _channels_last(image: Tensor) -> np.ndarray[Any, Any]:
    """(C, H, W) as (H, W, C) uint8; fractions from 0 to 1 become 0 to 255."""
    image = image.detach().cpu()
    if image.is_floating_point() and image.numel():
        low, high = image.min().item(), image.max().item()
        if not 0 <= low <= high <= 1:
            raise UserError(f"a tensor with values from {low:.3g} to {high:.3g} is not an image: scale it to 0..1")
        image = (image.float() * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise UserError(
            f"a tensor of shape {tuple(image.shape)} and type {image.dtype} is not an image: "
            "give (1, 3 or 4, H, W), uint8 or from 0 to 1; several images as a list"
        )
    array: np.ndarray[Any, Any] = image.permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        raise UserError(
            f"an array of shape {array.shape} and type {array.dtype} is not an image: "
            "give uint8 of (H, W), (H, W, 3) or (H, W, 4)"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def sentence_lists(sentences: Sentences, images: int) -> list[list[str]]:
    """The sentences of each image."""
    single = isinstance(sentences, str) or not isinstance(sentences, Iterable)
    given: list[Any] = [sentences] if single else list(sentences)
    if given and all(isinstance(each, list | tuple) for each in given):
        if len(given) != images:
            raise UserError(f"{len(given)} lists of sentences do not fit {images} images: give one for each image")
        lists = [list(each) for each in given]
    else:
        lists = [given] * images
    for texts in lists:
        _check(texts)
    return lists


def _check(texts: list[Any]) -> None:
    if not texts:
        raise UserError("no sentence is given: give one or several texts")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{text!r:.60} is not a sentence: give one text or a list of texts")
