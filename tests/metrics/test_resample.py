"""The resize of all protocols: equal to PyTorch's where it exists, through every geometry and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from riszoo.batch import Geometry
from riszoo.metrics.protocols import PROTOCOLS, Protocol, Resampling
from riszoo.metrics.resample import axes, foreground, resize, score, taps
from riszoo.metrics.window import foreground_window
from tests.support.fake_batches import disc

SIZES = [(24, 24), (61, 37), (13, 90), (1, 1)]


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_squeezed_frame_is_resized_as_by_interpolate(kernel, align_corners):
    torch.manual_seed(0)
    maps = torch.rand(len(SIZES), 17, 24)
    along = axes([Geometry.fit("squeeze", size, (68, 96)) for size in SIZES], SIZES)
    ours = resize(maps, along, Resampling(kernel, align_corners))
    for row, (height, width), source in zip(ours, SIZES, maps, strict=True):
        theirs = interpolate(source[None, None], (height, width), mode=kernel, align_corners=align_corners)[0, 0]
        torch.testing.assert_close(row[:height, :width], theirs, atol=1e-5, rtol=0)


def test_nearest_takes_the_cell_under_each_output_centre():
    maps = torch.arange(12.0).view(1, 3, 4)
    got = resize(maps, axes([Geometry.fit("squeeze", (6, 2), (30, 40))], [(6, 2)]), Resampling("nearest"))
    torch.testing.assert_close(got, interpolate(maps[None], (6, 2), mode="nearest-exact")[0])


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic"])
def test_the_weights_of_a_cell_sum_to_one(kernel):
    _, weights = taps(np.linspace(-2, 9, 57), kernel)
    np.testing.assert_allclose(weights.sum(0), np.ones(57), atol=1e-12)


@pytest.mark.parametrize("kind", ["squeeze", "letterbox", "pad"])
@pytest.mark.parametrize("size", [(311, 97), (83, 240), (61, 61), (640, 427)])
def test_a_mask_resized_to_the_frame_and_back_stays_the_same(kind, size):
    mask = torch.from_numpy(disc(size, (size[0] * 0.4, size[1] * 0.55), min(size) * 0.33))
    geometry = Geometry.fit(kind, size, (256, 256))
    top, left, bottom, right = geometry.valid
    logits = torch.full((1, 256, 256), -1.0)
    inside = interpolate(mask[None, None].float(), (bottom - top, right - left), mode="area")
    logits[0, top:bottom, left:right] = inside[0, 0] * 2 - 1
    back = foreground(logits, [geometry], [size], PROTOCOLS["original"])[0]
    assert (back & mask).sum() / (back | mask).sum() > 0.98


def test_a_letterboxed_image_is_squeezed_to_a_square_frame():
    geometry = Geometry.fit("letterbox", (40, 80), (64, 64))  # rows 16 to 48
    logits = torch.full((1, 64, 64), -1.0)
    logits[0, 16:32] = 1  # the upper half of the image
    mask = foreground(logits, [geometry], [(480, 480)], PROTOCOLS["lavt480"])[0]
    assert mask[:239].all()
    assert not mask[241:].any()


def _protocol(**changes) -> Protocol:
    return replace(PROTOCOLS["original"], **changes)


def test_the_threshold_is_exclusive_unless_the_protocol_includes_it():
    logits, geometry = torch.zeros(1, 4, 4), Geometry.fit("squeeze", (4, 4), (4, 4))
    assert not foreground(logits, [geometry], [(4, 4)], PROTOCOLS["original"]).any()
    assert foreground(logits, [geometry], [(4, 4)], PROTOCOLS["gsva"]).all()
    # rmi's 1e-9 counts a logit of exactly 1e-9 and not 0
    assert not foreground(logits, [geometry], [(4, 4)], PROTOCOLS["rmi"]).any()


@pytest.mark.parametrize(("name", "threshold"), [("mcn", 0.35), ("simrec", 0.35), ("cris035", 0.35), ("cgformer", 0.5)])
def test_a_probability_threshold_is_a_threshold_on_the_logit(name, threshold):
    edge = torch.logit(torch.tensor(threshold, dtype=torch.float64)).item()
    geometry = Geometry.fit("squeeze", (6, 6), (8, 8))
    for logit, expected in ((edge - 0.01, False), (edge + 0.01, True)):
        mask = foreground(torch.full((1, 4, 4), logit), [geometry], [(6, 6)], PROTOCOLS[name])
        assert mask[0, 2:4, 2:4].all().item() is expected  # away from the border, where CRIS reads zeros


def test_a_threshold_before_the_resize_enlarges_the_mask():
    logits = torch.full((1, 8, 8), -5.0)
    logits[0, 3:5, 3:5] = 1.0
    geometry = Geometry.fit("squeeze", (64, 64), (8, 8))
    early = foreground(logits, [geometry], [(64, 64)], _protocol(threshold_at="frame"))
    late = foreground(logits, [geometry], [(64, 64)], PROTOCOLS["original"])
    assert early.sum() == (16 + 2 * 4) ** 2  # each side grows by half an input cell
    assert late.sum() < 16**2


def test_the_borders_differ_at_the_edge_of_the_image():
    """Foreground in the padding leaks into the image unless the map is cropped first; zeros eat the frame's edge."""
    geometry = Geometry.fit("letterbox", (4, 8), (8, 8))  # rows 2 to 6
    logits = torch.full((1, 8, 8), -1.0)
    logits[0, :2] = 9.0
    leaks = foreground(logits, [geometry], [(8, 16)], _protocol())[0]
    cropped = foreground(logits, [geometry], [(8, 16)], _protocol(resampling=Resampling(border="image")))[0]
    assert leaks[0].all()
    assert not cropped.any()
    ones = torch.ones(1, 8, 8)
    shifted = Resampling(border="zero")
    along = axes([Geometry.fit("squeeze", (16, 16), (8, 8))], [(16, 16)])
    assert resize(ones, along, shifted)[0, 0, 8] == 0.75
    assert resize(ones, along, Resampling())[0, 0, 8] == 1


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_mask_does_not_depend_on_its_neighbours(name):
    """Bit-equal, also in half precision, beside larger and smaller images."""
    torch.manual_seed(1)
    sizes = [(33, 21), (50, 64), (33, 21), (7, 90)]
    geometries = [Geometry.fit("letterbox", size, (64, 64)) for size in sizes]
    logits = torch.randn(4, 16, 16).bfloat16()
    frames = [PROTOCOLS[name].ground_truth.frame or size for size in sizes]
    together = foreground(logits, geometries, frames, PROTOCOLS[name])
    for i, (height, width) in enumerate(frames):
        alone = foreground(logits[i : i + 1], geometries[i : i + 1], frames[i : i + 1], PROTOCOLS[name])[0]
        assert torch.equal(together[i, :height, :width], alone)
        assert together[i].sum() == alone.sum()  # nothing beyond the image


