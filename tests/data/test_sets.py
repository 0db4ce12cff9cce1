"""The data modules of the sets on disk, from constructor to batch."""

from __future__ import annotations

import warnings

import pytest
import torch

from riszoo import recipes
from riszoo.build import instantiate
from riszoo.data.datamodule import RISData
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.sets import Folder, Mixed, PhraseCut, RefCOCO, ReferIt
from riszoo.errors import UserError
from tests.support import data_trees as trees


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*bad record")
        yield


def on_disk() -> list[str]:
    return [name for name in recipes.names("data", plugins=False) if name not in ("scenes", "collage")]


@pytest.mark.parametrize("name", on_disk())
def test_every_recipe_makes_its_data_module_and_names_splits_of_its_source(name, tmp_path):
    from riszoo.data.readers.catalogue import READERS

    content = recipes.get("data", name).content
    options = {**content["common"]["data"], "root": str(tmp_path)}
    data = instantiate(RISData, {"class_path": content["class_path"], "init_args": options})
    if name in READERS and READERS[name].published:
        known = {*READERS[name].published, "val_miniv"}
        assert {data.train_split, data.val_split, *data.test_splits} <= known
    with pytest.raises(UserError, match=r"not found in|no image folder"):
        data.split(data.train_split)


def test_a_batch_of_refcoco(tmp_path):
    data = RefCOCO(root=str(trees.refcoco(tmp_path)), size=16, workers=0, batch_size=2, test_splits=["val", "testA"])
    data.ground_truths = [GroundTruth(), GroundTruth(overlap="once", frame=(16, 16))]
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.masks.dtype == torch.bool
    assert batch.masks.flatten(1).any(1).all()
    (val, test) = data.test_dataloader()
    evaluated = next(iter(val))
    assert evaluated.texts == ["the crowd", "many people", "all of them"]
    assert [m.sum().item() for m in evaluated.ground_truths["any-coco-original-nearest"]] == [10]
    assert evaluated.target_index.tolist() == [0, 0, 0]
    assert next(iter(test)).ground_truths["any-coco-original-nearest"][0].shape == (trees.H, trees.W)


def test_workers_give_the_same_batches(tmp_path):
    root = str(trees.refcoco(tmp_path))
    one, two = (
        [b.images.sum().item() for b in RefCOCO(root=root, size=16, workers=n, batch_size=1).train_dataloader()]
        for n in (0, 1)
    )
    assert one == two


def test_the_others_open_by_their_names(tmp_path):
    trees.referit(tmp_path)
    trees.phrasecut(tmp_path)
    assert len(ReferIt(root=str(tmp_path)).split("trainval")) == 2
    assert PhraseCut(root=str(tmp_path)).split("val_miniv").describe()["parts"]["phrasecut/val_miniv"]["by"] == "v0"
    trees.photo(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("image,sentence\na.png,all of it\n")
    assert list(Folder(root=str(tmp_path)).words()) == ["all of it"]


def test_mixed_training_leaves_evaluation_images_out_and_lists_them(tmp_path, monkeypatch):
    trees.refcoco(tmp_path)
    tables = {"images": trees.images(1, 3, 5), "annotations": [trees.annotation(n, n, [trees.BOX]) for n in (1, 3, 5)]}
    refs = [trees.ref(n, n, n, "train", f"thing {n}") for n in (3, 5)] + [trees.ref(1, 1, 1, "test", "one")]
    trees.write_refer(tmp_path, "refcocog", "umd", refs, tables, (5,))
    told: list[str] = []
    monkeypatch.setattr("riszoo.data.sets._say", told.append)
    data = Mixed(root=str(tmp_path), sets=["refcoco", "refcocog"], report_leaks=True)
    train = data.split("train")
    assert train.image_ids() == ["refcoco/2", "refcocog/5"]
    assert train.dataset == "refcoco+refcocog"
    assert told[0] == "mixed training leaves out 2 image(s) that evaluation splits use"
    assert told[1].splitlines() == ["refcoco\tcoco:1\trefcocog/test", "refcocog\tcoco:3\trefcoco/val"]
    assert data.split("refcoco/testA").dataset == "refcoco"
    with pytest.raises(UserError, match="'phrasecut' is not one of the sets"):
        data.split("phrasecut/val")
    only = Mixed(root=str(tmp_path), sets=["refcoco"], also_held_out=["refcocog"]).split("train")
    assert only.image_ids() == ["refcoco/2"]


def test_augmentation_is_off_in_evaluation_and_the_same_for_the_same_seed(tmp_path):
    options = {"root": str(trees.refcoco(tmp_path)), "size": 30, "workers": 0, "batch_size": 3, "seed": 4}
    section = {"class_path": "riszoo.data.sets.RefCOCO", "init_args": {**options, "augment": {"flip": 1.0}}}
    one, two = (next(iter(instantiate(RISData, section).train_dataloader())) for _ in range(2))
    plain = next(iter(RefCOCO(**options).train_dataloader()))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.masks, two.masks)
    assert [s.sentence_id for s in one.samples] == [s.sentence_id for s in plain.samples]
    flipped = plain.images.flip(3)
    for n, (text, before) in enumerate(zip(one.texts, plain.texts, strict=True)):
        place = one.image_index[n]
        assert (one.images[place].int() - flipped[place].int()).abs().max() <= 2  # resized after, not before
        assert text == {"Left box.": "Right box.", "right box": "left box"}.get(before, text)
        assert ("left" in text.lower()) != ("left" in before.lower()) or "overlapping" in text
    assert one.masks.sum() == plain.masks.sum()
    evaluated = next(iter(instantiate(RISData, section).val_dataloader()[0]))
    assert torch.equal(evaluated.images, next(iter(RefCOCO(**options).val_dataloader()[0])).images)
