"""The examples of a split and their batches, counted by hand on RefCOCO's small tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from riszoo.data.dataset import RISDataset, collate
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.samplers import SampleKey
from riszoo.data.splits import IndexSplit
from tests.support import data_trees as trees
from tests.support.splits import ANY, ONCE, opened

FRAME = (60, 60)  # twice the image's width of 30; its height of 20 becomes 40


@pytest.fixture
def train(tmp_path: Path) -> IndexSplit:
    """Image 1 has two targets with sentences 0, 1 and 2; image 2 has one with sentence 3."""
    split: IndexSplit = opened("refcoco", "train", trees.refcoco(tmp_path))
    return split


def test_an_example_has_the_image_in_the_frame_and_a_mask_for_each_sentence(train: IndexSplit) -> None:
    example = RISDataset(train, FRAME, "letterbox", masks=True)[SampleKey(0, (0, 2))]
    assert example.image is not None
    assert example.image.shape == (3, 60, 60)
    assert example.geometry.valid == (10, 0, 50, 60)
    assert not example.image[:, :10].any()
    assert example.image[:, 11:49].any()
    assert [sample.text for sample in example.samples] == ["Left box.", "right box"]
    assert [sample.sentence_id for sample in example.samples] == ["110", "120"]
    assert example.masks is not None
    left, right = example.masks
    assert left.sum() == right.sum() == 4 * 100
    assert left[16:36, 4:24].all()  # x 2..12, y 3..13 of the image, twice as large and 10 rows lower
    assert right[16:36, 16:36].all()


def test_a_ground_truth_is_drawn_once_for_each_target_and_protocol(train: IndexSplit) -> None:
    dataset = RISDataset(train, FRAME, "squeeze", ground_truths=[ANY, ONCE, GroundTruth(frame=(10, 10))])
    example = dataset[SampleKey(0, (2, 0, 1))]
    assert example.target_index == [1, 0, 0]
    assert {key: [tuple(mask.shape) for mask in masks] for key, masks in example.ground_truths.items()} == {
        ANY.key: [(20, 30)] * 2,
        ONCE.key: [(20, 30)] * 2,
        "any-coco-10x10-nearest": [(10, 10)] * 2,
    }
    (overlapping,) = dataset[SampleKey(1, (3,))].ground_truths[ONCE.key]
    assert overlapping.sum() == 120
    assert example.masks is None


def test_a_batch_points_from_each_sentence_to_its_image_and_target(train: IndexSplit) -> None:
    dataset = RISDataset(train, FRAME, "squeeze", masks=True, ground_truths=[ANY])
    batch = collate([dataset[SampleKey(1, (3,))], dataset[SampleKey(0, (0, 1, 2))]])
    assert batch.images.shape == (2, 3, 60, 60)
    assert batch.image_ids == ["2", "1"]
    assert batch.image_index.tolist() == [0, 1, 1, 1]
    assert batch.target_index is not None
    assert batch.target_index.tolist() == [0, 1, 1, 2]
    assert [int(batch.ground_truths[ANY.key][i].sum()) for i in batch.target_index] == [160, 100, 100, 100]
    assert batch.masks is not None
    assert batch.masks.shape == (4, 60, 60)
    assert torch.equal(batch.masks[1], batch.masks[2])
    assert batch.texts == ["overlapping things", "Left box.", "the BOX on the left", "right box"]


def test_a_control_changes_the_sentences_only(train: IndexSplit) -> None:
    key = SampleKey(0, (0, 1))
    plain, blank, shuffled = (
        RISDataset(train, FRAME, "squeeze", masks=True, control=control)[key]
        for control in ("none", "blank", "shuffled")  # type: ignore[arg-type]
    )
    assert [sample.text for sample in blank.samples] == ["", ""]
    assert [sample.text for sample in shuffled.samples] == ["overlapping things"] * 2
    for example in (blank, shuffled):
        assert [replace(sample, text="") for sample in example.samples] == [
            replace(sample, text="") for sample in plain.samples
        ]
        assert example.masks is not None
        assert plain.masks is not None
        assert torch.equal(example.masks, plain.masks)


def test_samples_are_listed_by_image_without_its_file(train: IndexSplit) -> None:
    for path in train.paths():
        path.unlink()
    dataset = RISDataset(train, FRAME, "squeeze")
    assert [sample.index for sample in dataset.samples([3, 0, 2])] == [3, 0, 2]
    listed = [(record.image_id, [s.index for s in samples], targets) for record, samples, targets in dataset.by_image()]
    assert listed == [("1", [0, 1, 2], [0, 0, 1]), ("2", [3], [0])]


def test_the_mask_of_a_squeezed_image_covers_its_share_of_the_frame(train: IndexSplit) -> None:
    example = RISDataset(train, (20, 60), "squeeze", masks=True)[SampleKey(0, (0,))]
    assert example.masks is not None
    expected = np.zeros((20, 60), np.bool_)
    expected[3:13, 4:24] = True
    np.testing.assert_array_equal(example.masks[0].numpy(), expected)
