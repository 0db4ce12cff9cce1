"""Flat arrays: saved, mapped, handed to workers, and thrown away when the annotations change."""

from __future__ import annotations

import json
import os
import pickle
import warnings

import numpy as np
import pytest

from riszoo.cli.data import main as data_main
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.index import Index
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, open_index, open_split, prepare_indices
from riszoo.errors import UserError
from tests.support import data_trees as trees


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*invalid record")
        yield


def everything(split) -> list:
    return [
        (r.image_id, r.size, t.target_id, t.no_target, t.sentences, t.segmentation.draw(GroundTruth()).tobytes())
        for r in (split[n] for n in range(len(split)))
        for t in r.targets
    ]


@pytest.mark.parametrize(
    ("name", "write", "split"),
    [
        ("refcoco", trees.refcoco, "train"),
        ("grefcoco", trees.grefcoco, "train"),
        ("refclef-unc", trees.refclef, "testB"),
        ("referit", trees.referit, "trainval"),
        ("phrasecut", trees.phrasecut, "val_miniv"),
    ],
)
def test_a_prepared_index_is_the_same_split(tmp_path, name, write, split):
    options = Options(root=str(write(tmp_path)))
    plain = open_split(get_reader(name), split, options)
    paths = prepare_indices(get_reader(name), options)
    assert all(path.is_file() for path in paths)
    assert not list(tmp_path.rglob("*.part"))
    prepared = open_split(get_reader(name), split, options)
    part = getattr(prepared, "parts", [prepared])[0]
    assert part.index.path is not None
    assert everything(prepared) == everything(plain)
    assert prepared.fingerprint() == plain.fingerprint()


def test_an_index_is_of_the_content_not_of_the_time(tmp_path):
    options = Options(root=str(trees.refcoco(tmp_path)))
    (path,) = prepare_indices(get_reader("refcoco"), options)
    filed = tmp_path / "refcoco/refs(unc).p"
    os.utime(filed, (1, 1))
    assert open_index(get_reader("refcoco"), tmp_path, "unc").path == path
    text = filed.read_bytes()
    filed.write_bytes(text.replace(b"right box", b"RIGHT box"))
    with pytest.warns(UserWarning, match="annotations have changed since"):
        index = open_index(get_reader("refcoco"), tmp_path, "unc")
    assert index.path is None
    assert "RIGHT box" in list(index.strings["text"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_indices(get_reader("refcoco"), options)
    assert open_index(get_reader("refcoco"), tmp_path, "unc").path == path


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"{}"])
def test_a_damaged_index_is_not_used(tmp_path, damage):
    options = Options(root=str(trees.refcoco(tmp_path)))
    (path,) = prepare_indices(get_reader("refcoco"), options)
    path.write_bytes(damage)
    with pytest.warns(UserWarning, match="not used"):
        assert len(open_split(get_reader("refcoco"), "train", options)) == 2


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("outline", 3, float("nan")),
        ("outline", 3, 1e9),
        ("outline.ends", 1, 3),
        ("text.ends", 1, 10**12),
        ("text.ends", 0, 1),
        ("image_size", 0, 2_000_000_000),
        ("image_size", 0, 0),
        ("target_image", 0, 77),
        ("target_split", 0, -1),
        ("target_sentences", 0, 10**6),
        ("target_annotations", 0, 10**9),
    ],
)
def test_an_index_that_was_tampered_with_never_reaches_the_mask_library(tmp_path, name, place, value):
    options = Options(root=str(trees.refcoco(tmp_path)))
    (path,) = prepare_indices(get_reader("refcoco"), options)
    index = Index.load(path)
    index.arrays[name] = index.arrays[name].copy()
    index.arrays[name][place] = value
    index.save(path)
    with pytest.warns(UserWarning, match="not used"):
        assert len(open_split(get_reader("refcoco"), "train", options)) == 2


