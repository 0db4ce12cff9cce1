"""Untrusted files are refused with the reason; nothing in them runs or crashes."""

from __future__ import annotations

import json
import os
import pickle
import struct
import warnings

import numpy as np
import pytest
from pycocotools import mask as coco

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.masks import Rles
from riszoo.data.readers import validation
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, open_split
from riszoo.errors import UserError
from tests.support import data_trees as trees

SIZE = (20, 30)


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_a_global_is_refused_by_name_and_does_not_run(tmp_path, protocol):
    marker = tmp_path / "it ran"
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"ref_id": 1, "x": Bomb(marker)}], protocol=protocol))
    with pytest.raises(UserError, match=r"refs\(unc\)\.p is refused.*(posix|nt)\.mkdir"):
        validation.load_pickle(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "blob",
    [
        b"", b"garbage", b"\x80\x04\x95", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x02\x8a\xff" + b"\xff" * 9,
        b"(lp", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62), b"\x82\x01.", b"Pname\n.",
        b"]r\x00\x00\x00\x7f.",
    ],
)  # fmt: skip
def test_broken_and_hostile_pickles_are_one_sentence(tmp_path, blob):
    path = tmp_path / "x.p"
    path.write_bytes(blob)
    with pytest.raises(UserError, match=r"x\.p"):
        validation.load_pickle(path)


def test_plain_pickles_of_every_protocol(tmp_path):
    value = [{"a": [1, 2.5, None, True, "é", (1,)], "b": {"c": -(10**12)}}]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"{protocol}.p"
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        assert validation.load_pickle(path) == value


def test_a_size_cap_and_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "big.json"
    path.write_text("[1, 2, 3]")
    with pytest.raises(UserError, match="9 bytes"):
        validation.load_json(path, cap=8)
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        validation.load_json(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "\xff", '{"a": ' + "9" * 10_000 + "}"])
def test_broken_json_is_one_sentence(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"x\.json is not a readable JSON"):
        validation.load_json(path)


@pytest.mark.parametrize(
    "points",
    [
        [], [1], [1, 2, 3], [1, float("nan"), 3, 4], [1, 2, float("inf"), 4], [0, 0, 1e9, 1], [0, 0, -1e5, 1],
        ["1", "2"], [[1, 2], [3, 4]], [1, [2]], None, "12", {"a": 1}, [None, 1], [True, False], [10**400, 1],
    ],
)  # fmt: skip
def test_outlines_that_are_none(points):
    with pytest.raises(validation.RecordError):
        validation.outline(points, SIZE)


def test_an_outline_far_longer_than_its_image_is_refused():
    with pytest.raises(validation.RecordError, match="far longer"):
        validation.outline([0, 0, 29, 19] * 1000, SIZE)
    pool = np.array([0, 0, 60_000, 60_000] * 400, np.float64)
    with pytest.raises(validation.RecordError, match="far longer"):
        validation.check_outlines(pool, np.array([0, len(pool)]))
    validation.check_outlines(pool, np.arange(0, len(pool) + 1, 4))  # many short ones are fine


def test_an_outline_may_leave_its_image_a_little():
    assert validation.outline([-1, -0.5, 31, 3, 4, 22], SIZE).dtype == np.float64


@pytest.mark.parametrize(
    "counts",
    [
        [], [600, 1], [599], [700, -100], [-1, 601], [1.5, 598.5], [2**62, 2**62, 600], "", "\x00", "a", "o", "~~~",
        b"\xff", "oooooooooo0", "P" * 50, None, 7, [[600]], [True] * 600,
    ],
)  # fmt: skip
def test_runs_that_do_not_fill_the_image(counts):
    with pytest.raises(validation.RecordError):
        validation.read_rle({"size": list(SIZE), "counts": counts}, SIZE)


@pytest.mark.parametrize("size", [[30, 20], [20], "ab", None, [20, float("nan")], [2**40, 2**40], [0, 0]])
def test_runs_of_another_size(size):
    with pytest.raises(validation.RecordError):
        validation.read_rle({"size": size, "counts": [600]}, SIZE)


def test_huge_images_are_refused_before_memory_is_asked_for():
    with pytest.raises(validation.RecordError, match="not possible"):
        validation.size(10**6, 10**6)
    for value in (float("nan"), float("inf"), "20", True, None, 2.5, -1):
        with pytest.raises(validation.RecordError):
            validation.size(value, 20)


def test_runs_equal_the_coco_api_on_random_masks():
    random = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        for _ in range(20):
            mask = (random.random(random.integers(1, 300, 2)) < share).astype(np.uint8)
            packed = coco.encode(np.asfortranarray(mask))
            runs = validation.read_rle({"size": packed["size"], "counts": packed["counts"].decode()}, mask.shape)
            assert np.array_equal(Rles(mask.shape, (runs,)).draw(GroundTruth()), mask)


def test_hostile_records_are_left_out_one_by_one(tmp_path):
    hostile = [
        [[1, 2, 3]], [[0, 0, 1e300, 1, 2, 2]], {"size": [20, 30], "counts": "zzzz"},
        {"size": [9**9, 9**9], "counts": "0"}, [], None, "text", [[]], [{"counts": [600]}], 5,
    ]  # fmt: skip
    rows = [trees.annotation(n, 1, one) for n, one in enumerate(hostile)] + [trees.annotation(77, 1, [trees.BOX])]
    refs = [trees.ref(n + 1, 1, n, "train", "x") for n in range(len(hostile))]
    strange: list = [None, 5, [], {}, {"ref_id": 59}, trees.ref(60, 2, 77, "train", "no such image")]
    silent = trees.ref(61, 1, 77, "train")
    wrong = trees.ref(62, 1, 77, "train", "x") | {"sentences": [{"sent_id": 1, "raw": 5, "sent": "x"}]}
    refs += [*strange, silent, wrong, trees.ref(70, 1, 77, "train", "the sound one")]
    trees.write_refer(tmp_path, "refcoco", "unc", refs, {"images": trees.images(1), "annotations": rows}, (1,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = open_split(get_reader("refcoco"), "train", Options(root=str(tmp_path)))
    assert list(split.texts()) == ["the sound one"]
    problems = dict(split.index.problems)
    assert len(problems) == len(hostile) + len(strange) + 2
    assert problems["61"] == "it has no sentence"
    assert problems["3"].startswith("the runs of an RLE") or "alphabet" in problems["3"]
    assert problems["59"] == "it lacks 'image_id'"


def test_json_is_read_as_json_whatever_it_holds(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"__reduce__": "os.system"}))
    assert validation.read(tmp_path / "x.json") == {"__reduce__": "os.system"}
