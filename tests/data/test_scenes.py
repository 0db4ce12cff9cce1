"""The embedded set: every sentence names exactly its targets, every machine makes the same images."""

from __future__ import annotations

import pickle
import random
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from riszoo.data.generated.guessing import guesses
from riszoo.data.generated.logic import Facts, Kind, Placed, Ranked, Related, Without, bits, kind, names, subject
from riszoo.data.generated.rng import RandomStream, WeightedChoices
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.scenes import PLANS, ScenesSplit, vocabulary
from riszoo.data.scenes.layout import COLOURS, HELD_OUT, SEEN, SIZES, TEXTURES, Ground, Scene, Thing
from riszoo.data.scenes.render import ShapeRendering
from riszoo.data.scenes.sentences import SINGLE, SPATIAL
from riszoo.data.scenes.shapes import AREA, FAMILIES, SHAPES
from riszoo.errors import UserError
from tests.support.scene_oracles import blind
from tests.support.scene_reader import head_words, read

GOLDEN = {
    "val": "2ff0a7dd2e042c70591c2eef7c165c7bf8baac25a49263f9df60bc1482d36660",
    "general": "4d8399f730f128419d59784660ab711ca00d2a165982e8ae07da4c7730a52d52",
}
"""A change of images or sentences changes these: raise VERSION with them, and run every row of the tables again."""

IMAGES = 250


@cache
def scenes(name: str, count: int = IMAGES) -> list:
    split = ScenesSplit(name)
    return [split.scene(image) for image in range(count)]


def shaken(scene: Scene, rng: random.Random) -> Scene:
    """Everything a little elsewhere: more than a pixel at 96."""
    moved = [
        replace(thing, x=thing.x + rng.uniform(-0.014, 0.014), y=thing.y + rng.uniform(-0.014, 0.014))
        for thing in scene.things
    ]
    return replace(scene, things=tuple(moved))


def swollen(scene: Scene, rng: random.Random) -> Scene:
    """Everything a little larger or smaller."""
    return replace(scene, things=tuple(replace(t, area=t.area * rng.uniform(0.9, 1.1)) for t in scene.things))


@pytest.mark.parametrize("name", PLANS)
def test_sentences_name_exactly_their_targets(name: str) -> None:
    rng = random.Random(7)
    for scene, sentences in scenes(name):
        changed = [scene, shaken(scene, rng), swollen(scene, rng)]
        for sentence in sentences:
            for world in changed:
                assert read(sentence.text, world) == set(bits(sentence.things)), sentence.text
            for jolt in (-0.03, 0.03):
                assert read(sentence.text, scene, jolt) == set(bits(sentence.things)), sentence.text


def thing(shape: str, colour: str, x: float, y: float, size: str = "medium", texture: str = "plain") -> Thing:
    area = SIZES[size]
    return Thing(shape, colour, texture, size, x, y, area, (area / AREA[shape]) ** 0.5, 0, COLOURS[colour])


GROUND = Ground((120, 120, 120), "cloudy", (0, 0))
HAND_MADE = Scene(
    (1.0, 1.0),
    (
        thing("star", "red", 0.2, 0.2),
        thing("star", "blue", 0.5, 0.25, "small"),
        thing("star", "red", 0.8, 0.66, "large", "striped"),
        thing("ring", "green", 0.25, 0.8),
        thing("ring", "green", 0.52, 0.77, texture="dotted"),
    ),
    0b11111,
    GROUND,
)


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (kind("red", "star"), "the red star", {0, 2}),
        (kind("striped", "star"), "star with stripes", {2}),
        (Placed(kind("star"), "top left"), "the star in the upper left", {0}),
        (Placed(kind(), "right"), "thing on right side", {2}),
        (Related(kind("ring"), "left of", kind("striped")), "ring to the left of the striped shape", {3, 4}),
        (Related(kind(), "above", kind("dotted")), "objects above the spotted ring", {0, 1, 2}),
        (Ranked(kind("star"), "left"), "the leftmost star", {0}),
        (Ranked(kind("star"), "right", 2), "second star from right", {1}),
        (Ranked(kind("star"), "large", 2), "the second largest star", {0}),
        (Without(kind("star"), "red"), "the star that is not red", {1}),
        (Without(kind("star"), "left"), "the stars which are not on the left", {1, 2}),
        (kind("blue", "ring"), "the blue ring", set()),
        (
            Related(kind("ring"), "below", Related(kind("star"), "left of", kind("blue", "star"))),
            "the ring below the star left of the blue star",
            {3, 4},
        ),
    ],
)
def test_forms_and_reader_agree_on_a_hand_made_scene(form: Kind, text: str, expected: set) -> None:
    assert read(text, HAND_MADE) == expected
    named = names(form, Facts(HAND_MADE))
    assert named is not None
    assert set(bits(named)) == expected


