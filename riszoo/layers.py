"""What more than one model is built of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RARE = -3.0
"""Logit that maps begin at: a cell in twenty is target, and the bias alone takes thousands of steps to learn it."""


def sine(length: int, width: int, like: Tensor) -> Tensor:
    """(length, width) sines and cosines of the place, as in the original Transformer."""
    place = torch.arange(length, device=like.device, dtype=like.dtype)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=like.dtype) * (-math.log(1e4) / width))
    return torch.cat([(place * rate).sin(), (place * rate).cos()], 1)[:, :width]


def sine_2d(h: int, w: int, width: int, like: Tensor) -> Tensor:
    """(h w, width): half the channels tell the row, half the column."""
    rows, cols = sine(h, width // 2, like), sine(w, width - width // 2, like)
    return torch.cat([rows[:, None].expand(h, w, -1), cols[None].expand(h, w, -1)], -1).flatten(0, 1)