def test_an_index_cut_short_is_not_used(tmp_path):
    options = Options(root=str(trees.refcoco(tmp_path)))
    (path,) = prepare_indices(get_reader("refcoco"), options)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="not used"):
        open_split(get_reader("refcoco"), "train", options)


def test_a_mapped_index_travels_as_its_path(tmp_path):
    options = Options(root=str(trees.refcoco(tmp_path)))
    plain = open_split(get_reader("refcoco"), "train", options)
    assert everything(pickle.loads(pickle.dumps(plain))) == everything(plain)
    prepare_indices(get_reader("refcoco"), options)
    mapped = open_split(get_reader("refcoco"), "train", options)
    again = pickle.loads(pickle.dumps(mapped))
    assert everything(again) == everything(plain)
    assert len(pickle.dumps(mapped.index)) < 500
    assert np.array_equal(again[0].load(), mapped[0].load())


def test_indices_may_lie_in_a_folder_of_their_own(tmp_path):
    root = trees.refcoco(tmp_path / "data")
    options = Options(root=str(root), prepared=str(tmp_path / "indices"))
    assert data_main(["prepare", "refcoco", "--root", str(root), "--prepared", str(tmp_path / "indices")]) == 0
    assert not list(root.rglob("*.index"))
    assert open_split(get_reader("refcoco"), "train", options).index.path.parent == tmp_path / "indices"


def test_nothing_to_prepare_says_what_is_needed(tmp_path):
    with pytest.raises(UserError, match=r"grefs\(unc\)\.json or grefs\(unc\)\.p and instances\.json"):
        data_main(["prepare", "grefcoco", "--root", str(tmp_path)])
    with pytest.raises(UserError, match=r"train\.jsonl or train\.csv"):
        data_main(["prepare", "folder", "--root", str(tmp_path)])


def test_units_that_are_there_are_prepared(tmp_path, capsys):
    trees.phrasecut(tmp_path)
    (tmp_path / "VGPhraseCut_v0/refer_train.json").unlink()
    assert data_main(["prepare", "phrasecut", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("phrasecut: ") == 3


def test_the_digest_is_of_the_content(tmp_path):
    one = open_index(get_reader("refcoco"), trees.refcoco(tmp_path / "a"), "unc")
    two = open_index(get_reader("refcoco"), trees.refcoco(tmp_path / "b"), "unc")
    assert one.digest == two.digest
    tables = json.loads((tmp_path / "b/refcoco/instances.json").read_text())
    tables["annotations"][0]["segmentation"][0][0] += 0.01
    (tmp_path / "b/refcoco/instances.json").write_text(json.dumps(tables))
    assert open_index(get_reader("refcoco"), tmp_path / "b", "unc").digest != one.digest


def test_an_empty_set_is_an_index_too(tmp_path):
    path = tmp_path / "x.index"
    index = Index.build([], [("7", "no reason")])
    index.save(path)
    assert Index.load(path).problems == [("7", "no reason")]
    assert Index.load(path).images == 0


def test_places_outside_a_split_are_index_errors(tmp_path):
    split = open_split(get_reader("refcoco"), "train", Options(root=str(trees.refcoco(tmp_path))))
    assert split[-1].image_id == split[1].image_id
    for place in (2, -3):
        with pytest.raises(IndexError):
            split[place]


def test_processes_that_prepare_at_once_do_not_disturb_each_other(tmp_path, monkeypatch):
    from safetensors import numpy as tensors

    path, save, index = tmp_path / "x.index", tensors.save_file, Index.build([], [])

    def as_another_process(arrays: dict, name: object, **more: dict) -> None:
        save(arrays, name, **more)
        monkeypatch.setattr(tensors, "save_file", save)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        index.save(path)

    monkeypatch.setattr(tensors, "save_file", as_another_process)
    index.save(path)
    assert Index.load(path).digest == index.digest
    assert [file.name for file in tmp_path.iterdir()] == ["x.index"]
