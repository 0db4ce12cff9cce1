"""PhraseCut: outlines, subsets, and phrases without ground truth."""

from __future__ import annotations

import json

import pytest

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, prepare_indices
from riszoo.errors import UserError
from tests.support import data_trees as trees
from tests.support.splits import ANY, opened, opened_with_warnings

OUTLINED = GroundTruth(engine="pillow")


def test_phrasecut_outlines_subsets_and_the_whole_validation_set(tmp_path):
    root = trees.phrasecut(tmp_path)
    val = opened("phrasecut", "val", root)
    two, point = val[0].targets
    assert two.segmentation.draw(OUTLINED).sum() == 11 * 11 + 5 * 5  # both edges belong to it
    assert two.segmentation.draw(ANY).sum() < 11 * 11 + 5 * 5
    assert point.segmentation.draw(OUTLINED).sum() == 11 * 11  # a single point draws nothing
    assert {"i_multi", "p_att", "p_att+", "c20", "d_cocotv", "s_large"} <= set(two.sentences[0].tags)
    assert opened("phrasecut", "miniv", root)[0].targets[0].sentences[0].text == "mini"
    whole = opened("phrasecut", "val_miniv", root)
    assert whole.image_ids() == ["2", "3"]
    assert whole.target_image.tolist() == [0, 0, 1]
    train = opened("phrasecut", "train", root)
    assert list(train.texts()) == ["White sky"]
    assert "d_notcocotv" in train[0].targets[0].sentences[0].tags


@pytest.mark.parametrize("images", [{}, [7], [{"image_id": [2]}], [{"id": 2}]])
def test_a_file_of_images_in_another_form_is_refused(tmp_path, images):
    root = trees.phrasecut(tmp_path)
    (root / "VGPhraseCut_v0/image_data_split3000.json").write_text(json.dumps(images))
    with pytest.raises(UserError, match=r"image_data_split3000\.json has no list of rows with 'image_id'"):
        opened("phrasecut", "val", root)


def test_phrasecut_without_ground_truth_can_be_predicted(tmp_path):
    root = trees.phrasecut(tmp_path)
    folder = root / "VGPhraseCut_v0"
    (folder / "image_data_split3000.json").rename(folder / "image_data_split.json")
    rows = json.loads((folder / "refer_test.json").read_text())
    (folder / "refer_test.json").unlink()
    bare = [{k: row[k] for k in ("task_id", "image_id", "phrase", "phrase_structure")} for row in rows]
    (folder / "refer_input_test.json").write_text(json.dumps(bare))
    record = opened("phrasecut", "test", root)[0]
    assert record.targets[0].sentences[0].text == "testing"
    with pytest.raises(UserError, match="predicted"):
        record.targets[0].segmentation.draw(ANY)


def test_a_prepared_index_is_outdated_by_other_ranks(tmp_path):
    root = trees.phrasecut(tmp_path)
    ranks = root / "VGPhraseCut_v0/name_att_rel_count.json"
    filed = ranks.read_text()
    ranks.unlink()
    prepare_indices(get_reader("phrasecut"), Options(root=str(root)))
    assert not opened_with_warnings("phrasecut", "test", root)[1]
    ranks.write_text(filed)
    split, (warning,) = opened_with_warnings("phrasecut", "test", root)
    assert "the annotations have changed since" in warning
    assert "c20" in split[0].targets[0].sentences[0].tags
    prepare_indices(get_reader("phrasecut"), Options(root=str(root)))
    assert not opened_with_warnings("phrasecut", "test", root)[1]
