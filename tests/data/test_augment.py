"""Changes that keep a sentence true."""

from __future__ import annotations

import numpy as np
import pytest

from riszoo.data.augment import Augment, augmented, cropped, flipped, jittered, mirrored
from riszoo.data.masks import Bitmap
from riszoo.data.record import Record, Sentence, Target
from riszoo.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
MASK = np.zeros((40, 60), bool)
MASK[10:20, 5:15] = True


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("man on the left", "man on the right"),
        ("Left dog, RIGHT of the leftmost tree", "Right dog, LEFT of the rightmost tree"),
        ("the red cup", "the red cup"),
        ("bottom right", "bottom left"),
        ("brighter leftover", "brighter leftover"),
        ("her left hand", "her right hand"),
        ("lt guy", "rt guy"),
        ("left-most bus", "right-most bus"),
        ("", ""),
    ],
)
def test_left_and_right_change_places_as_words(text, other):
    assert mirrored(text) == other
    assert mirrored(other) == text


@pytest.mark.parametrize(
    "word",
    [
        "bright", "Brightest", "frightened", "upright", "wright", "playwrights", "copyright", "alright", "birthright",
        "outright", "forthright", "sprightly", "righteous", "cleft", "leftovers", "two clocks",
    ],
)  # fmt: skip
def test_words_that_only_contain_a_side_stay(word):
    assert mirrored(f"{word} on the left") == f"{word} on the right"


@pytest.mark.parametrize(
    "text",
    [
        "dog right behind the bench", "the only one left", "at 3 o'clock", "clock at 10:10", "man r", "guy on l",
        "the east gate", "right next to it", "cookie that is left", "all right then", "topleft", "bottomright",
        "Upperleft cup", "lowright", "picleft", "2ndright", "brightleft", "leftish", "downright", "rightward", "lefty",
        "righthanded", "lhs", "rhs", "lft dog", "rght", "3oclock", "3 o\u2019clock", "clockwise", "counterclockwise",
    ],
)  # fmt: skip
def test_a_sentence_that_may_mean_something_else_is_not_reworded(text):
    assert mirrored(text) is None
    assert flipped(PIXELS, [MASK], ["left one", text]) is None
    pixels, masks, texts = Augment(flip=1.0)(PIXELS, [MASK], [text], np.random.default_rng(0))
    assert pixels is PIXELS
    assert masks[0] is MASK
    assert texts == [text]


def test_a_flip_is_of_image_masks_and_sentences():
    pixels, masks, texts = Augment(flip=1.0)(PIXELS, [MASK], ["left box"], np.random.default_rng(0))
    assert np.array_equal(pixels, PIXELS[:, ::-1])
    assert masks[0][10:20, 45:55].all()
    assert masks[0].sum() == 100
    assert texts == ["right box"]
    back = flipped(pixels, masks, texts)
    assert np.array_equal(back[0], PIXELS)
    assert back[2] == ["left box"]


def test_crops_keep_every_target_whole():
    marked = PIXELS.copy()
    marked[MASK] = 255
    other = np.zeros_like(MASK)
    other[30:33, 50:58] = True
    shares = []
    for seed in range(60):
        pixels, masks, _ = cropped(marked, [MASK, other], ["a", "b"], np.random.default_rng(seed), 0.2)
        assert pixels.shape == PIXELS.shape
        for mask, before in zip(masks, (MASK, other), strict=True):
            assert mask.sum() >= before.sum()  # nothing is cut off, what is left is enlarged
        shares.append(masks[0].mean())
        assert (pixels[masks[0]] > 200).mean() > 0.7  # the mask still lies on its object
    assert max(shares) > 1.2 * MASK.mean()


@pytest.mark.parametrize(
    "text", ["man on the left", "2nd dog", "the middle one", "Leftmost cup", "both of them", "l", "halfway"]
)
def test_a_part_of_a_image_is_not_asked_about_places(text):
    assert cropped(PIXELS, [MASK], ["the cup", text], np.random.default_rng(0)) is None
    assert Augment(crop=1.0)(PIXELS, [MASK], [text], np.random.default_rng(0))[0] is PIXELS
    for other in ("cup", "red lamp", "allowed"):
        assert Augment(crop=1.0, smallest=0.3)(PIXELS, [MASK], [other], np.random.default_rng(0))[0] is not PIXELS


def test_crops_of_images_without_a_target_and_full_of_it():
    empty, full = np.zeros_like(MASK), np.ones_like(MASK)
    for seed in range(5):
        pixels, masks, _ = cropped(PIXELS, [empty], ["x"], np.random.default_rng(seed), 0.3)
        assert pixels.shape == PIXELS.shape
        assert not masks[0].any()
        assert np.array_equal(cropped(PIXELS, [full], ["x"], np.random.default_rng(seed), 0.3)[0], PIXELS)


def test_jitter_keeps_hue_and_grey_stays_grey():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0], red[..., 1] = 180, 40
    for seed in range(20):
        changed = jittered(red, 0.4, np.random.default_rng(seed)).astype(int)
        assert (changed[..., 0] > changed[..., 1] + 30).all()
    grey = np.full((4, 4, 3), 90, np.uint8)
    changed = jittered(grey, 0.4, np.random.default_rng(1)).astype(int)
    assert np.ptp(changed, axis=2).max() <= 1
    assert np.array_equal(jittered(PIXELS, 0.0, np.random.default_rng(0)), PIXELS)


def test_the_same_generator_gives_the_same_change_and_off_means_off():
    change = Augment(flip=0.5, jitter=0.2, crop=0.5)
    one, two = (change(PIXELS, [MASK], ["left"], np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1][0], two[1][0])
    off = Augment()(PIXELS, [MASK], ["left"], np.random.default_rng(5))
    assert off[0] is PIXELS
    assert off[1][0] is MASK


@pytest.mark.parametrize("option", ["flip", "jitter", "crop", "smallest"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_shares_outside_their_limits_are_errors(option, value):
    with pytest.raises(UserError, match=rf"--data\.augment\.{option} .*: give a number from 0 to 1"):
        Augment(**{option: value})


def test_sentences_with_one_id_are_each_reworded():
    outline = Bitmap(MASK)
    targets = tuple(Target(name, outline, (Sentence("5", f"{name} cup"),)) for name in ("left", "right"))
    record = Record("1", (40, 60), targets, lambda: PIXELS)
    changed = augmented(record, [(1, 1), (0, 0)], Augment(flip=1.0), 0)
    assert [sentence.text for _, sentence in changed.sentences()] == ["right cup", "left cup"]