def _objects(kind: str) -> torch.Tensor:
    """(3, 16, 16) logits: objects, noise, no foreground, zeros, foreground in the padding only, or nan and inf."""
    torch.manual_seed(4)
    logits = torch.full((3, 16, 16), -2.0)
    if kind == "objects":
        logits[0, 6:9, 2:5], logits[1, 10:12, 9:15], logits[2, 4, 4] = 3.0, 0.4, 0.01
    elif kind == "noise":
        logits = torch.randn(3, 16, 16)
    elif kind == "zeros":
        logits[:, 9:12] = 0.0
    elif kind == "padding":
        logits[:, :2] = 5.0
    elif kind == "not finite":
        logits[0, 5, 5], logits[1, 9, 1], logits[2, 8, 12] = torch.nan, torch.inf, -torch.inf
        logits[:, 9:11, 6:8] = 1.0
    return logits


@pytest.mark.parametrize("kind", ["objects", "noise", "empty", "zeros", "padding", "not finite"])
@pytest.mark.parametrize("size", [(37, 90), (90, 37)])
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_the_window_contains_all_foreground_unchanged(name, size, kind):
    """Outside the window nothing is resized; inside it the mask is the same."""
    frame = PROTOCOLS[name].ground_truth.frame or size
    geometry = Geometry.fit("letterbox", size, (64, 64))
    logits = _objects(kind) if size[0] < size[1] else _objects(kind).mT.contiguous()
    whole = foreground(logits, [geometry] * 3, [frame] * 3, PROTOCOLS[name])
    scores = score(logits, PROTOCOLS[name]).numpy()
    window, (top, left) = foreground_window(scores, geometry, frame, PROTOCOLS[name])
    pasted = torch.zeros_like(whole)
    pasted[:, top : top + window.shape[1], left : left + window.shape[2]] = torch.from_numpy(window)
    assert torch.equal(pasted, whole)


def test_the_window_is_no_larger_than_it_must_be():
    """An object on cells 6 to 8 of 16 reaches half a cell further each way: rows 22 to 38 of 64.

    Columns start at a multiple of 8, because eight pixels are one octet of bits.
    """
    logits = torch.full((1, 16, 16), -2.0)
    logits[0, 6:9, 2:5] = 3.0
    geometry = Geometry.fit("squeeze", (64, 64), (64, 64))
    window, corner = foreground_window(logits.numpy(), geometry, (64, 64), PROTOCOLS["original"])
    assert corner == (22, 0)
    assert window.shape == (1, 12 + 4, 6 + 12 + 4)


def test_cached_taps_from_inference_mode_allow_gradients():
    """Tensors created in inference mode cannot be used in autograd, and taps are cached."""
    along = axes([Geometry.fit("squeeze", (31, 29), (16, 16))], [(31, 29)])
    with torch.inference_mode():
        resize(torch.zeros(1, 8, 8), along, Resampling())
    maps = torch.zeros(1, 8, 8, requires_grad=True)
    resize(maps, along, Resampling()).sum().backward()
    assert maps.grad.sum() == pytest.approx(31 * 29, rel=1e-5)
