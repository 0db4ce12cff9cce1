"""Segmentations as filed, and the ground truths drawn from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from riszoo.data.ground_truth import GroundTruth
from riszoo.errors import UserError

Mask = NDArray[np.bool_]  # (h, w)
Points = NDArray[np.float64]  # (2k,): x0, y0, x1, y1, ...
Runs = NDArray[np.uint32]  # lengths of runs down the columns, background first
Size = tuple[int, int]  # h, w


class Segmentation(ABC):
    """The annotation of one target as filed, over an image of `size` (h, w)."""

    size: Size

    @abstractmethod
    def draw(self, ground_truth: GroundTruth) -> Mask:
        """The mask at the image's own size, or in the ground truth's frame."""


@dataclass(frozen=True)
class Bitmap(Segmentation):
    """A mask filed or rendered pixel by pixel."""

    mask: Mask

    @property
    def size(self) -> Size:  # type: ignore[override]
        return self.mask.shape[0], self.mask.shape[1]

    def draw(self, ground_truth: GroundTruth) -> Mask:
        return self.mask if ground_truth.frame is None else shrink(self.mask, ground_truth.frame)


@dataclass(frozen=True)
class Polygons(Segmentation):
    """The outlines of one annotation, each a part of it; validated when they are read."""

    size: Size
    parts: tuple[Points, ...]

    def draw(self, ground_truth: GroundTruth) -> Mask:
        if ground_truth.engine == "scaled" and ground_truth.frame is not None:
            return self._scaled(ground_truth.frame, ground_truth.overlap)
        if ground_truth.engine == "pillow":
            mask = _rasterise_pillow(self.parts, ground_truth.overlap, self.size)
        else:
            mask = _rasterise_coco(self.parts, ground_truth.overlap, self.size)
        return mask if ground_truth.frame is None else shrink(mask, ground_truth.frame)

    def _scaled(self, frame: Size, overlap: str) -> Mask:
        """Scaled first, then drawn; parts of fewer than three points are left out, as ReLA does."""
        ratio = np.array([frame[1] / self.size[1], frame[0] / self.size[0]])
        parts = tuple((part.reshape(-1, 2) * ratio).ravel() for part in self.parts if len(part) >= 6)
        return _rasterise_coco(parts, overlap, frame)


@dataclass(frozen=True)
class Rles(Segmentation):
    """The run lengths of one annotation, each a part of it that covers the whole image."""

    size: Size
    parts: tuple[Runs, ...]

    def draw(self, ground_truth: GroundTruth) -> Mask:
        mask = _combine([decode_rle(runs, self.size) for runs in self.parts], ground_truth.overlap, self.size)
        return mask if ground_truth.frame is None else shrink(mask, ground_truth.frame)


@dataclass(frozen=True)
class Union(Segmentation):
    """Several annotations of one target. The overlap rule is about the parts of one annotation; these always unite."""

    size: Size
    members: tuple[Segmentation, ...]

    def draw(self, ground_truth: GroundTruth) -> Mask:
        return _combine([member.draw(ground_truth) for member in self.members], "any", ground_truth.frame or self.size)


@dataclass(frozen=True)
class NoTarget(Segmentation):
    """The sentences refer to no object in the image: an empty mask."""

    size: Size

    def draw(self, ground_truth: GroundTruth) -> Mask:
        return np.zeros(ground_truth.frame or self.size, dtype=np.bool_)


@dataclass(frozen=True)
class Unlabelled(Segmentation):
    """No mask is filed: enough to predict, not to train or to evaluate."""

    size: Size
    target_id: str

    def draw(self, ground_truth: GroundTruth) -> Mask:
        raise UserError(
            f"no mask is filed for '{self.target_id}': it can be predicted, but not used for training or evaluation"
        )


def shrink(mask: Mask, frame: Size) -> Mask:
    """The mask resized as by Pillow's NEAREST, which the official evaluators use."""
    rows, cols = (nearest(length, new) for length, new in zip(mask.shape, frame, strict=True))
    if mask.flags.f_contiguous and not mask.flags.c_contiguous:  # walk along memory: columns lie together
        across: Mask = np.ascontiguousarray(mask.T.take(cols, 0).T)
        return across.take(rows, 0)
    if len(mask) > frame[0]:  # columns are taken one by one, so from the fewer rows
        return mask.take(rows, 0).take(cols, 1)
    return mask.take(cols, 1).take(rows, 0)


@lru_cache(maxsize=4096)
def nearest(length: int, new: int) -> NDArray[np.int64]:
    """(new,): the cell under each new centre. Read only.

    Pillow adds up the step in float64. The rounding decides which cell is taken where a centre is on a border.
    """
    step = length / new
    return np.cumsum([step / 2, *[step] * (new - 1)]).astype(np.int64)


def _rasterise_coco(parts: tuple[Points, ...], overlap: str, size: Size) -> Mask:
    """By the COCO mask API. Its Python wrapper takes four numbers for a box, so its inner function is called."""
    from pycocotools import _mask as coco

    if not parts:
        return np.zeros(size, dtype=np.bool_)
    outlines = coco.frPoly(list(parts), *size)
    if overlap == "any":
        drawn = coco.decode([coco.merge(outlines, 0)])[:, :, 0]  # (h, w), columns together
    else:
        drawn = (coco.decode(outlines).sum(axis=2) == 1).view(np.uint8)
    mask: Mask = drawn.view(np.bool_)
    return mask


def _rasterise_pillow(parts: tuple[Points, ...], overlap: str, size: Size) -> Mask:
    """PhraseCut's way: whole-numbered points, filled and outlined by Pillow; a single point draws nothing."""
    from PIL import Image, ImageDraw

    drawn = []
    canvas = Image.new("L", (size[1], size[0]), 0)
    for part in (part for part in parts if len(part) >= 4):
        ImageDraw.Draw(canvas).polygon(part.astype(np.int64).tolist(), outline=1, fill=1)
        if overlap == "once":
            drawn.append(np.array(canvas, dtype=np.bool_))
            canvas = Image.new("L", (size[1], size[0]), 0)
    return _combine(drawn or [np.array(canvas, dtype=np.bool_)], overlap, size)


def decode_rle(runs: Runs, size: Size) -> Mask:
    """The mask of run lengths. Drawn by numpy: the COCO mask API takes 30 times as long and trusts its input."""
    if int(runs.sum(dtype=np.uint64)) != size[0] * size[1]:
        raise ValueError(f"the runs of an RLE do not add up to the {size[0]} x {size[1]} pixels of its image")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size[1], size[0]).T


def _combine(masks: list[Mask], overlap: str, size: Size) -> Mask:
    if len(masks) == 1:
        return masks[0]
    if not masks:
        return np.zeros(size, dtype=np.bool_)
    if overlap == "any":
        return np.asarray(np.logical_or.reduce(masks), dtype=np.bool_)
    combined: Mask = np.sum(masks, axis=0, dtype=np.int64) == 1
    return combined