@pytest.mark.parametrize(
    "form",
    [
        Placed(kind("star"), "left"),
        Ranked(kind("star"), "left"),
        Related(kind("star"), "right of", kind("ring")),
        Ranked(kind("star"), "large"),
    ],
)
def test_a_form_that_a_pixel_would_decide_is_vague(form: Kind) -> None:
    things = (thing("star", "red", 0.40, 0.2), thing("star", "blue", 0.43, 0.8), thing("ring", "red", 0.38, 0.5))
    assert names(form, Facts(Scene((1, 1), things, 7, GROUND))) is None


def test_an_image_depends_on_seed_split_and_index_only() -> None:
    here = ScenesSplit("val", 64)
    there = pickle.loads(pickle.dumps(ScenesSplit("val", 64)))
    images = [5, 900, 5, 0]
    first = [_everything(here, image) for image in images]
    assert first == list(reversed([_everything(there, image) for image in reversed(images)]))
    assert first[0] == first[2]
    assert first[0] != _everything(ScenesSplit("val", 64, seed=1), 5)
    assert first[0] != _everything(ScenesSplit("train", 64), 5)


def _everything(split: ScenesSplit, image: int) -> tuple:
    record = split[image]
    masks = [target.segmentation.draw(GroundTruth()).tobytes() for target in record.targets]
    return [sentence for _, sentence in record.sentences()], masks, record.load().tobytes()


