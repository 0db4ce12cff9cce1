"""Losses with one value for each sentence, independent of the rest of the batch.

N sentences   H x W the network's frame   h x w a coarser grid over it
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from riszoo.batch import Batch, valid_cells


@dataclass
class Align:
    """Text-to-pixel alignment; off at weight 0. `start` is added to its logits."""

    weight: float = 0.0
    start: float = 0.0


def shrink_mask(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """The share of each cell that is inside the mask: (N, H, W) bool -> (N, h, w)."""
    dtype = torch.get_default_dtype() if not masks.is_floating_point() else masks.dtype
    return F.adaptive_avg_pool2d(masks.to(dtype)[:, None], grid)[:, 0]


def majority(shares: Tensor) -> Tensor:
    """1 where more than half of a cell is inside, else 0: (N, h, w); a tiny object keeps its fullest cell."""
    largest = shares.amax((-2, -1), keepdim=True)
    return ((shares > 0.5) | ((shares == largest) & (largest > 0))).to(shares.dtype)


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the cells of each sentence: (N, h, w) twice -> (N,)."""
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none").mean((-2, -1))


def weighted_cross_entropy(logits: Tensor, masks: Tensor, background: float, target: float) -> Tensor:
    """Two-class cross-entropy of the logits' difference, weighted mean over each sentence's pixels: (N,)."""
    weight = torch.where(masks, target, background).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none")
    return (weight * each).sum((-2, -1)) / weight.sum((-2, -1))


def focal(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each cell (Lin et al. 2017): (N, h, w) twice -> (N, h, w); `alpha` is the share of targets."""
    target = target.to(logits.dtype)
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    inside = logits.sigmoid()
    error = inside * (1 - target) + (1 - inside) * target
    return (alpha * target + (1 - alpha) * (1 - target)) * error**gamma * cross


def mean_within(values: Tensor, where: Tensor) -> Tensor:
    """Mean of the values over the cells where `where` is true: (N, h, w) twice -> (N,)."""
    return (values * where).sum((-2, -1)) / where.sum((-2, -1))


def dice(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - Dice of the probabilities, (N,); smoothed by some pixels, so that two empty masks have loss 0."""
    inside, target = logits.sigmoid(), target.to(logits.dtype)
    overlap = (inside * target).sum((-2, -1))
    return 1 - (2 * overlap + smooth) / (inside.sum((-2, -1)) + target.sum((-2, -1)) + smooth)


def spatial_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of a softmax over the cells against a uniform one over the target: (N,); 0 without target."""
    target = target.to(logits.dtype)
    spread = target / target.sum((-2, -1), keepdim=True).clamp_min(1)
    return -(spread * logits.flatten(1).log_softmax(-1).view_as(logits)).sum((-2, -1))


def alignment(logits: Tensor, batch: Batch, size: tuple[int, int]) -> Tensor:
    """Cross-entropy against the cells that are mostly the target's, without the padding: (N, h, w) -> (N,)."""
    assert batch.masks is not None
    grid = (logits.shape[-2], logits.shape[-1])
    target = majority(shrink_mask(batch.masks, grid)).to(logits.dtype)
    inside = valid_cells(batch.valid, size, grid)[batch.image_index]
    return mean_within(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), inside)
