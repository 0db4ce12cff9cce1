"""The counts of `counts.py` on a CPU: masks as bits, so that one word stands for 64 pixels of a row.

Letters: n pairs of masks of one size, M0 x M1 pixels; m0 x m1 a window of them; V words a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from riszoo.metrics.counts import band_width
from riszoo.metrics.resample import Size
from riszoo.metrics.sentence_table import COUNTS, Ints

Masks = NDArray[np.bool_]
Words = NDArray[np.uint64]

WORD = 64


def count_bits(predicted: Masks, true: Masks, band: float, corner: Size = (0, 0)) -> Ints:
    """(n, m0, m1) and (n, M0, M1) masks -> (n, 13) in the order of `sentence_table.COUNTS`.

    The prediction may be a window of the frame with its first pixel at `corner`, and is False beyond it.
    """
    return count_words(pack(predicted, true, corner), (true.shape[1], true.shape[2]), band)


def count_words(pair: Words, size: Size, band: float) -> Ints:
    """(2, n, M0, V) of predictions and ground truths -> (n, 13), as `count_bits`; `size` is M0, M1."""
    counts = np.zeros((len(COUNTS), pair.shape[1]), np.int64)
    counts[0], counts[1:3] = _pixels(pair[0] & pair[1]), _pixels(pair)
    sides = counts[5:].reshape(2, 4, -1)  # of both masks: top, left, bottom, right
    sides[:, 0], sides[:, 2] = _ends(np.bitwise_or.reduce(pair, axis=-1) != 0)
    sides[:, 1], sides[:, 3] = _ends(_columns(pair))
    if band:
        counts[3:5] = band_counts(_around(pair, sides), band_width(size, band))
    return counts.T


def pack(predicted: Masks, true: Masks, corner: Size = (0, 0)) -> Words:
    """(2, n, M0, V): bit i of word j is the pixel in column 64 j + i, False beyond a mask."""
    count, height, width = true.shape
    words = np.zeros((2, count, height, -(-width // WORD)), np.uint64)
    for plane, masks, (top, left) in zip(words.view(np.uint8), (predicted, true), (corner, (0, 0)), strict=True):
        first, before = divmod(left, 8)
        octets = np.packbits(np.ascontiguousarray(_shifted(masks, before)), axis=-1, bitorder="little")
        plane[:, top : top + masks.shape[1], first : first + octets.shape[-1]] = octets
    return words


def _shifted(masks: Masks, columns: int) -> Masks:
    """The masks with as many empty columns before the first."""
    if not columns:
        return masks
    shifted = np.zeros((*masks.shape[:2], columns + masks.shape[2]), np.bool_)
    shifted[..., columns:] = masks
    return shifted


def _pixels(words: Words) -> Ints:
    """(..., M0, V) -> (...): the pixels of each mask."""
    pixels: Ints = np.bitwise_count(words).sum((-2, -1), dtype=np.int64)
    return pixels


def _columns(words: Words) -> Masks:
    """(..., 64 V): whether a column has a pixel."""
    octets = np.bitwise_or.reduce(words, axis=-2).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little").view(np.bool_)


def _ends(lines: Masks) -> tuple[Ints, Ints]:
    """(..., length) -> the first index that is True and the one after the last; 0 and 0 if none is."""
    first, last = lines.argmax(-1), lines.shape[-1] - lines[..., ::-1].argmax(-1)
    return first, np.where(lines.any(-1), last, 0)


def _around(words: Words, sides: Ints) -> Words:
    """The words of the box around all masks, given the sides of each; outside of it there are no bands."""
    top, left, bottom, right = sides.swapaxes(0, 1).reshape(4, -1)
    filled = bottom > 0
    if not filled.any():
        return words[..., :0, :0]
    rows = slice(top[filled].min(), bottom.max())
    return words[..., rows, left[filled].min() // WORD : -(-right.max() // WORD)]


def band_counts(pair: Words, width: int) -> Ints:
    """(2, n, M0, V) -> (2, n): intersection and union of both masks' boundary bands (as in boundary IoU)."""
    bands = pair & ~erode_bits(pair, width)
    return _pixels(np.array([bands[0] & bands[1], bands[0] | bands[1]]))


def erode_bits(words: Words, width: int) -> Words:
    """The pixels whose square of 2 width + 1 pixels lies inside the mask; beyond the words is background.

    The AND over a window is that over two windows half as long, so the length doubles with every step.
    """
    (height, row_words), window = words.shape[-2:], 2 * width + 1
    if min(height, WORD * row_words) < window:
        return np.zeros_like(words)
    reach = words
    for step in _steps(window):
        reach = reach[..., :-step, :] & reach[..., step:, :]
    for step in _steps(window):
        reach = reach & _moved(reach, step)
    eroded = np.zeros_like(words)
    eroded[..., width : height - width, :] = _moved(reach, -width)
    return eroded


def _steps(window: int) -> list[int]:
    """How far a window of one pixel is extended, step by step, at most doubled each time."""
    steps, reached = [], 1
    while reached < window:
        steps.append(min(reached, window - reached))
        reached += steps[-1]
    return steps


def _moved(words: Words, columns: int) -> Words:
    """Each pixel's value is that of the pixel so many columns to its right (negative: left); False enters."""
    whole, bits = divmod(columns, WORD)
    beyond, length = abs(whole) + 1, words.shape[-1]
    padded = np.zeros((*words.shape[:-1], length + 2 * beyond), np.uint64)
    padded[..., beyond : beyond + length] = words
    start = beyond + whole
    low, high = padded[..., start : start + length], padded[..., start + 1 : start + 1 + length]
    moved: Words = low >> np.uint64(bits) | high << np.uint64(WORD - bits)
    return moved
