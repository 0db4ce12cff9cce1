"""`predict`, then `score`, is `test`: through the command line, on images of the user's own."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riszoo import recipes
from riszoo.cli.main import main
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.scenes import ScenesSplit
from tests.support.zoo import TOY

ROOT = "own"
UNSAFE_IDS = ["../../../x", "con"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six images, a small LTS trained on it for two steps, its test results and its predictions."""
    place = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for split, images in (("train", range(4)), ("val", range(4, 6))):
            write_split(Path(ROOT), split, images)
        settings = {**TOY, "fusion": {"width": 16}, "segment": {"width": 16}, "optim": {"lr": 0.0}}
        common = ["--model", "lts", "--data", "folder", "--scale", "tiny", "--data.root", ROOT, "--data.workers", "0",
                  "--trainer.enable_progress_bar", "false", "--run.images", "0"]  # fmt: skip
        config = json.dumps({"model": {"init_args": settings}, "data": {"init_args": {"batch_size": 4}}})
        assert main(["fit", *common, "--config", config, "--trainer.max_epochs", "1"]) == 0
        for verb, protocols in (("test", "original,lavt480"), ("predict", "original")):
            assert main([verb, *common, "--protocol", protocols]) == 0
    return place


def write_split(root: Path, name: str, images: range) -> None:
    root.mkdir(exist_ok=True)
    lines = []
    for number in images:
        record = ScenesSplit("train", (64, 80 + number))[number]  # no two of a size
        Image.fromarray(record.load()).save(root / f"{number}.png")
        for place, target in enumerate(record.targets):
            mask = f"{number}-{place}-mask.png"
            Image.fromarray(target.segmentation.draw(GroundTruth()).astype(np.uint8) * 255).save(root / mask)
            texts = [sentence.text for sentence in target.sentences]
            row = {"image": f"{number}.png", "sentence": texts, "mask": mask}
            lines.append({**row, "id": UNSAFE_IDS[place]} if number == 4 and place < len(UNSAFE_IDS) else row)
    (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def here(done: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(done)
    return done


def only(pattern: str) -> Path:
    (found,) = Path("runs").glob(pattern)
    return found


def scored(out: Path, predictions: Path, *words: str) -> dict[str, Any]:
    line = ["score", "--predictions", str(predictions), "--data", "folder", "--root", ROOT, "--out", str(out), *words]
    assert main(line) == 0
    return dict(json.loads((out / "metrics.json").read_text()))


@pytest.mark.parametrize("kind", ["val", "val.json"])
def test_predict_then_score_is_test(kind: str, here: Path, tmp_path: Path) -> None:
    got = scored(tmp_path / "out", only("*/predict-folder-*") / kind)["splits"]["val"]["protocols"]["original"]
    want = json.loads((only("*/test-folder-*") / "metrics.json").read_text())["splits"]["val"]["protocols"]["original"]
    assert want["values"]["n"] > 0
    assert got["values"] == want["values"]
    assert got["by_type"] == want["by_type"]


def test_results_of_another_split_are_not_replaced(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = only("*/predict-folder-*") / "val"
    scored(tmp_path, masks)
    scored(tmp_path, masks)  # the same split again
    metrics = (tmp_path / "metrics.json").read_text()
    line = ["score", str(masks), "--data", "folder", "--root", ROOT, "--split", "train", "--out", str(tmp_path)]
    assert main(line) == 2
    assert f"{tmp_path} has the results of val: name another folder with --out" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").read_text() == metrics
    (tmp_path / "metrics.json").write_text("{")
    scored(tmp_path, masks)  # over what nobody can read


def test_results_of_other_masks_are_not_replaced(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, copies = only("*/predict-folder-*") / "val", [tmp_path / f"vipa-0.{number}" for number in (5, 6)]
    for copy in copies:
        shutil.copytree(masks, copy)
        assert main(["score", str(copy), "--data", "folder", "--root", ROOT]) == 0
        assert (tmp_path / f"{copy.name}-score" / "metrics.json").is_file()
    scored(tmp_path / "out", copies[0])
    line = ["score", str(copies[1]), "--data", "folder", "--root", ROOT, "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert main(line) == 2
    assert f"{tmp_path / 'out'} has the results of {copies[0]}: name another folder" in capsys.readouterr().err


def test_predicted_files_stay_in_their_folder_whatever_the_ids(here: Path) -> None:
    folder = only("*/predict-folder-*")
    entries = json.loads((folder / "val.json").read_text())
    assert {entry["id"] for entry in entries} > {"../../../x.0", "con.0"}
    assert {entry["file"] for entry in entries} == {path.name for path in (folder / "val").iterdir()}
    assert {path.name for path in folder.iterdir()} == {"val", "val.json"}
    assert not list(here.glob("**/x.0.png"))


def test_predictions_of_another_split_are_refused_before_an_image_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ids of generated sentences are known without them; a split has tens of thousands of images."""
    monkeypatch.setattr(ScenesSplit, "scene", lambda *_: pytest.fail("a scene is drawn"))
    Path("masks").mkdir()
    Image.new("L", (96, 96)).save("masks/stranger.png")
    assert main(["score", "masks", "--data", "scenes"]) == 2
    assert "its ids are such as stranger, and the split's are such as scenes0-val-00000-0" in capsys.readouterr().err


def test_other_protocols_are_counted_in_the_same_pass(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = scored(tmp_path / "out", only("*/predict-folder-*") / "val", "--protocol", "original,lavt480")
    assert set(got["splits"]["val"]["protocols"]) == {"original", "lavt480"}
    said = capsys.readouterr().out
    assert "lavt480: LAVT" in said
    assert "have no prediction" not in said


def test_a_folder_may_be_the_current_one(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(only("*/predict-folder-*") / "val", masks)
    header = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    bomb = min(masks.iterdir())
    bomb.write_bytes(header)  # which asks for 900 MB
    root = Path(ROOT).resolve()
    monkeypatch.chdir(masks)
    assert main(["score", ".", "--data", "folder", "--root", str(root)]) == 0
    assert json.loads((tmp_path / "masks-score" / "run.json").read_text())["unusable"] == 1


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_missing_extra_and_wrongly_sized_masks_are_counted_and_named(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(only("*/predict-folder-*") / "val", masks)
    first, second, *_ = sorted(path.name for path in masks.iterdir())
    (masks / first).rename(masks / "stranger.png")
    Image.new("L", (3, 3)).save(masks / second)
    scored(tmp_path / "out", masks)
    said = capsys.readouterr().out
    assert f"1 sentences have no prediction and count as IoU 0: {first.removesuffix('.png')}\n" in said
    assert (
        f"1 sentences have a prediction that cannot be used and count as IoU 0: {second.removesuffix('.png')}" in said
    )
    assert "1 sentences are not in the split; their predictions are ignored: stranger" in said
    stated = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (stated["missing"], stated["unusable"], stated["unexpected"]) == (1, 1, 1)


def test_predictions_of_which_none_can_be_used_are_an_error_with_the_reasons(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, out = tmp_path / "masks", tmp_path / "out"
    shutil.copytree(only("*/predict-folder-*") / "val", masks)
    score = ["score", str(masks), "--data", "folder", "--root", ROOT, "--out", str(out)]
    for path in masks.iterdir():
        Image.new("L", (3, 3)).save(path)
    assert main(score) == 2
    assert ", 3.0: 3 x 3 pixels, its image 84 x 64, " in capsys.readouterr().err
    for path in masks.iterdir():
        path.write_text("not an image")
    assert main(score) == 2
    assert "3.0: the file is not a readable image, " in capsys.readouterr().err
    for path in masks.iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    assert main(score) == 2
    complaint = capsys.readouterr().err
    assert "no prediction in" in complaint
    assert "its ids are such as other-3.0," in complaint
    assert "the split's are such as ../../../x.0, " in complaint
    assert len(complaint) < 400
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the masks to score"),
        (["nowhere"], "nowhere cannot be read"),
        (["empty"], "empty contains no predictions"),
        (["nowhere", "--data", "scene"], "did you mean 'scenes'"),
        (["nowhere", "--data", "folder", "--root", "gone"], "not found in gone"),
        (["nowhere", "--data", "scenes", "--split", "vall"], "val"),
        (["nowhere", "--protocol", "orginal"], "did you mean 'original'"),
        (["nowhere", "--protocol", "published"], "give the name of a protocol instead"),
        (["nowhere", "--fast"], "unrecognized arguments: --fast"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["score", *words]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert message in complaint


def test_the_sections_of_a_recipe_are_its_scales() -> None:
    """A citation under the key of a scale once made that scale unknown."""
    assert recipes.get("models", "lts").scales[:2] == ["paper", "tiny"]
    for name in recipes.names("models", plugins=False):
        recipe = recipes.get("models", name)
        assert recipe.scales, name
        for scale in recipe.scales:
            assert isinstance(recipe.content[scale], dict), f"{name}: {scale}"
