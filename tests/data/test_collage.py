"""Photographic collages: every sentence names exactly its targets, every machine makes the same images."""

from __future__ import annotations

import csv
import json
import os
import pickle
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from riszoo.data.collage import PLANS, CollageSplit
from riszoo.data.collage.library import FOLDERS, STAMPS, open_library
from riszoo.data.collage.nouns import plural_of, singular_of
from riszoo.data.collage.render import photographs
from riszoo.data.collage.split import VERSION
from riszoo.data.generated.guessing import guesses
from riszoo.data.generated.logic import bits
from riszoo.data.ground_truth import GroundTruth
from riszoo.errors import UserError
from riszoo.files import file_hash
from tests.support.collage_reader import read
from tests.support.cutouts import UNSEEN, cutout, draw_cutouts
from tests.support.scene_oracles import blind

GOLDEN_DRAWN = "2ba3d76bc16b81d0c13e98a9671907443a890f966670a4d8399269934580fa32-e02e654e9033d5a1"
GOLDEN_STAMPS = "e3b330ccc61b3ca621e3444bec35489f93661169e20aa2e9fb1aa699570efc4e-38c8765b26ab39b0"
"""A change of images, sentences or the table changes these: raise VERSION with them, and run every row again."""

IMAGES = 12
installed = next((folder for folder in FOLDERS if (Path(folder) / "animals/birds/owl.png").is_file()), "")
needs_stamps = pytest.mark.skipif(not installed, reason="the stamps of Tux Paint are not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(draw_cutouts(tmp_path_factory.mktemp("collage") / "cutouts"))


@pytest.mark.parametrize("name", PLANS)
def test_sentences_name_exactly_their_targets(name: str, folder: str) -> None:
    split = CollageSplit(name, cutouts=folder)
    plurals = dict(split.library.plurals)
    for image in range(IMAGES):
        scene, sentences = split.scene(image)
        for sentence in sentences:
            for jolt in (-0.03, 0.0, 0.03):
                assert read(sentence.text, scene, plurals, jolt) == set(bits(sentence.things)), sentence.text
            assert {*sentence.text.split()} <= {*split.vocabulary()}


def test_splits_contain_their_nouns_only(folder: str) -> None:
    for name in PLANS:
        split = CollageSplit(name, cutouts=folder)
        for image in range(IMAGES):
            scene, sentences = split.scene(image)
            targets = [scene.things[k] for sentence in sentences for k in bits(sentence.things)]
            if name == "unseen":
                assert {thing.values[0] for thing in targets} <= {*UNSEEN}
                continue
            assert not {thing.values[0] for thing in scene.things} & {*UNSEEN}
            assert not any(word in sentence.text.split() for sentence in sentences for word in UNSEEN)
            if name.startswith("test"):
                assert {"animal" in thing.values for thing in targets} == {name == "testA"}
                assert {"animal" in thing.values for thing in scene.things} == {True, False}


def test_an_image_depends_on_seed_split_and_index_only(folder: str) -> None:
    here = CollageSplit("val", 96, cutouts=folder)
    there = pickle.loads(pickle.dumps(here))
    first = [_everything(here, image) for image in (5, 900)]
    assert first == [_everything(there, image) for image in (900, 5)][::-1]
    assert first[0] != _everything(CollageSplit("val", 96, seed=1, cutouts=folder), 5)
    assert first[0] != _everything(CollageSplit("train", 96, cutouts=folder), 5)


def _everything(split: CollageSplit, image: int) -> tuple:
    record = split[image]
    masks = [target.segmentation.draw(GroundTruth()).tobytes() for target in record.targets]
    return [sentence for _, sentence in record.sentences()], masks, record.load().tobytes()


def test_golden_hash_of_drawn_cutouts(folder: str) -> None:
    assert CollageSplit("val", cutouts=folder).fingerprint() == GOLDEN_DRAWN


@needs_stamps
def test_golden_hash_of_the_stamps() -> None:
    assert CollageSplit("val", cutouts=installed).fingerprint() == GOLDEN_STAMPS


@pytest.mark.parametrize("size", [64, (97, 160), 384, "mixed"])
def test_any_size(size: int | tuple[int, int] | str, folder: str) -> None:
    record = CollageSplit("val", size, cutouts=folder)[1]  # type: ignore[arg-type]
    assert record.load().shape == (*record.size, 3)
    for target in record.targets:
        mask = target.segmentation.draw(GroundTruth())
        assert mask.shape == record.size
        assert 0.008 < mask.mean() < 0.2


def test_square_images_show_the_same_collage_at_every_size(folder: str) -> None:
    small, large = (CollageSplit("val", size, cutouts=folder) for size in (96, 384))
    for image in range(4):
        assert small.scene(image) == large.scene(image)
        for few, many in zip(small[image].targets, large[image].targets, strict=True):
            coarse, fine = few.segmentation.draw(GroundTruth()), many.segmentation.draw(GroundTruth())[2::4, 2::4]
            assert (coarse & fine).sum() / (coarse | fine).sum() > 0.85


@pytest.mark.parametrize("size", [64, 96, 192, 384])
def test_the_mask_is_where_the_object_is_opaque(size: int, folder: str) -> None:
    """The image with an object and the image without it differ inside the mask, and hardly outside of it."""
    split = CollageSplit("val", size, cutouts=folder)
    scene, _ = split.scene(3)
    foremost = len(scene.things) - 1
    without = type(scene)(scene.extent, scene.things[:-1], scene.chosen, scene.ground, scene.light)
    rendering = split.rendering(scene, (size, size))
    pixels, before = (split.rendering(one, (size, size)).pixels().astype(int) for one in (scene, without))
    mask = rendering.mask(1 << foremost)
    changed = np.abs(pixels - before).max(-1)
    assert (changed[mask] > 0).mean() > 0.97
    outside = changed[~mask]
    assert (outside == 0).mean() > 0.8, "a shadow and half of a soft edge are all that is outside"
    assert abs(mask.mean() - scene.things[foremost].area) < 0.01


def test_objects_remain_visible_behind_others(folder: str) -> None:
    split, touched = CollageSplit("train", 192, cutouts=folder), []
    for image in range(IMAGES):
        scene, _ = split.scene(image)
        owner = split.rendering(scene, (192, 192)).owner
        visible = np.bincount(owner.ravel(), minlength=len(scene.things) + 1)[1:] / 192**2
        share = visible / np.array([thing.area for thing in scene.things])
        assert share.min() > 0.6
        assert visible.min() > 0.01
        touched += list(share < 0.95)
    assert np.mean(touched) > 0.1


def test_a_cutout_is_decoded_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    open_library.cache_clear()
    split = CollageSplit("val", 64, cutouts=folder)
    for image in range(6):
        split[image].load()
    assert len(opened) == len(set(opened)) > 4


@pytest.mark.parametrize(("name", "most"), [("train", 0.25), ("testA", 0.26), ("unseen", 0.26), ("general", 0.28)])
def test_ignoring_the_sentence_scores_low(name: str, most: float, folder: str) -> None:
    assert blind(CollageSplit(name, cutouts=installed or folder), range(12), 120) <= most


@pytest.mark.parametrize("name", ["train", "testB", "unseen"])
def test_reading_only_the_noun_scores_low(name: str, folder: str) -> None:
    scores = guesses(CollageSplit(name, cutouts=installed or folder), range(20))
    assert statistics.mean(score for each in scores.values() for score in each) <= 0.6


# -- libraries --------------------------------------------------------------------------------------------------------


def test_names_of_files_and_folders_describe_cutouts_without_a_table(tmp_path: Path) -> None:
    for number, file in enumerate(
        ("animals/birds/owl-2.png", "animals/birds/sea_gull.png", "food/pie.png", "food/egg.png")
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cutout(number, 1)).save(tmp_path / file)
    library = open_library(str(tmp_path))
    assert [entry.names for entry in library.entries] == [
        ("owl", "bird", "animal"), ("sea gull", "bird", "animal"), ("egg", "food"), ("pie", "food"),
    ]  # fmt: skip
    assert len(library.unseen) == 1


def test_a_folder_named_after_anything_or_after_the_noun_is_no_kind(tmp_path: Path) -> None:
    for number, noun in enumerate(("owl", "egg", "pie", "cup")):
        folder = tmp_path / "objects" / f"{noun}s"
        folder.mkdir(parents=True)
        Image.fromarray(cutout(number, 1)).save(folder / f"{noun}-1.png")
    assert all(entry.kinds == () for entry in open_library(str(tmp_path)).entries)


def test_a_json_table_describes_cutouts(tmp_path: Path) -> None:
    folder = draw_cutouts(tmp_path / "cutouts")
    rows = list(csv.DictReader((folder / "cutouts.csv").open()))
    library = open_library(str(folder))
    (folder / "cutouts.csv").unlink()
    listed = [{**row, "kinds": row["kinds"].split(";")} for row in rows]
    (folder / "cutouts.json").write_text(json.dumps(listed))
    open_library.cache_clear()
    assert open_library(str(folder)).entries == library.entries
    (folder / "cutouts.json").write_text(json.dumps([*rows, {"file": "owl-1.png"}]))
    open_library.cache_clear()
    with pytest.raises(UserError, match=rf"cutouts\.json, row {len(rows) + 1} has no noun; it has file: give file and"):
        open_library(str(folder))


def test_a_table_is_read_whatever_its_capitals_and_blanks(tmp_path: Path) -> None:
    folder = draw_cutouts(tmp_path / "cutouts")
    plain = open_library(str(folder)).entries
    header, *rows = (folder / "cutouts.csv").read_text().splitlines()
    hashes = [file_hash(folder / row.split(",")[0]).upper() for row in rows]
    header = ", ".join(name.capitalize() for name in header.split(","))
    table = [
        f"{header}, Medium, SHA256",
        *(f"{row}, Photograph, {digest}" for row, digest in zip(rows, hashes, strict=True)),
    ]
    (folder / "cutouts.csv").write_text("\n".join(table))
    open_library.cache_clear()
    library = open_library(str(folder))
    assert [replace(entry, sha256="") for entry in library.entries] == list(plain)
    assert library.cutout(0).opaque
    Image.fromarray(cutout(0, 3)).save(folder / library.entries[1].file)
    with pytest.raises(UserError, match=r"differs from the file that the table describes: correct .*cutouts\.csv, or"):
        library.cutout(1)


def test_words_of_ones_own_table_have_no_capitals(tmp_path: Path) -> None:
    folder = draw_cutouts(tmp_path / "cutouts")
    plain = open_library(str(folder)).entries
    header, *rows = (folder / "cutouts.csv").read_text().splitlines()
    words = [",".join([cells[0], *map(str.capitalize, cells[1:])]) for cells in (row.split(",") for row in rows)]
    (folder / "cutouts.csv").write_text("\n".join([header, *words]))
    open_library.cache_clear()
    assert open_library(str(folder)).entries == plain


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,noun,kind", r"cutouts\.csv:2 has 'kind': did you mean 'kinds'\?"),
        ("file,noun,Noun", r"cutouts\.csv has two columns 'noun': keep one of them"),
    ],
)
def test_a_column_that_would_be_ignored_is_an_error(header: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "cutouts.csv").write_text(f"{header}\na.png,owl,bird\n")
    with pytest.raises(UserError, match=message):
        open_library(str(tmp_path))


