"""Properties that hold for every input: geometry, run lengths, outlines, and metrics of a mask and its mirror image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from riszoo.batch import Geometry
from riszoo.data.masks import decode_rle
from riszoo.data.readers.validation import RecordError, outline, read_rle
from riszoo.data.scenes import ScenesSplit
from riszoo.metrics.counts import count

quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
sides = st.integers(1, 700)
masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@quick
@given(st.sampled_from(["squeeze", "letterbox", "pad"]), sides, sides, sides, sides)
def test_an_image_lies_inside_its_frame_and_maps_back(kind: str, h0: int, w0: int, h: int, w: int) -> None:
    geometry = Geometry.fit(kind, (h0, w0), (h, w))  # type: ignore[arg-type]
    top, left, bottom, right = geometry.valid
    assert 0 <= top < bottom <= h
    assert 0 <= left < right <= w
    for size, scale, offset, end in zip((h0, w0), geometry.scale, geometry.offset, (bottom, right), strict=True):
        assert size * scale + offset == pytest.approx(end), "the image's far corner is the corner of its box"


@quick
@given(masks)
def test_the_runs_of_a_mask_give_the_mask_back(mask: np.ndarray) -> None:
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = read_rle({"size": packed["size"], "counts": packed["counts"].decode()}, mask.shape)
    np.testing.assert_array_equal(decode_rle(runs, mask.shape), mask)
    np.testing.assert_array_equal(read_rle({"size": list(mask.shape), "counts": runs.tolist()}), runs)


@quick
@given(json_values, json_values)
def test_any_value_is_a_valid_run_length_mask_or_refused(size: object, counts: object) -> None:
    try:
        runs = read_rle({"size": size, "counts": counts})
    except RecordError:
        return
    assert int(runs.sum()) > 0


@quick
@given(json_values)
def test_any_value_is_a_valid_outline_or_refused(points: object) -> None:
    try:
        flat = outline(points, (20, 30))
    except RecordError:
        return
    assert np.isfinite(flat).all()
    assert len(flat) % 2 == 0


@quick
@given(arrays.arrays(np.bool_, (2, 3, 6, 9)))
def test_counts_ignore_mirroring_and_the_order_of_sentences(both: np.ndarray) -> None:
    predicted, true = torch.from_numpy(both[0]), torch.from_numpy(both[1])
    sizes = [(6, 9)] * 3
    counts = count(predicted, true, sizes, None)[:, :3]
    assert torch.equal(count(predicted.flip(0), true.flip(0), sizes, None)[:, :3].flip(0), counts)
    mirrored = count(predicted.flip(-1), true.flip(-1), sizes, None)[:, :3]
    assert torch.equal(mirrored, counts)


@quick
@given(st.integers(0, 999), st.sampled_from(["val", "testA", "testB", "unseen"]))
def test_a_sentence_of_a_scene_names_exactly_its_targets(image: int, split: str) -> None:
    record = ScenesSplit(split, size=64)[image]
    assert len(record.targets) == 3
    for target in record.targets:
        assert target.sentences[0].text == " ".join(target.sentences[0].text.split())
        assert target.no_target is False