def test_another_process_generates_the_same_without_torch() -> None:
    code = (
        "import sys; from riszoo.data.scenes import ScenesSplit;"
        "assert not {'torch', 'lightning'} & {*sys.modules}; print(ScenesSplit('testA').fingerprint())"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert made == [ScenesSplit("testA").fingerprint()] * 2


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_hash(name: str) -> None:
    assert ScenesSplit(name).fingerprint() == GOLDEN[name]


def test_fingerprints_depend_on_name_seed_and_size() -> None:
    splits = [ScenesSplit("val"), ScenesSplit("testA"), ScenesSplit("val", seed=1), ScenesSplit("val", 128)]
    assert len({split.fingerprint() for split in splits}) == len(splits)


@pytest.mark.parametrize("size", [64, 97, 640, (64, 640), (480, 64), "mixed"])
def test_any_size(size: int | tuple[int, int] | str) -> None:
    split = ScenesSplit("val", size)
    for image in (0, 1):
        record = split[image]
        pixels = record.load()
        assert pixels.shape == (*record.size, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable
        for target in record.targets:
            mask = target.segmentation.draw(GroundTruth())
            assert target.segmentation.size == mask.shape == record.size
            assert 0.01 < mask.mean() < 0.1
            assert target.segmentation.draw(GroundTruth(frame=(20, 30))).shape == (20, 30)


def test_mixed_sizes_vary_in_form_and_size() -> None:
    sizes = [ScenesSplit("train", "mixed").size_of(image) for image in range(500)]
    sides = [side for size in sizes for side in size]
    assert min(sides) >= 64
    assert max(sides) <= 640
    assert min(max(size) for size in sizes) < 100 < 500 < max(min(size) for size in sizes)
    assert min(h / w for h, w in sizes) < 0.6
    assert max(h / w for h, w in sizes) > 1.7


def test_square_images_show_the_same_scene_at_every_size() -> None:
    small, large = ScenesSplit("val", 96), ScenesSplit("val", 384)
    for image in range(10):
        assert small.scene(image) == large.scene(image)
        for few, many in zip(small[image].targets, large[image].targets, strict=True):
            coarse, fine = few.segmentation.draw(GroundTruth()), many.segmentation.draw(GroundTruth())
            shrunk = fine[2::4, 2::4]
            assert (coarse & shrunk).sum() / (coarse | shrunk).sum() > 0.8


def test_masks_are_the_visible_parts_and_targets_can_be_seen() -> None:
    touched, areas = [], []
    for name in ("train", "testA", "unseen", "general"):
        for scene, sentences in scenes(name):
            rendering = ShapeRendering(scene, (96, 96))
            seen = np.bincount(rendering.owner.ravel(), minlength=len(scene.things) + 1)[1:] / 96**2
            full = np.array([thing.area for thing in scene.things])
            assert seen.min() >= 0.012
            assert (seen / full).min() >= 0.5
            touched += list(seen / full < 0.93)
            areas += [seen[list(bits(s.things))].sum() for s in sentences if s.sentence_type in SINGLE]
    assert np.mean(touched) > 0.05
    assert statistics.median(areas) <= 0.06


def test_pixels_have_the_colour_of_their_mask() -> None:
    """Inside a plain thing's mask is its colour, and the foremost thing hides what is behind it."""
    back, front = thing("square", "white", 0.45, 0.5, "large"), thing("circle", "red", 0.6, 0.5)
    rendering = ShapeRendering(Scene((1.0, 1.0), (back, front), 3, GROUND), (200, 200))
    pixels, masks = rendering.pixels().astype(int), [rendering.mask(1), rendering.mask(2)]
    assert not (masks[0] & masks[1]).any()
    assert masks[1][100, 120]
    assert not masks[0][100, 120]
    assert (rendering.mask(3) == masks[0] | masks[1]).all()
    assert abs(masks[1].mean() - front.area) < 0.001
    for mask, colour in zip(masks, ("white", "red"), strict=True):
        off = np.abs(pixels[mask] - COLOURS[colour]).max(-1)
        assert (off < 16).mean() > 0.9
    edge = pixels[100, :, 1]
    assert ((edge > 70) & (edge < 95)).any() or ((edge > 150) & (edge < 230)).any(), "edges are not smooth"


def test_a_ring_shows_what_is_behind_its_hole() -> None:
    things = (thing("square", "white", 0.5, 0.5, "small"), thing("ring", "red", 0.5, 0.5, "large"))
    rendering = ShapeRendering(Scene((1.0, 1.0), things, 3, GROUND), (200, 200))
    assert rendering.owner[100, 100] == 1


def test_textures_differ() -> None:
    looks = []
    for texture in TEXTURES:
        scene = Scene((1.0, 1.0), (thing("square", "red", 0.5, 0.5, "large", texture),), 1, GROUND)
        rendering = ShapeRendering(scene, (96, 96))
        looks.append((rendering.pixels()[rendering.mask(1)][:, 0] < 150).mean())
    plain, striped, dotted = looks
    assert plain == 0
    assert 0.35 < striped < 0.6
    assert 0.2 < dotted < 0.5


def test_text_renders_nothing_and_renderings_are_pickled_undrawn() -> None:
    record = ScenesSplit("val")[0]
    rendering = record.targets[0].segmentation.rendering
    assert "_map" not in vars(rendering)
    record.load()
    assert "_map" in vars(rendering)
    assert "_map" not in vars(pickle.loads(pickle.dumps(rendering)))
    assert len(pickle.dumps(ScenesSplit("train"))) < 1000


@pytest.mark.parametrize("name", PLANS)
def test_flat_arrays_ids_and_texts_match_the_records(name: str) -> None:
    split = ScenesSplit(name)
    each = PLANS[name].sentences
    assert len(split) == len(split.image_ids()) == len(set(split.image_ids()))
    assert len(split.sentence_target) == len(split) * each
    texts = split.texts()
    for image in (0, 1, 2):
        record = split[image]
        assert record.image_id == split.image_ids()[image]
        places = np.flatnonzero(split.sentence_image == image)
        used = [sentence for _, sentence in record.sentences()]
        assert [split.text(int(place)) for place in places] == [sentence.text for sentence in used]
        assert [next(texts) for _ in used] == [sentence.text for sentence in used]
        assert all(target.no_target == (not target.segmentation.draw(GroundTruth()).any()) for target in record.targets)
    assert split[-1].image_id == split.image_ids()[-1]
    with pytest.raises(IndexError):
        split[len(split)]


def test_the_vocabulary_has_all_words_of_the_sentences() -> None:
    used = {
        word
        for name in PLANS
        for _, sentences in scenes(name)
        for sentence in sentences
        for word in sentence.text.split()
    }
    words = vocabulary()
    assert words == sorted(set(words))
    assert used <= set(words)
    assert len(used) >= 0.95 * len(words)


def test_splits_contain_their_combinations_only() -> None:
    assert len(HELD_OUT) == 16
    assert {shape for shape, _ in HELD_OUT} == set(SHAPES)
    assert {colour for _, colour in HELD_OUT} == set(COLOURS)
    for name in PLANS:
        for scene, sentences in scenes(name):
            shown = {(thing.shape, thing.colour) for thing in scene.things}
            targets = [scene.things[place] for sentence in sentences for place in bits(sentence.things)]
            if name == "unseen":
                assert {(thing.shape, thing.colour) for thing in targets} <= HELD_OUT
                continue
            assert not shown & HELD_OUT
            if name.startswith("test"):
                family = FAMILIES["round" if name == "testA" else "angular"]
                assert {thing.shape for thing in targets} <= {*family}
                assert any(thing.shape not in family for thing in scene.things)


def test_training_sentences_mention_no_held_out_combination() -> None:
    for name in ("train", "general-train", "train-spatial"):
        for _, sentences in scenes(name):
            for sentence in sentences:
                for part in sentence.form.parts():
                    assert not isinstance(part, Kind) or part.values[-2:][::-1] not in HELD_OUT


def test_every_attribute_appears() -> None:
    seen = Counter(value for scene, _ in scenes("train") for thing in scene.things for value in thing.values)
    combinations = {(thing.shape, thing.colour) for scene, _ in scenes("train") for thing in scene.things}
    assert {*seen} == {*SHAPES, *COLOURS, *TEXTURES, *SIZES}
    assert len(combinations) > 0.95 * len(SEEN)


def test_the_mix_of_sentences() -> None:
    for name in ("train", "val", "testA", "testB", "unseen"):
        types = Counter(sentence.tags[0] for _, sentences in scenes(name) for sentence in sentences)
        share = {kind: count / sum(types.values()) for kind, count in types.items()}
        assert set(share) == set(SINGLE)
        assert 0.39 < share["attribute"] < 0.52
        assert min(share.values()) > 0.035
        assert statistics.median(len(scene.things) for scene, _ in scenes(name)) >= 5
        distinct = [len({sentence.things for sentence in sentences}) / len(sentences) for _, sentences in scenes(name)]
        assert statistics.mean(distinct) > 0.95
    spatial = Counter(sentence.sentence_type for _, sentences in scenes("train-spatial") for sentence in sentences)
    assert set(spatial) == set(SPATIAL)
    assert spatial["attribute"] < 0.4 * sum(spatial.values()), "less than in any other split"
    types = Counter(sentence.sentence_type for _, sentences in scenes("general") for sentence in sentences)
    assert set(types) == {*SINGLE, "plural", "none"}
    assert types["plural"] > 0.25 * sum(types.values())
    assert types["none"] > 0.15 * sum(types.values())


def test_the_head_alone_is_ambiguous_except_in_attribute_sentences() -> None:
    """The head of such a sentence alone fits at least two things."""
    for scene, sentences in scenes("val"):
        for sentence in sentences:
            if sentence.sentence_type != "attribute":
                head = sentence.form.of  # type: ignore[attr-defined]
                assert names(head, Facts(scene)).bit_count() >= 2, sentence.text  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "most"), [("val", 0.20), ("train", 0.20), ("general", 0.25)])
