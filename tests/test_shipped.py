"""Weights that riszoo ships: packed from a run, found by name, measured and validated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import riszoo
from riszoo import recipes, shipped
from riszoo.bench import rows
from riszoo.bench.html.evaluated import find_run
from riszoo.bench.plan import Job
from riszoo.cli.help import doctor
from riszoo.cli.main import main
from riszoo.errors import UserError
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint, read_checkpoint
from riszoo.training.exchange import TRAINER_STATE
from tests.support.small_run import scene, small_run

IMAGES = torch.arange(5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose checkpoint contains the hashes of its training images, as those of trainings do."""
    folder = small_run(tmp_path_factory.mktemp("trained"))
    content = torch.load(runs.checkpoint(folder), weights_only=True)
    content |= TRAINER_STATE
    content["riszoo"] |= {"trained_on": IMAGES, "run": {"model": "lts", "data": "scenes", "scale": "tiny"}}
    torch.save(content, runs.checkpoint(folder))
    card = json.loads((folder / runs.CARD).read_text()) | {"command": "riszoo fit --model lts"}
    (folder / runs.CARD).write_text(json.dumps(card))
    (folder / "config.yaml").write_text("seed_everything: 3\ntrainer: {max_steps: 7}\nmodel: {}\n")
    return folder


@pytest.fixture(scope="module")
def packed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's weights in half precision."""
    path = tmp_path_factory.mktemp("packed") / "lts.safetensors"
    assert main(["convert", str(run), "--half", "--out", str(path)]) == 0
    return path


