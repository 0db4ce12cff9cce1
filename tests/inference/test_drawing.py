"""Drawings of predictions: where the colours are, how large panels are, and atomic files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError
from riszoo.inference.contact_sheet import sheet
from riszoo.inference.drawing import CELL, GAP, GROUND_TRUTH, PREDICTION, contact_sheet, heat, overlay, panel, save

GREY = np.full((60, 90, 3), 128, np.uint8)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[top:bottom, left:right] = True
    return mask


def test_overlay_tints_inside_and_outlines_both() -> None:
    drawn = np.asarray(overlay(GREY, box(10, 10, 40, 40), box(20, 50, 50, 80)))
    assert tuple(drawn[10, 20]) == PREDICTION
    assert tuple(drawn[20, 60]) == GROUND_TRUTH
    assert drawn[25, 25, 0] > 128 > drawn[25, 25, 1], "the inside is tinted"
    assert (drawn[5, 85] < 80).all(), "the outside is darkened"
    assert (GREY == 128).all(), "the input image must not change"


def test_overlay_of_an_empty_and_of_a_full_mask() -> None:
    assert (np.asarray(overlay(GREY, None)) == GREY).all()
    assert (np.asarray(overlay(GREY, box(0, 0, 0, 0))) < 128).all()
    assert tuple(np.asarray(overlay(GREY, box(0, 0, 60, 90)))[0, 45]) == PREDICTION


def test_heat_is_brightest_where_the_evidence_is() -> None:
    evidence = np.zeros((4, 6))
    evidence[3, 5] = 7.0
    light = np.asarray(heat(GREY, evidence)).astype(int).sum(-1)
    assert light.shape == (60, 90)
    assert light[55:, 85:].min() > light[:40, :60].max() + 200


def test_heat_of_a_constant_map_has_no_peak() -> None:
    light = np.asarray(heat(GREY, np.full((3, 3), 5.0)))
    assert len(np.unique(light.reshape(-1, 3), axis=0)) == 1


def test_a_very_long_sentence_is_cut() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    short, words, word = (panel(image, text) for text in ("a star", "star " * 100_000, "s" * 500_000))
    assert short.height < words.height < 3000
    assert word.height == short.height


def test_panel_has_a_cell_for_every_image() -> None:
    mask, evidence = box(10, 10, 40, 40), np.eye(4)
    bare = panel(GREY, "a")
    full = panel(GREY, "a", mask, mask, {"words": [("the", evidence), ("star", evidence)], "gate": evidence})
    assert bare.width == CELL + 2 * GAP
    assert full.width == 5 * CELL + 6 * GAP
    assert full.height == bare.height


def test_panel_wraps_a_long_sentence() -> None:
    short, long = panel(GREY, "a star"), panel(GREY, "a star " * 30)
    assert long.width == short.width
    assert long.height > short.height + 100
    assert panel(GREY, "x" * 500).width == short.width
    assert panel(GREY, "").size == short.size


def test_panel_of_a_tall_and_of_a_narrow_image() -> None:
    tall = np.zeros((640, 20, 3), np.uint8)
    assert panel(tall, "a", np.zeros((640, 20), bool)).height > CELL
    narrow = panel(np.zeros((500, 1, 3), np.uint8), "the small star", evidence={"prior": np.eye(3)})
    assert narrow.width >= CELL + 2 * GAP, "the sentence must have room"


def test_contact_sheet_keeps_every_panel() -> None:
    panels = [
        Image.new("RGB", size, colour) for size, colour in [((30, 10), "red"), ((20, 40), "blue"), ((50, 5), "lime")]
    ]
    made = contact_sheet(panels, 2)
    assert made.size == (70, 45)
    assert [made.getpixel(at) for at in [(1, 1), (51, 1), (1, 41)]] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
    assert contact_sheet(panels[:1], 4).size == (30, 10)
    with pytest.raises(ValueError, match="needs at least one panel"):
        contact_sheet([], 2)


def test_save_replaces_a_file(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (5, 5), "red"), tmp_path / "new" / "a.png")
    save(Image.new("RGB", (7, 7), "blue"), path)
    assert Image.open(path).size == (7, 7)
    assert [each.name for each in path.parent.iterdir()] == ["a.png"]


def test_a_failed_save_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.nosuch has no suffix of an image format .* name it a\.png"):
        save(Image.new("RGB", (5, 5)), tmp_path / "a.nosuch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "height"), [("a.xbm", 5), ("a.webp", 20_000), ("a.jpg", 70_000)])
def test_an_image_that_a_format_cannot_hold_is_refused(name: str, height: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{name} cannot be written as \w+ \(.*\): name it a\.png"):
        save(Image.new("RGB", (1, height)), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_sheet_of_a_split() -> None:
    split = ScenesSplit("general", 64)
    assert sheet(split, 3, columns=1).height == 3 * sheet(split, 1).height
    assert np.asarray(sheet(split, 2, seed=1)).tobytes() == np.asarray(sheet(split, 2, seed=1)).tobytes()
    assert np.asarray(sheet(split, 2, seed=1)).tobytes() != np.asarray(sheet(split, 2, seed=2)).tobytes()
    with pytest.raises(UserError, match="3000 sentences"):
        sheet(split, 3, start=3000)
