"""What a training shows in Weights & Biases, offline, and in TensorBoard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from riszoo import recipes
from riszoo.cli.main import main
from riszoo.training.callbacks.dashboard import build_loggers
from tests.support import wandb_file
from tests.support.tiny_training import few_images, fit

SWEEP = yaml.safe_load((Path(recipes.__file__).parents[1] / "configs" / "sweep.yaml").read_text())
IMAGES = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps, validated after the third and the sixth, with a sweep's arguments."""
    chosen = {
        "model.optim.lr": 0.001,
        "model.optim.weight_decay": SWEEP["parameters"]["model.optim.weight_decay"]["values"][0],
    }
    assert chosen.keys() == SWEEP["parameters"].keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("dashboard"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        few_images(patch)
        options = [f"--{name}={value}" for name, value in chosen.items()]
        options += ["--logger", "wandb,tensorboard", "--run.log_checkpoint", "true"]
        assert fit(*options, trainer={"val_check_interval": 3}, run={"images": IMAGES}) == 0
        (folder,) = Path("runs").resolve().iterdir()
    return folder


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    """TensorBoard's file of the run."""
    return EventAccumulator(str(run / "tensorboard")).Reload()


def test_tensorboard_has_curves_of_each_type_and_the_best_value(events: EventAccumulator) -> None:
    tags = events.Tags()["scalars"]
    types = [tag for tag in tags if tag.startswith("val/mIoU/")]
    assert types, "scenes has types of sentences"
    values = [event.value for event in events.Scalars("val/mIoU")][:2]
    best = events.Scalars("best/mIoU")
    assert [event.value for event in best] == [values[0], max(values)]
    assert [event.step for event in best] == [2, 5]


def test_tensorboard_shows_the_same_sentences_at_each_validation(events: EventAccumulator) -> None:
    tags = events.Tags()["images"]
    assert tags == [f"val/predictions/{index}" for index in range(IMAGES)]
    assert [[image.step for image in events.Images(tag)] for tag in tags] == [[2, 5]] * IMAGES


@pytest.fixture(scope="module")
def offline(run: Path) -> Path:
    """The file of wandb's offline run."""
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    return file


def test_wandb_has_the_configuration(offline: Path) -> None:
    config = wandb_file.config(offline)
    assert config["run"]["data"] == "scenes"
    assert config["data"]["init_args"]["total_batch_size"] == 4
    assert config["optim"]["lr"] == 0.001


def test_the_best_value_is_the_last_one_logged_in_wandb(offline: Path) -> None:
    rows = wandb_file.history(offline)
    measured = [row["val/mIoU"] for row in rows if "val/mIoU" in row]
    best = [row for row in rows if "best/mIoU" in row]
    assert [row["best/mIoU"] for row in best] == [measured[0], max(measured)]
    assert any(name.startswith("val/mIoU/") for name in best[0])


def test_wandb_has_the_drawings_of_each_validation(offline: Path) -> None:
    assert len(list((offline.parent / "files" / "media").rglob("*.png"))) == 2 * IMAGES


def test_the_best_checkpoint_is_an_artifact(offline: Path) -> None:
    (artifact,) = [
        each.artifact for each in wandb_file.records(offline) if each.WhichOneof("record_type") == "artifact"
    ]
    assert artifact.type == "model"
    assert "best" in artifact.aliases


def test_a_continued_training_has_the_id_of_its_run_in_wandb(tmp_path: Path) -> None:
    (new,) = build_loggers(["csv", "wandb"], tmp_path, log_checkpoint=False)
    (tmp_path / "wandb" / "offline-run-20260101_120000-a1b2c3d4").mkdir(parents=True)
    (continued,) = build_loggers(["csv", "wandb"], tmp_path, log_checkpoint=False)
    assert (new.version, continued.version) == (None, "a1b2c3d4")


def test_the_csv_file_has_the_curves_alone(run: Path) -> None:
    header, *_ = (run / "metrics.csv").read_text().splitlines()
    assert "val/mIoU" in header
    assert "best/mIoU" not in header


@pytest.mark.parametrize("logger", ["wandb", "tensorboard"])
def test_a_logger_that_is_not_installed_is_named(
    logger: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, logger, None)  # as where the package is missing
    assert main(["fit", "--model", "lts", "--logger", logger]) == 2
    assert f"needs the package {logger}: pip install {logger}" in capsys.readouterr().err


def test_an_upload_needs_wandb(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--run.log_checkpoint", "true") == 2
    assert "add --logger wandb" in capsys.readouterr().err


def test_the_command_of_the_sweep_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = SWEEP["command"]
    assert (program, words[-1]) == ("riszoo", "${args}")
    options = [
        f"--{name}={values.get('min', values.get('values', [None])[0])}" for name, values in SWEEP["parameters"].items()
    ]
    with pytest.raises(SystemExit) as stopped:
        main([*words[:-1], *options, "--print_config"])
    assert stopped.value.code in (0, None)
    assert SWEEP["metric"]["name"] == "best/mIoU"