@pytest.fixture
def only_shipped(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation that ships these weights and no others."""
    monkeypatch.setattr(shipped, "folder", lambda: packed.parent)
    return packed


def test_a_packed_run_is_the_same_model_in_half_precision(run: Path, packed: Path) -> None:
    original, half = (read_checkpoint(path) for path in (runs.checkpoint(run), packed))
    assert half["hyper_parameters"] == original["hyper_parameters"]
    assert torch.equal(half["riszoo"]["trained_on"], IMAGES)
    assert half["riszoo"]["config"] == {"seed_everything": 3, "trainer": {"max_steps": 7}}
    for name, value in original["state_dict"].items():
        rounded = value.half() if value.is_floating_point() and value.ndim > 1 else value
        assert half["state_dict"][name].dtype == rounded.dtype
        assert torch.equal(half["state_dict"][name], rounded)
    loaded = from_checkpoint(packed).state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(loaded[name], value.to(loaded[name])) for name, value in half["state_dict"].items())


def test_a_run_is_packed_without_loss_unless_half_precision_is_asked_for(run: Path) -> None:
    assert main(["convert", str(run), "--out", "new/full.safetensors"]) == 0
    one, other = (read_checkpoint(path)["state_dict"] for path in (runs.checkpoint(run), Path("new/full.safetensors")))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_values_that_half_precision_cannot_represent_are_reported(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(runs.checkpoint(run), weights_only=True)
    name = next(name for name, value in content["state_dict"].items() if value.ndim > 1)
    content["state_dict"][name] = content["state_dict"][name] + 1e6
    torch.save(content, "large.ckpt")
    assert main(["convert", "large.ckpt", "--half", "--out", "half.safetensors"]) == 2
    assert f"{name} has values that half precision cannot represent" in capsys.readouterr().err


def test_shipped_weights_are_used_until_there_is_a_run(
    only_shipped: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    riszoo.load("lts")
    assert capsys.readouterr().err == (
        f"riszoo: weights of {only_shipped} (shipped with riszoo, scale tiny, 1970-01-01)\n"
    )
    shutil.copytree(run, Path("runs") / run.name)
    own = runs.checkpoint(Path("runs") / run.name)
    riszoo.load("lts")
    assert capsys.readouterr().err == f"riszoo: weights of {own} (scale tiny, 1970-01-01)\n"
    assert runs.chosen("best", Path("runs"), "lts", "scenes") == own
    assert runs.chosen("shipped", Path("runs"), "lts", "scenes") == only_shipped


@pytest.mark.parametrize(
    ("given", "model", "data", "message"),
    [
        (None, "lts", "refcoco", "no run of 'lts' on 'refcoco' with a best checkpoint"),
        (None, "my.module.Lts", "scenes", "no run of 'my.module.Lts'"),
        ("best", "lts", "scenes", "no run of 'lts' on 'scenes'"),
        ("shipped", "vipa", "scenes", "riszoo ships no weights of 'vipa' on 'scenes'"),
        ("shiped", "lts", "scenes", "checkpoint shiped is not a file"),
    ],
)
def test_weights_that_do_not_exist_are_reported(
    given: str | None, model: str, data: str, message: str, only_shipped: Path
) -> None:
    with pytest.raises(UserError, match=message):
        runs.chosen(given, Path("runs"), model, data)


def test_an_example_is_segmented_without_a_run(only_shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "--model", "lts", "--example", "--json"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) >= 4
    assert said.err.count("shipped with riszoo") == 1


def test_an_example_needs_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["segment", "--example"]) == 0
    assert "risam.safetensors" in capsys.readouterr().err
    assert list(Path("segmented").glob("*.png"))


def test_shipped_weights_are_tested_and_their_results_can_be_compared(
    only_shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--split", "val", "--data.test_images", "2", "--data.workers", "0", "--run.images", "0"]
    assert main(["test", "--model", "lts", *options, "--trainer.accelerator", "cpu"]) == 0
    assert "shipped with riszoo, scale tiny" in capsys.readouterr().out
    (results,) = Path("runs").glob("lts-scenes-*/test-scenes-*")
    about = json.loads((results / "run.json").read_text())
    assert about["checkpoint"]["path"] == str(only_shipped)
    assert about["images_trained_on"] == {"val": 0}
    found = find_run(results)
    assert found.name == "lts"
    assert found.split("val").name == "val"
    row = rows.measured(Job("lts", "scenes", "tiny"), results)[0][0]
    assert row["training_command"] == "riszoo fit --model lts", "the row says how the weights were trained"
    assert runs.find_newest(Path("runs"), "lts", "scenes", "best") is None, "a test is not a training"


# -- damaged files ----------------------------------------------------------------------------------------------------


def _rewritten(packed: Path, path: Path, **changes: Any) -> None:
    """Write the packed file with another entry of its metadata."""
    about = shipped.metadata(packed)
    about["riszoo"].update(changes)
    save_file(load_file(packed), path, {shipped.METADATA: json.dumps(about)})


def _flipped(packed: Path, path: Path) -> None:
    content = bytearray(packed.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Any, str]] = {
    "truncated": (lambda p, path: path.write_bytes(p.read_bytes()[:-9]), "cannot be read as safetensors"),
    "empty": (lambda p, path: path.write_bytes(b""), "cannot be read as safetensors"),
    "git-lfs": (
        lambda _, path: path.write_text("version https://git-lfs.github.com/"),
        "is a git-lfs pointer",
    ),
    "a changed bit": (_flipped, "are not those that were written"),
    "another hash": (lambda p, path: _rewritten(p, path, sha256="0"), "are not those that were written"),
    "another class": (lambda p, path: _rewritten(p, path, class_path="os.path.join"), "is not the class of a recipe"),
    "not JSON": (lambda p, path: save_file(load_file(p), path, {"riszoo": "{"}), "cannot be read as safetensors"),
    "deep JSON": (lambda p, path: save_file(load_file(p), path, {"riszoo": "[" * 9**6}), "cannot be read"),
    "a list": (lambda p, path: save_file(load_file(p), path, {"riszoo": "[]"}), "lacks the model's class"),
    "no class": (lambda p, path: save_file(load_file(p), path, {"riszoo": "{}"}), "lacks the model's class"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_one_sentence(damage: str, packed: Path, tmp_path: Path) -> None:
    make, message = DAMAGE[damage]
    make(packed, tmp_path / "lts.safetensors")
    with pytest.raises(UserError, match=message) as caught:
        from_checkpoint(tmp_path / "lts.safetensors")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("card", [None, [], {"model": "lts"}, {"model": 1, "data": "scenes", "scale": "tiny"}])
def test_a_file_that_does_not_say_how_it_was_trained_is_not_shipped(
    card: Any, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _rewritten(packed, tmp_path / "lts.safetensors", card=card)
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path)
    scene().save("a.png")
    assert main(["segment", "--model", "lts", "--image", "a.png", "--text", "the star"]) == 2
    assert "does not say how it was trained" in capsys.readouterr().err


# -- the files themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped.files())
def test_a_shipped_file_is_a_small_model_of_its_recipe(name: str) -> None:
    path = shipped.files()[name]
    assert path.stat().st_size < 8e6
    assert shipped.find(name, "scenes") == path
    assert read_checkpoint(path)["riszoo"]["class_path"] == recipes.get("models", name).content["class_path"]
    model = from_checkpoint(path, name)
    assert len(model.hparams["text"]["vocabulary"]) > 50


def test_list_and_doctor_name_the_shipped_weights(only_shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "lts               trained on scenes, scale tiny, 1970-01-01, " in capsys.readouterr().out
    (finding,) = doctor.shipped_weights()
    assert str(finding) == f"ok    weights   {only_shipped.parent}: lts on scenes (shipped)"


def test_doctor_reports_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lts.safetensors").write_bytes(b"version https://git-lfs")
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path)
    fault, rest = doctor.shipped_weights()
    assert fault.fault
    assert "lts.safetensors is a git-lfs pointer" in fault.text
    assert rest.text == f"{tmp_path}: none (shipped)"


def test_an_installed_package_finds_its_recipes_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that the wheel includes are those where an installed riszoo looks."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    root = Path(recipes.__file__).parents[1]
    target = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, included in target["force-include"].items():
        (tmp_path / included).parent.mkdir(exist_ok=True)
        (tmp_path / included).symlink_to(root / source)
    (package,) = target["packages"]
    for module in (recipes, shipped):
        monkeypatch.setattr(module, "__file__", str(tmp_path / package / "module.py"))
    (found,) = recipes.folders.__wrapped__()  # without its cache
    assert (found / "models" / "lts.yaml").is_relative_to(tmp_path)
    assert (found / "models" / "lts.yaml").is_file()
    assert shipped.folder().is_relative_to(tmp_path)
    assert {"lts", "risam", "vipa"} <= set(shipped.files())