def test_a_table_separated_otherwise_names_what_it_has(tmp_path: Path) -> None:
    folder = draw_cutouts(tmp_path / "cutouts")
    table = folder / "cutouts.csv"
    table.write_text(table.read_text().replace(",", ";"))
    with pytest.raises(UserError, match=r"cutouts\.csv:2 has no file; it has file;noun"):
        open_library(str(folder))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../owl.png,owl,bird,2,", "below the folder"),
        ("owl-1.png,owl <b>,bird,2,", "not a noun"),
        ("owl-1.png,owl,objects,2,", "sentences say 'objects' of anything"),
        ("owl-1.png,Thing,bird,2,", "sentences say 'thing' of anything"),
        ("owl-1.png,owl,bird,animal,2,", r"cutouts\.csv:\d+ has 6 cells for 5 columns: quote a cell with a comma"),
        (",owl,bird,2,", r"cutouts\.csv:\d+ has no file: give file and noun of each cut-out"),
        ("owl-1.png,owl,bird,9,", "from 1 to 5"),
        ("gone.png,owl,bird,2,", r"gone\.png is missing: correct .*cutouts\.csv, or the file"),
    ],
)
def test_a_wrong_table_is_an_error_that_names_the_row(row: str, message: str, tmp_path: Path) -> None:
    folder = draw_cutouts(tmp_path / "cutouts")
    with (folder / "cutouts.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(UserError, match=message):
        open_library(str(folder))


def test_broken_and_changed_images_are_errors(tmp_path: Path) -> None:
    folder = draw_cutouts(tmp_path / "cutouts")
    library = open_library(str(folder))
    (folder / library.entries[0].file).write_bytes(b"not an image")
    with pytest.raises(UserError, match="cannot be read as a cut-out"):
        library.cutout(0)
    Image.new("RGBA", (20, 20)).save(folder / library.entries[1].file)
    with pytest.raises(UserError, match="no opaque pixels"):
        library.cutout(1)


def test_no_cutouts_and_unknown_splits_are_errors_that_say_what_to_do(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"at /nowhere: .*apt-get install tuxpaint-stamps-default"):
        CollageSplit("val", cutouts="/nowhere")
    monkeypatch.setenv("RISZOO_CUTOUTS", "/gone")
    with pytest.raises(UserError, match="no folder of cut-outs at /gone, which RISZOO_CUTOUTS names: "):
        CollageSplit("val")
    assert CollageSplit("val", cutouts=folder).cutouts == folder
    with pytest.raises(UserError, match=r"no split 'vall': did you mean 'val'"):
        CollageSplit("vall", cutouts=folder)


def test_photographs_can_be_the_ground(folder: str, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (10, 200, 30)).save(tmp_path / "lawn.png")
    record = CollageSplit("val", 96, cutouts=folder, grounds=str(tmp_path))[0]
    assert (record.load() == (10, 200, 30)).all(-1).mean() > 0.2
    with pytest.raises(UserError, match="no photographs"):
        CollageSplit("val", cutouts=folder, grounds="/nowhere")


def test_folders_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lawns").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "lawns" / "lawn.png")
    draw_cutouts(tmp_path / "cutouts")
    split = CollageSplit("val", 96, cutouts="~/cutouts", grounds="~/lawns")
    assert split.cutouts == str(tmp_path / "cutouts")
    assert split[0].load().shape == (96, 96, 3)


def test_an_image_has_another_version_when_a_file_without_a_hash_changes(tmp_path: Path) -> None:
    cutouts, lawn = draw_cutouts(tmp_path / "cutouts"), tmp_path / "grounds" / "lawn.png"
    lawn.parent.mkdir()
    Image.new("RGB", (30, 20)).save(lawn)
    options = {"cutouts": str(cutouts), "grounds": str(lawn.parent)}
    versions = [version_of(**options)]
    for file in (cutouts / "owl-1.png", lawn):
        os.utime(file, ns=(1, 1))
        versions.append(version_of(**options))
    (lawn.parent / "field.png").write_bytes(lawn.read_bytes())
    versions.append(version_of(**options))
    assert len(set(versions)) == 4
    assert versions[-1] == version_of(**options), "nothing has changed"


def test_files_that_a_table_fixes_are_not_looked_at(tmp_path: Path) -> None:
    folder = draw_cutouts(tmp_path / "cutouts")
    rows = list(csv.DictReader((folder / "cutouts.csv").open()))
    table = [{**row, "sha256": file_hash(folder / row["file"])} for row in rows]
    (folder / "cutouts.csv").unlink()
    (folder / "cutouts.json").write_text(json.dumps(table))
    before = version_of(cutouts=str(folder))
    os.utime(folder / "owl-1.png", ns=(1, 1))
    assert version_of(cutouts=str(folder)) == before
    assert before == f"{VERSION} collage0-val-00003 (96, 96) {open_library(str(folder)).digest} None"


def version_of(**options: str) -> str:
    """The version of an image in a new process."""
    open_library.cache_clear()
    photographs.cache_clear()
    return CollageSplit("val", 96, **options).image_version(3)  # type: ignore[arg-type]


def test_plurals() -> None:
    words = ("owl", "fox", "sea lion", "strawberry", "toy", "big fish", "mouse")
    assert [plural_of(word) for word in words] == [
        "owls", "foxes", "sea lions", "strawberries", "toys", "big fish", "mice",
    ]  # fmt: skip
    words += ("cookie", "lens", "clothes", "christmas", "rhinoceros", "shelf")
    words += ("animal", "box", "glass", "horse", "pie", "peach", "bus", "zebra", "person", "tomato")
    assert [singular_of(plural_of(word)) for word in words] == list(words)
    assert [singular_of(word) for word in words] == list(words)


def test_the_table_of_stamps_is_complete() -> None:
    rows = list(csv.DictReader(STAMPS.open()))
    photographs = [row for row in rows if row["medium"] == "photograph"]
    assert 130 <= len(photographs) <= 240
    assert {row["medium"] for row in rows} == {"photograph", "drawing"}
    assert all(len(row["sha256"]) == 64 and row["noun"] and row["plural"] for row in rows)
    nouns = {row["noun"]: row["kinds"] for row in photographs}
    assert all(nouns[row["noun"]] == row["kinds"] for row in photographs), "a noun has one list of kinds"
    unseen = {row["noun"] for row in photographs if row["unseen"]}
    assert all(bool(row["unseen"]) == (row["noun"] in unseen) for row in photographs)
    assert not unseen & {kind for row in photographs for kind in row["kinds"].split(";")}


@needs_stamps
def test_the_installed_stamps_are_those_of_the_table() -> None:
    library = open_library(installed)
    for index, entry in enumerate(library.entries):
        height, width = library.cutout(index).size
        assert max(height, width) <= 512, entry.file


def test_a_table_as_spreadsheets_save_it(tmp_path: Path) -> None:
    folder = draw_cutouts(tmp_path / "cutouts")
    table = folder / "cutouts.csv"
    plain = open_library(str(folder)).entries
    table.write_text(table.read_text(), encoding="utf-8-sig")
    open_library.cache_clear()
    assert open_library(str(folder)).entries == plain


@pytest.mark.parametrize(("value", "unseen"), [("yes", True), ("Yes", True), (True, True), (False, False), ("", False)])
def test_a_noun_is_held_out_however_yes_is_written(tmp_path: Path, value: object, unseen: bool) -> None:
    names = ("owl", "pie", "egg", "cat", "dog")
    for number, name in enumerate(names):
        Image.fromarray(cutout(number, 1)).save(tmp_path / f"{name}.png")
    rows = [{"file": f"{name}.png", "noun": name, "unseen": "no"} for name in names]
    (tmp_path / "cutouts.json").write_text(
        json.dumps([*rows[:3], {**rows[3], "unseen": "true"}, {**rows[4], "unseen": value}])
    )
    assert ("dog" in open_library(str(tmp_path)).unseen) == unseen
    (tmp_path / "cutouts.json").write_text(json.dumps([*rows[:4], {**rows[4], "unseen": "maybe"}]))
    open_library.cache_clear()
    with pytest.raises(UserError, match=r"cutouts\.json, row 5: unseen is 'maybe': write yes or no"):
        open_library(str(tmp_path))
