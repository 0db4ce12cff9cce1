"""The command line in process: every verb, names in every form, and one sentence for every user error."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from riszoo import recipes
from riszoo.bench.html.evaluated import EvaluatedRun
from riszoo.cli.main import VERBS, main
from riszoo.cli.request import Request
from riszoo.errors import UserError
from riszoo.training.checkpoints import model_section, read_checkpoint

SMALL = [
    "--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--data.val_images", "2",
    "--data.eval_images", "2", "--data.batch_size", "4", "--data.total_batch_size", "4",
    "--data.sentences_per_image", "2", "--data.workers", "0", "--trainer.enable_progress_bar", "false",
    "--trainer.limit_val_batches", "2", "--trainer.limit_test_batches", "2", "--trainer.limit_predict_batches", "2",
]  # fmt: skip
FEW = [*SMALL[6:], "--split", "val"]


def only_run(root: Path = Path("runs")) -> Path:
    (run,) = root.iterdir()
    return run


def result(run: Path, verb: str) -> dict[str, Any]:
    (folder,) = run.glob(f"{verb}-scenes-*")
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one short training, shared by the tests."""
    root = tmp_path_factory.mktemp("trained") / "runs"
    assert main(["fit", "--model", "lts", "--run.root", str(root), *SMALL]) == 0
    return root


def test_fit_writes_a_run_folder(trained: Path) -> None:
    run = only_run(trained)
    card = json.loads((run / "run.json").read_text())
    assert (card["model"], card["data"], card["scale"]) == ("lts", "scenes", "tiny")
    assert card["training"]["sentences"] == 8
    assert {"commit", "versions", "device", "seed", "command"} <= card.keys()
    assert "cache_features" not in card
    assert yaml.safe_load((run / "config.yaml").read_text())["run"]["model"] == "lts"
    assert (run / "metrics.csv").read_text().startswith("epoch")
    assert (run / "checkpoints" / "last.ckpt").is_file()
    (folder,) = run.glob("validate-scenes-*")
    assert len(list((folder / "images").glob("*.png"))) == 4
    assert not list(run.rglob("*.partial"))


def test_runs_are_looked_for_where_a_configuration_has_them(trained: Path) -> None:
    config = json.dumps({"run": {"root": str(trained)}})
    for options, root in (([], trained), (["--run.root", "elsewhere"], None)):
        argv = ["--model", "lts", "--ckpt_path", "best", "--config", config, *options]
        if root is None:
            with pytest.raises(UserError, match="elsewhere"):
                Request.read("test", argv)
        else:
            assert Request.read("test", argv).checkpoint == only_run(root) / "checkpoints" / "best.ckpt"


