"""Segmentations as filed, and the truths drawn from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (h, w)


@dataclass(frozen=True)
class Truth:
    """How a truth is drawn: a protocol names one, the data module draws it.

    overlap   where parts of one annotation overlap: `any` counts it inside, `once` (LAVT's reading) outside
    engine    `coco` the COCO mask API, `pillow` with outline (PhraseCut), `scaled` polygons scaled to the frame first
    frame     None: the picture's own size; otherwise the mask is shrunk to this (h, w), or drawn there for `scaled`
    resample  how a drawn mask is brought to `frame`
    """

    overlap: Literal["any", "once"] = "any"
    engine: Literal["coco", "pillow", "scaled"] = "coco"
    frame: tuple[int, int] | None = None
    resample: Literal["nearest"] = "nearest"

    @property
    def key(self) -> str:
        """The name under which a batch carries this truth."""
        frame = "original" if self.frame is None else f"{self.frame[0]}x{self.frame[1]}"
        return f"{self.overlap}-{self.engine}-{frame}-{self.resample}"


class Segmentation(ABC):
    """What an annotation file says of one target, over a picture of `size` (h, w)."""

    size: tuple[int, int]

    @abstractmethod
    def draw(self, truth: Truth) -> Mask:
        """The mask at the picture's own size, or in the truth's frame."""


@dataclass(frozen=True)
class Bitmap(Segmentation):
    """A mask that is filed, or rendered, pixel by pixel."""

    mask: Mask

    @property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        return self.mask.shape[0], self.mask.shape[1]

    def draw(self, truth: Truth) -> Mask:
        return self.mask if truth.frame is None else shrink(self.mask, truth.frame)


def shrink(mask: Mask, frame: tuple[int, int]) -> Mask:
    """Nearest neighbour in the half-pixel-centred convention: the cell under each new centre."""
    rows = ((np.arange(frame[0]) + 0.5) * mask.shape[0] / frame[0]).astype(np.int64)
    cols = ((np.arange(frame[1]) + 0.5) * mask.shape[1] / frame[1]).astype(np.int64)
    shrunk: Mask = mask[rows[:, None], cols[None, :]]
    return shrunk
