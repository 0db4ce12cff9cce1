"""Properties that hold for every input: geometry, run lengths, outlines, protocols and scenes."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from riszoo.batch import Geometry
from riszoo.data.generated.logic import bits
from riszoo.data.generated.rng import RandomStream, WeightedChoices
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.masks import decode_rle, shrink
from riszoo.data.readers.validation import RecordError, outline, read_rle
from riszoo.data.scenes import PLANS, ScenesSplit
from riszoo.data.scenes.render import ShapeRendering
from riszoo.data.scenes.sentences import GENERAL, SentenceSampler
from riszoo.metrics.counts import count
from riszoo.metrics.protocols import PROTOCOLS
from riszoo.metrics.resample import foreground
from riszoo.metrics.sentence_table import SentenceTable
from riszoo.metrics.suite import RISMetrics
from tests.support.fake_batches import Blobs
from tests.support.scene_reader import read

quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
sides = st.integers(1, 700)
masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab1 \x00é", max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text("ab1", max_size=3), children, max_size=3),
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
@given(masks, st.sampled_from(["squeeze", "letterbox", "pad"]), st.sampled_from([1, 3]), st.integers(0, 9))
def test_a_mask_enlarged_into_the_frame_maps_back_to_itself(mask: np.ndarray, kind: str, times: int, more: int) -> None:
    h, w = mask.shape
    frame = (times * h, times * w) if kind == "squeeze" else (times * h + more, times * w)
    geometry = Geometry.fit(kind, (h, w), frame)  # type: ignore[arg-type]
    top, left, bottom, right = geometry.valid
    logits = torch.full((1, *frame), -1.0)
    logits[0, top:bottom, left:right] = torch.from_numpy(np.where(shrink(mask, geometry.inside), 1.0, -1.0))
    (back,) = foreground(logits, [geometry], [(h, w)], PROTOCOLS["original"])
    assert torch.equal(back, torch.from_numpy(mask))


# -- protocols --------------------------------------------------------------------------------------------------------


@cache
def small_split() -> Blobs:
    """Six sentences about three images of unlike sizes, one of them without a target."""
    return Blobs(images=3, each=2, grid=12, head=True)


def evaluated(processes: list[list[list[int]]], grouped: bool) -> np.ndarray:
    """The table of every protocol, where each process evaluates its batches of sentences."""
    blocks = []
    for batches in processes:
        metrics = RISMetrics(list(PROTOCOLS.values()))
        for batch in batches:
            metrics.update(*small_split().batch(batch, metrics.protocols, grouped))
        blocks.append(metrics.sentence_table().values)
    return SentenceTable.sort(list(PROTOCOLS.values()), np.concatenate(blocks)).values


@cache
def evaluated_at_once() -> np.ndarray:
    return evaluated([[[*range(len(small_split().samples))]]], grouped=True)


@settings(quick, max_examples=5)
@given(st.permutations(range(6)), st.sets(st.integers(1, 5)), st.integers(1, 3), st.booleans())
def test_every_protocol_ignores_order_batches_and_processes(
    order: list[int], cuts: set[int], world: int, grouped: bool
) -> None:
    edges = [0, *sorted(cuts), len(order)]
    batches = [order[start:end] for start, end in pairwise(edges)]
    table = evaluated([batches[rank::world] for rank in range(world)], grouped)
    np.testing.assert_array_equal(table, evaluated_at_once())


# -- scenes -----------------------------------------------------------------------------------------------------------

images_of_scenes = st.tuples(st.integers(0, 99), st.sampled_from(sorted(PLANS)), st.integers(0, 999))


@quick
@given(images_of_scenes)
def test_a_sentence_of_a_scene_names_exactly_its_targets(image: tuple[int, str, int]) -> None:
    """Compared with a reader of English that shares nothing with the grammar, and with the pixels of each thing."""
    seed, name, index = image
    split = ScenesSplit(name, size=64, seed=seed)
    scene, sentences = split.scene(index)
    owner = ShapeRendering(scene, (64, 64)).owner
    record = split[index]
    assert len(record.targets) == len(sentences) == PLANS[name].sentences
    for target in record.targets:
        named = read(target.sentences[0].text, scene)
        assert target.no_target is (not named)
        expected = np.isin(owner, [thing + 1 for thing in named])
        np.testing.assert_array_equal(target.segmentation.draw(GroundTruth()), expected)


@settings(quick, max_examples=10)
@given(images_of_scenes)
def test_no_text_has_two_meanings_in_one_image(image: tuple[int, str, int]) -> None:
    """A hundred sentences about one scene: forms that are worded alike name the same things."""
    seed, name, index = image
    scene, _ = ScenesSplit(name, size=64, seed=seed).scene(index)
    meanings: dict[str, set[int]] = {}
    for draw in range(25):
        sampler = SentenceSampler(scene, RandomStream(f"meanings {draw}"))
        for sentence in sampler.sample(4, WeightedChoices(GENERAL)) or []:
            meanings.setdefault(sentence.text, set()).add(sentence.things)
            assert set(bits(sentence.things)) == read(sentence.text, scene)
    assert all(len(things) == 1 for things in meanings.values())
