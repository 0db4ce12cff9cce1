"""COCO run lengths from a file that nobody vouches for.

The mask API trusts what it decodes and writes past its memory where the runs are too long, so they are checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from riszoo.data.masks import Mask
from riszoo.errors import UserError

_LONGEST = 40  # bits of a run; no image needs more


@dataclass(frozen=True)
class RunLengths:
    """Runs in turn of zeros and ones, down the columns, of a mask of `size` (h, w); text is COCO's compressed form."""

    size: tuple[int, int]
    counts: str | tuple[int, ...]

    @classmethod
    def read(cls, value: Any, where: str) -> RunLengths:
        """`where` names the place in the file for the error."""
        if not isinstance(value, dict) or not {"size", "counts"} <= set(value):
            raise UserError(f"{where}: 'segmentation' must be an RLE with 'size' and 'counts'")
        size, counts = value["size"], value["counts"]
        if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
            raise UserError(f"{where}: the RLE's size is {size!r}, not [height, width]")
        if isinstance(counts, list) and all(type(run) is int for run in counts):
            return cls((size[0], size[1]), tuple(counts))
        if not isinstance(counts, str) or not all(48 <= ord(letter) < 112 for letter in counts):
            raise UserError(f"{where}: the RLE's counts are neither COCO's compressed text nor a list of whole numbers")
        return cls((size[0], size[1]), counts)


def decode(runs: RunLengths, size: tuple[int, int]) -> Mask | None:
    """The mask, or None where the runs are not those of an image of this size."""
    lengths = _lengths(runs.counts) if isinstance(runs.counts, str) else list(runs.counts)
    if runs.size != size or lengths is None or min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
        return None
    values = np.arange(len(lengths)) % 2 == 1
    mask: Mask = np.ascontiguousarray(np.repeat(values, lengths).reshape(size[1], size[0]).T)
    return mask


def _lengths(text: str) -> list[int] | None:
    """Six bits a letter: five of the number, lowest first, and one that says it goes on; from the third number on,
    the difference to the one before the last. None where the text breaks off."""
    lengths: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        number |= (bits & 31) << shift
        shift += 5
        if shift > _LONGEST:
            return None
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return None if shift else lengths
