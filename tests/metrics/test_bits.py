"""The thirteen integers of a pair of masks, counted on bits: those that PyTorch counts pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from riszoo.metrics.bits import count_bits, erode_bits
from riszoo.metrics.counts import count, erode


def blocks(rng: np.random.Generator, size: tuple[int, int], share: float) -> np.ndarray:
    """Two masks of random blocks of nine pixels a side, which fill a share of the image."""
    grid = rng.random((2, size[0] // 9 + 1, size[1] // 9 + 1)) < share
    return grid.repeat(9, 1).repeat(9, 2)[:, : size[0], : size[1]]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (40, 63), (63, 64), (40, 65), (7, 300), (128, 128), (301, 9)])
def test_counts_on_bits_equal_counts_of_pixels(size: tuple[int, int], share: float) -> None:
    """In frames that fill words exactly and others, of windows at any corner, with bands wider than a word."""
    rng = np.random.default_rng(8)
    for band in (0.0, 0.02, 0.4):
        predicted, true = blocks(rng, size, share), blocks(rng, size, share)
        (top, bottom), (left, right) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in size)
        window = predicted[:, top:bottom, left:right]
        whole = np.zeros_like(predicted)
        whole[:, top:bottom, left:right] = window
        expected = count(torch.from_numpy(whole), torch.from_numpy(true), [size] * 2, band)
        assert np.array_equal(count_bits(window, true, band, (int(top), int(left))), expected)


def test_the_order_of_memory_changes_no_count() -> None:
    """Masks that the COCO API draws lie in memory column by column."""
    rng = np.random.default_rng(9)
    predicted, true = blocks(rng, (70, 90), 0.3), blocks(rng, (70, 90), 0.3)
    columns = [np.ascontiguousarray(masks.swapaxes(1, 2)).swapaxes(1, 2) for masks in (predicted, true)]
    assert np.array_equal(count_bits(columns[0], columns[1], 0.02), count_bits(predicted, true, 0.02))


def test_a_window_has_the_counts_of_the_whole_frame() -> None:
    """The first pair's window holds all of its 12 cells; the second's prediction is empty and stays at no place."""
    predicted, true = np.zeros((2, 2, 10, 12), np.bool_)
    predicted[0, 3:6, 4:8] = True
    true[:, 5:9, 2:5] = True
    whole = count_bits(predicted, true, 0.02)
    window = count_bits(predicted[:, 2:7, 3:10], true, 0.02, corner=(2, 3))
    assert np.array_equal(window, whole)
    assert whole[0].tolist() == [1, 12, 12, 1, 19, 3, 4, 6, 8, 5, 2, 9, 5]  # rims of 10 cells each that share one
    assert whole[1].tolist() == [0, 0, 12, 0, 10, 0, 0, 0, 0, 5, 2, 9, 5]


@pytest.mark.parametrize("width", [1, 2, 31, 32, 33, 70])
def test_erosion_of_bits_equals_erosion_of_pixels(width: int) -> None:
    """Of rows of three words, by less and by more than a word."""
    masks = np.random.default_rng(2).random((2, 150, 192)) > 0.0002
    octets = np.packbits(masks, axis=-1, bitorder="little")
    eroded = erode_bits(octets.view(np.uint64), width).view(np.uint8)
    assert np.array_equal(np.unpackbits(eroded, axis=-1, bitorder="little"), erode(torch.from_numpy(masks), width))
