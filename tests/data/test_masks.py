"""Every way to draw a ground truth, against counts by hand and against the engines themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.masks import NoTarget, Polygons, Rles, Union, Unlabelled, decode_rle, nearest, shrink
from riszoo.errors import UserError
from tests.support import data_trees as trees

SIZE = (trees.H, trees.W)


def polygons(*parts, size=SIZE) -> Polygons:
    return Polygons(size, tuple(np.array(part, np.float64) for part in parts))


def blob(random: np.random.Generator, size) -> list[float]:
    angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 30)))
    middle, radius = random.uniform(0.2, 0.8, 2) * size[::-1], random.uniform(0.1, 0.4) * min(size)
    return (middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).ravel().round(2).tolist()


def test_random_outlines_equal_the_coco_api():
    random = np.random.default_rng(1)
    for _ in range(40):
        size = tuple(random.integers(20, 300, 2).tolist())
        parts = [blob(random, size) for _ in range(random.integers(1, 5))]
        layers = coco.decode(coco.frPyObjects(parts, *size)).sum(axis=2)
        assert np.array_equal(polygons(*parts, size=size).draw(GroundTruth()), layers > 0)
        assert np.array_equal(polygons(*parts, size=size).draw(GroundTruth(overlap="once")), layers == 1)


def test_random_outlines_equal_phrasecuts_rasteriser():
    random = np.random.default_rng(2)
    for _ in range(20):
        size = tuple(random.integers(20, 100, 2).tolist())
        parts = [blob(random, size) for _ in range(3)]
        layers = np.zeros(size)
        for part in parts:
            canvas = Image.new("L", size[::-1])
            points = [(int(x), int(y)) for x, y in zip(part[::2], part[1::2], strict=True)]
            ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
            layers += np.asarray(canvas)
        assert np.array_equal(polygons(*parts, size=size).draw(GroundTruth(engine="pillow")), layers > 0)
        assert np.array_equal(polygons(*parts, size=size).draw(GroundTruth("once", "pillow")), layers == 1)


def test_scaled_outlines_are_drawn_in_the_frame():
    scaled = GroundTruth(engine="scaled", frame=(40, 15))
    assert polygons(trees.BOX).draw(scaled).sum() == 20 * 5  # twice as high, half as wide
    # a mask shrunk afterwards differs at the borders of an odd box
    box = polygons([3, 3, 10, 3, 10, 13, 3, 13])
    assert box.draw(scaled).shape == (40, 15)
    assert not np.array_equal(box.draw(scaled), box.draw(GroundTruth(frame=(40, 15))))
    line = polygons([1, 1, 25, 15])
    assert not line.draw(scaled).any()  # fewer than three points are left out
    assert not polygons().draw(GroundTruth()).any()
    assert polygons(trees.BOX).draw(GroundTruth(engine="scaled")).sum() == 100  # no frame: nothing to scale to


def test_a_line_is_something_to_pillow_only():
    line = polygons([1, 1, 25, 1])
    assert line.draw(GroundTruth(engine="pillow")).sum() == 25
    assert line.draw(GroundTruth()).sum() == 0


def test_a_frame_shrinks_what_was_drawn():
    for ground_truth in (
        GroundTruth(frame=(10, 10)),
        GroundTruth("once", frame=(10, 10)),
        GroundTruth(engine="pillow", frame=(10, 10)),
    ):
        full = polygons(trees.BOX, trees.RIGHT).draw(GroundTruth(ground_truth.overlap, ground_truth.engine))
        expected = shrink(np.ascontiguousarray(full), (10, 10))
        assert np.array_equal(polygons(trees.BOX, trees.RIGHT).draw(ground_truth), expected)


@given(st.integers(1, 700), st.integers(1, 700))
@example(640, 480)
@example(427, 480)
def test_one_axis_is_resized_as_by_pillow(length: int, new: int):
    cells = Image.fromarray(np.arange(length, dtype=np.int32)[None]).resize((new, 1), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(cells)[0], nearest(length, new))


def test_rounding_decides_where_a_centre_is_on_a_border():
    exact = ((np.arange(480) + 0.5) * 640 / 480).astype(np.int64)
    assert np.count_nonzero(nearest(640, 480) != exact) == 99


@pytest.mark.parametrize("frame", [(7, 11), (3, 4), (14, 22), (1, 1), (5, 30), (480, 480)])
@pytest.mark.parametrize("size", [(7, 11), (426, 640)])
def test_masks_are_resized_as_by_pillow_in_either_memory_order(size: tuple[int, int], frame: tuple[int, int]):
    mask = np.random.default_rng(0).random(size) < 0.5
    expected = np.asarray(Image.fromarray(mask).resize(frame[::-1], Image.Resampling.NEAREST))
    for order in ("C", "F"):
        assert np.array_equal(shrink(np.asarray(mask, order=order), frame), expected)


def test_runs_overlap_by_the_rule():
    first = np.array([0, 40, 560], np.uint32)  # two columns
    second = np.array([20, 40, 540], np.uint32)
    both = Rles(SIZE, (first, second))
    assert both.draw(GroundTruth()).sum() == 60
    assert both.draw(GroundTruth("once")).sum() == 40
    assert both.draw(GroundTruth())[:, :3].all()


def test_several_annotations_unite_whatever_the_rule():
    pair = Union(SIZE, (polygons(trees.BOX), polygons(trees.RIGHT)))
    assert pair.draw(GroundTruth()).sum() == pair.draw(GroundTruth("once")).sum() == 160
    assert pair.draw(GroundTruth(engine="scaled", frame=(40, 15))).shape == (40, 15)
    assert not Union(SIZE, ()).draw(GroundTruth(frame=(4, 4))).any()


def test_nothing_and_not_known():
    assert NoTarget(SIZE).draw(GroundTruth()).shape == SIZE
    assert not NoTarget(SIZE).draw(GroundTruth(frame=(4, 5))).any()
    with pytest.raises(UserError, match="'a 7'"):
        Unlabelled(SIZE, "a 7").draw(GroundTruth())


def test_drawn_masks_are_writable_booleans():
    import torch

    for shape in (polygons(trees.BOX), polygons(trees.BOX, trees.RIGHT), Rles(SIZE, (np.array([0, 600], np.uint32),))):
        for ground_truth in (
            GroundTruth(),
            GroundTruth("once"),
            GroundTruth(engine="pillow"),
            GroundTruth(frame=(8, 8)),
            GroundTruth("any", "scaled", (8, 8)),
        ):
            mask = shape.draw(ground_truth)
            assert mask.dtype == np.bool_
            assert torch.from_numpy(mask).dtype == torch.bool
            assert mask.flags.writeable


@pytest.mark.parametrize("runs", [[], [599], [601], [0, 600, 1], [2**32 - 1, 601]])
def test_runs_that_do_not_add_up_to_the_image_are_refused(runs):
    with pytest.raises(ValueError, match="do not add up"):
        decode_rle(np.array(runs, np.uint32), SIZE)