def test_a_report_draws_what_the_test_measured(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / only_run(trained).name
    shutil.copytree(only_run(trained), run)
    file = str(run / "checkpoints" / "best.ckpt")
    assert main(["test", "--model", "lts", "--ckpt_path", file, *FEW, "--data.image_size", "80"]) == 0
    (folder,) = run.glob("test-scenes-*")
    assert EvaluatedRun("lts", folder).split("val")[0].size == (80, 80)
    card = json.loads((folder / "run.json").read_text())
    card["data_section"]["init_args"]["image_size"] = 96
    (folder / "run.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="split 'val' is not the one that"):
        EvaluatedRun("lts", folder).split("val")


def test_a_checkpoint_opens_with_weights_only_and_contains_its_vocabulary(trained: Path) -> None:
    content = torch.load(only_run(trained) / "checkpoints" / "best.ckpt", weights_only=True)
    assert "triangle" in content["hyper_parameters"]["text"]["vocabulary"]
    assert content["riszoo"]["class_path"] == "riszoo.models.lts.LTS"
    assert len(content["riszoo"]["trained_on"]) == 60_000


def test_the_newest_run_is_tested(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["test", "--model", "lts", "--run.root", str(trained), *FEW, "--protocol", "original,lavt480"]
    assert main([*argv, "--control", "constant"]) == 2
    assert "the decoder of LTS has no keys and values" in capsys.readouterr().err
    assert main([*argv, "--control", "none,shuffled"]) == 0
    output = capsys.readouterr().out
    assert "best.ckpt" in output
    assert "language gap on val" in output
    splits = result(only_run(trained), "test")["splits"]
    assert set(splits) == {"val", "val-shuffled"}
    assert set(splits["val"]["protocols"]) == {"original", "lavt480"}
    assert splits["val"]["sentences"] == 12, "two batches of two images, each with three sentences"
    (folder,) = only_run(trained).glob("test-scenes-*")
    run = json.loads((folder / "run.json").read_text())
    assert run["images_trained_on"] == {"val": 0}
    assert len(run["checkpoint"]["sha256"]) == 64


def test_a_training_without_loggers() -> None:
    assert main(["fit", "--model", "lts", *SMALL, "--trainer.logger", "false"]) == 0
    assert (only_run() / "checkpoints" / "best.ckpt").is_file()
    assert not (only_run() / "metrics.csv").exists()


def test_results_go_to_a_folder_of_their_own_where_the_run_cannot_be_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = only_run(trained)
    before = sorted(run.iterdir())
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run and access(path, mode))
    own = ["--run.root", str(tmp_path / "own")]
    assert main(["validate", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *own, *FEW]) == 0
    assert sorted(run.iterdir()) == before
    assert result(only_run(tmp_path / "own"), "validate")["splits"].keys() == {"val"}


def test_predict_writes_masks(trained: Path) -> None:
    assert main(["predict", "--model", "lts", "--run.root", str(trained), *FEW]) == 0
    (folder,) = only_run(trained).glob("predict-scenes-*")
    entries = json.loads((folder / "val.json").read_text())
    assert len(entries) == 12
    assert {"id", "text", "segmentation", "bbox", "score"} <= entries[0].keys()
    mask = np.array(Image.open(folder / "val" / f"{entries[0]['id']}.png"))
    assert mask.shape == (96, 96)
    assert set(np.unique(mask)) <= {0, 255}


def test_training_continues_in_its_folder_with_its_saved_options(
    trained: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    shutil.copytree(trained, "runs")
    assert main(["fit", "--model", "lts", "--ckpt_path", "last", "--trainer.max_steps", "3"]) == 0
    run = only_run()
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    output = capsys.readouterr().out
    assert "changed from the saved configuration: trainer.max_steps 2 -> 3\n" in output
    assert "continuing from step 2 of 3\n" in output
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["batch_size"] == 4
    about = [str(warning.message) for warning in recwarn if "dirpath" in str(warning.message)]
    assert about == [], "the folder of the checkpoints is the one that the user knows"


def test_a_saved_configuration_can_be_run_again(trained: Path, tmp_path: Path) -> None:
    config = min(trained.iterdir()) / "config.yaml"
    assert main(["fit", "--config", str(config), "--run.root", "again", "--model.optim.lr", "0.01"]) == 0
    saved = yaml.safe_load((only_run(tmp_path / "again") / "config.yaml").read_text())
    first = yaml.safe_load(config.read_text())
    assert saved["run"]["model"] == "lts"
    assert saved["model"]["init_args"].pop("optim")["lr"] == 0.01
    first["model"]["init_args"].pop("optim")
    assert saved["model"] == first["model"]
    assert saved["data"]["init_args"]["total_batch_size"] == 4


def test_a_class_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    Path("toy.yaml").write_text(
        "model:\n  class_path: tests.support.toys.Taps\n  init_args:\n    size: 64\n"
        "    vision: {name: resnet18, stages: 3,"
        " options: {channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}}\n    text: {options: {embedding: 8, width: 8}}\n"
    )
    assert main(["fit", "--config", "toy.yaml", "--data.train_split", "general-train", *SMALL]) == 0
    assert "toy" in str(only_run()) or "taps" in str(only_run())


def test_names_inside_yaml() -> None:
    Path("mine.yaml").write_text("model: lts\ndata: scenes\ntrainer: {max_steps: 7}\n")
    request = Request.read("fit", ["--config", "mine.yaml", "--model.optim.lr", "1"])
    assert (request.model, request.data, request.scale) == ("lts", "scenes", "tiny")
    words = request.argv
    assert words[0] == "fit"
    first = json.loads(words[words.index("--config") + 1])
    assert first["model"]["class_path"] == "riszoo.models.lts.LTS", "the recipe directly follows the verb"
    assert words[-2:] == ["--model.optim.lr", "1"]
    Path("mine.yaml").write_text("model: {class_path: lts, init_args: {size: 64}}\n")
    assert Request.read("fit", ["--config", "mine.yaml"]).base[1] == {"model": {"init_args": {"size": 64}}}


def test_print_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--model", "lts", "--print_config", "--model.optim.lr", "0.5"])
    assert stop.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"] == "riszoo.models.lts.LTS"
    assert printed["model"]["init_args"]["optim"]["lr"] == 0.5
    assert printed["trainer"]["max_steps"] == 96_000 // 64


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fti"], "did you mean 'fit'"),
        (["fit"], "name a model"),
        (["fit", "--model", "ltz"], "did you mean 'lts'"),
        (["fit", "--model"], "needs a value"),
        (["fit", "--model", "lts", "--data", "scene"], "did you mean 'scenes'"),
        (["fit", "--model", "lts", "--scale", "tinny"], "did you mean 'tiny'"),
        (["fit", "--model", "lts", "--logger", "wandv"], "did you mean 'wandb'"),
        (["fit", "--model", "lts", "--config", "absent.yaml"], "absent.yaml"),
        (["fit", "--model", "lts", "--modle.optim.lr", "1"], "--modle.optim.lr"),
        (["fit", "--model", "lts", "--model.optim.lrr", "1"], "--model.optim.lrr: did you mean --model.optim.lr?"),
        (["test", "--model", "lts", "--splits", "val"], "--splits: did you mean --split?"),
        (["fit", "--model", "lts", "--data.batchsize", "3"], "--data.batchsize: did you mean --data.batch_size?"),
        (["fit", "--model", "lts", "--model.optim.lr", "high"], "high"),
        (
            ["fit", "--model", "lts", "--data.cache_features", "half"],
            "--data.cache_features half: expected float32, bf16 or null",
        ),
        (["fit", "--model", "vipa", "--model.width", "9x"], "--model.width 9x: expected a whole number"),
        (["fit", "--model", "lts", "--data.augment.flip", "lots"], "--data.augment.flip lots: expected a number"),
        (["fit", "--model", "lts", "--data.test_images", "-3"], "--data.test_images -3: give at least 1"),
        (["fit", "--model", "lts", "--trainer.max_stepz", "1"], "did you mean --trainer.max_steps"),
        (["fit", "--model", "lts", "--model.locate.kind", "guess"], "guess"),
        (["test", "--model", "cris"], "riszoo fit --model cris"),
        (["test", "--model", "lts", "--ckpt_path", "absent.ckpt"], "absent.ckpt"),
        (["test", "--model", "lts", "--protocol", "lavt481"], "lavt480"),
        (["test", "--model", "lts", "--control", "shufled"], "shufled"),
        (["fit", "--model", "nowhere.Model"], "nowhere"),
        (["info", "ltz"], "did you mean 'lts'"),
        (["info"], "model"),
        (["info", "absent.safetensors"], "absent.safetensors is not a file"),
        (["info", "runs/absent"], "runs/absent is not a file"),
        (["data", "shw"], "did you mean 'show'"),
        (["data", "show", "scenes", "--split", "vall"], "val"),
        (["list", "--all"], "--all"),
        (["bench", "--models", "ltz"], "did you mean 'lts'"),
        (["data", "check", "refcoco", "--imagess"], "did you mean --images"),
        (["data", "check", "refcocoo"], "did you mean"),
        (["compare", "nowhere", "nothing"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_user_error_is_one_sentence(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("riszoo: ")
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err


def test_a_file_that_is_not_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    for name in ("bad.ckpt", "other.ckpt"):
        assert main(["test", "--model", "lts", "--ckpt_path", name]) == 2
        assert name in capsys.readouterr().err


def test_a_checkpoint_is_never_measured_under_another_name(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = next(trained.glob("*/checkpoints/best.ckpt"))
    assert main(["test", "--model", "vipa", "--ckpt_path", str(best)]) == 2
    assert "is of a run of 'lts', not of 'vipa': give --model lts" in capsys.readouterr().err


def test_a_weight_file_that_a_whole_checkpoint_does_not_need(trained: Path) -> None:
    """A test needs no weight file where the checkpoint contains all weights."""
    content = read_checkpoint(next(trained.glob("*/checkpoints/best.ckpt")))
    content["hyper_parameters"]["vision"]["weights"] = "pretrained"
    assert model_section(content)["init_args"]["vision"]["weights"] == "none"


def test_a_batch_that_does_not_divide(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model", "lts", *SMALL, "--data.total_batch_size", "5"]) == 2
    assert "--data.total_batch_size" in capsys.readouterr().err


def test_batchnorm_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    one = ["--data.batch_size", "1", "--data.total_batch_size", "1", "--data.sentences_per_image", "1"]
    assert main(["fit", "--model", "lts", *SMALL, *one]) == 2
    assert "--data.batch_size" in capsys.readouterr().err


def test_wrong_names_are_reported_without_heavy_imports() -> None:
    """Help, lists and wrong names are fast because nothing heavy is imported."""
    code = (
        "import sys\nfrom riszoo.cli.main import main\n"
        "assert main(['--help']) == 0 and main(['list']) == 0 and main(['fit', '--help']) == 0\n"
        "for wrong in (['fti'], ['fit', '--model', 'x'], ['fit', '--model', 'lts', '--data', 'x'],\n"
        "              ['fit', '--model', 'lts', '--scale', 'x'], ['test', '--model', 'cris']):\n"
        "    assert main(wrong) == 2\n"
        "heavy = {'torch', 'numpy', 'PIL', 'jsonargparse', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = Path(recipes.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr


def test_list_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("lts", "scenes", "lavt480", "[paper, tiny, controlled]"))
    assert main(["info", "lts"]) == 0
    output = capsys.readouterr().out
    assert "GFLOP" in output
    assert "docs/models/lts.md" in output
    assert "prior.act  " in output
    assert "data.total_batch_size  " in output
    assert "resnet18" in output


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(verb in output for verb in VERBS)


def test_a_terminal_without_a_sign_shows_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    benchmarks = recipes.folders()[0].parent / "benchmarks"
    assert main(["tables", "--out", str(benchmarks), "--format", "markdown", "--data", "scenes"]) == 0
    assert b"| measured | original | lts |" in written.getvalue()
    assert b" ? " in written.getvalue()


def test_data_show(tmp_path: Path) -> None:
    assert main(["data", "show", "scenes", "--count", "2", "--out", "sheet.png"]) == 0
    assert Image.open("sheet.png").size[0] > 100


def test_the_scale_small_is_tiny_trained_longer() -> None:
    tiny, small = (recipes.resolve("lts", "scenes", scale) for scale in ("tiny", "small"))
    assert small["trainer"]["max_steps"] == 10 * tiny["trainer"]["max_steps"]
    assert small["model"] == tiny["model"]
    assert "small" not in recipes.scales("lts", "refcoco")
    request = Request.read("fit", ["--model", "tests.support.toys.Taps", "--scale", "small"])
    assert request.base[0]["trainer"] == small["trainer"], "the same for a class without a recipe"


def test_the_scale_probe_is_a_short_training_on_spatial_sentences() -> None:
    tiny, probe = (recipes.resolve("vipa", "scenes", scale) for scale in ("tiny", "probe"))
    assert probe["model"] == tiny["model"]
    assert probe["data"]["init_args"]["train_split"] == "train-spatial"
    assert "val_split" not in probe["data"]["init_args"], "evaluation splits stay as they are"
    sentences = [
        config["trainer"]["max_steps"] * config["data"]["init_args"]["total_batch_size"] for config in (tiny, probe)
    ]
    assert sentences == [96000, 19200]


def test_every_tiny_recipe_trains_on_the_same_number_of_sentences() -> None:
    budgets = set()
    for name in recipes.names("models"):
        if "tiny" in recipes.scales(name, "scenes"):
            config = recipes.resolve(name, "scenes", "tiny")
            budgets.add(config["trainer"]["max_steps"] * config["data"]["init_args"]["total_batch_size"])
    assert budgets == {96_000}
