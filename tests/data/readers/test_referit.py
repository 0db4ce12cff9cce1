"""ReferIt in the text_objseg form."""

from __future__ import annotations

import pytest

from riszoo.errors import UserError
from tests.support import data_trees as trees
from tests.support.splits import ANY, areas, opened


def test_referit_in_the_text_objseg_form(tmp_path):
    root = trees.referit(tmp_path)
    train = opened("referit", "train", root)
    assert list(train.texts()) == ["Sky", "the sky on TOP"]
    mask = train[0].targets[0].segmentation.draw(ANY)
    assert mask[:5].all()
    assert mask.sum() == 5 * trees.W
    both = opened("referit", "trainval", root)
    assert both.image_ids() == ["10", "11"]
    assert both.sentence_target.tolist() == [0, 0, 1]
    assert both[1].targets[0].sentences[0].text == "grass"
    assert both.describe()["parts"]["referit/trainval"]["bad_records"] == 1
    with pytest.raises(UserError, match="refclef"):
        opened("referit", "testA", root)


def test_referit_annotations_may_lie_in_a_folder_of_their_own(tmp_path):
    root = trees.referit(tmp_path)
    (root / "referit/annotations").mkdir()
    for path in (root / "referit").glob("*.json"):
        path.rename(root / "referit/annotations" / path.name)
    assert areas(opened("referit", "train", root)) == {"10_1": 5 * trees.W}