def test_ignoring_the_sentence_scores_low(name: str, most: float) -> None:
    assert blind(ScenesSplit(name), range(80)) <= most


@pytest.mark.parametrize("name", PLANS)
def test_reading_only_colour_and_shape_scores_low(name: str) -> None:
    scores = guesses(ScenesSplit(name), range(400))
    assert statistics.mean(score for each in scores.values() for score in each) <= 0.55


def test_the_reader_of_appearance_knows_the_words_that_an_independent_reader_finds() -> None:
    for _, sentences in scenes("val"):
        for sentence in sentences:
            known = [word for word in subject(sentence.form).values if word in ScenesSplit.appearance]
            assert sorted(known) == sorted(head_words(sentence.text)), sentence.text


def test_unknown_splits_and_sizes_are_errors() -> None:
    with pytest.raises(UserError, match=r"no split 'vall': did you mean 'val'"):
        ScenesSplit("vall")
    for size in (32, 641, (64, 1000), (96, 96, 3), "large", 96.5):
        with pytest.raises(UserError, match="640"):
            ScenesSplit("val", size)  # type: ignore[arg-type]


def test_values_are_drawn_by_weight() -> None:
    rng = RandomStream("weights")
    drawn = Counter(rng.draw(WeightedChoices({"often": 3, "seldom": 1})) for _ in range(2000))
    assert 0.7 < drawn["often"] / 2000 < 0.8
    assert sorted(rng.sample(range(5), 9)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("name", "times"), [("val", 1), ("train", 2)])
def test_a_scene_of_a_split_for_evaluation_is_composed_once(
    name: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, composed = ScenesSplit(name), []
    compose = ScenesSplit.compose

    def counted(self: ScenesSplit, *arguments: Any) -> Any:
        composed.append(arguments)
        return compose(self, *arguments)

    alone = ScenesSplit(name).scene(3)
    monkeypatch.setattr(ScenesSplit, "compose", counted)
    first = split.scene(3)
    once = len(composed)
    assert split.scene(3) == first == alone
    assert len(composed) == times * once
    assert len(pickle.dumps(split)) < 1000, "the scenes are not sent to other processes"
