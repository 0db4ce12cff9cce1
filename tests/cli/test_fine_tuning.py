"""From an export of an annotation tool to a model that is fine-tuned on it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools import mask as coco
from safetensors.torch import load_file

from riszoo import shipped
from riszoo.cli.main import main
from riszoo.cli.request import Request
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError
from riszoo.training import runs
from tests.support.small_run import small_run

IMAGES = 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.checkpoint(small_run(tmp_path_factory.mktemp("weights")))


def coco_export(folder: Path) -> Path:
    """Scenes as photos with a COCO file; a word is new to the model, and some objects cannot be used."""
    folder.mkdir()
    split, images, annotations = ScenesSplit("val", 64), [], []
    for number in range(IMAGES):
        record = split[number]
        Image.fromarray(record.load()).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        for target in record.targets:
            drawn = target.segmentation.draw(GroundTruth())
            encoded = coco.encode(np.asfortranarray(drawn.astype(np.uint8)))
            rle = {"size": [64, 64], "counts": encoded["counts"].decode()}
            row = {"id": len(annotations), "image_id": number, "category_id": 1, "segmentation": rle}
            annotations.append({**row, "attributes": {"description": f"zebra {target.sentences[0].text}"}})
    annotations += [
        {"id": 900, "image_id": 0, "category_id": 1, "segmentation": rle},
        {"id": 901, "image_id": 0, "caption": "no mask", "segmentation": []},
        {"id": 902, "image_id": 77, "caption": "no image", "segmentation": rle},
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "export.json").write_text(json.dumps(content))
    return folder / "export.json"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


FIT = [
    *("fit", "--data", "folder", "--data.root", "mine", "--data.workers", "0", "--run.images", "0"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"),
]


def test_an_export_of_twenty_images_becomes_a_fine_tuned_model(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "import", str(coco_export(Path("mine")))]) == 0
    assert "left out: 1 without a sentence" in capsys.readouterr().out
    assert main(["data", "check", "folder", "--root", "mine"]) == 0
    frozen = ["--model.vision.frozen", "true", "--model.optim.lr", "0.005", "--model.optim.ema", "0"]
    assert main([*FIT, "--init", str(checkpoint), "--budget", "1280", *frozen]) == 0
    (run,) = Path("runs").iterdir()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["run"]["model"], saved["run"]["scale"], saved["run"]["init"]) == ("lts", "tiny", str(checkpoint))

    first = torch.load(checkpoint, weights_only=True)
    last = torch.load(runs.checkpoint(run, "last"), weights_only=True)
    words, more = (each["hyper_parameters"]["text"]["vocabulary"] for each in (first, last))
    assert list(more) == [*words, "zebra"], "known words keep their ids"
    before, after = first["state_dict"], last["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("vision."))
    assert not torch.equal(before["segment.classify.weight"], after["segment.classify.weight"])
    assert len(after["text.embedding.weight"]) == len(before["text.embedding.weight"]) + 1

    with (run / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    assert main(["segment", "--model", "lts", "--data", "folder", "--image", "mine/1.png", "--text", "zebra"]) == 0
    assert "trained without" not in capsys.readouterr().err


def test_a_training_starts_from_the_given_weights(checkpoint: Path) -> None:
    """With a learning rate of zero the weights stay, and the rates of the recipe are divided by ten."""
    main(["data", "import", str(coco_export(Path("mine")))])
    assert main([*FIT, "--init", str(checkpoint), "--budget", "16", "--model.optim.ema", "0"]) == 0
    (run,) = Path("runs").iterdir()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["init_args"]["optim"]["lr"] == pytest.approx(2e-4)
    assert main([*FIT, "--config", str(run / "config.yaml"), "--run.root", "again", "--model.optim.lr", "0"]) == 0
    (again,) = Path("again").iterdir()
    before, after = (
        torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, runs.checkpoint(again, "last"))
    )
    trained = [name for name in before if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    for name in trained:
        assert torch.equal(before[name], after[name][: len(before[name])] if before[name].ndim else after[name]), name


def test_a_training_starts_from_the_shipped_weights() -> None:
    main(["data", "import", str(coco_export(Path("mine")))])
    given = ["--budget", "16", "--model.optim.lr", "0", "--model.optim.ema", "0"]
    assert main([*FIT, "--model", "lts", "--init", "shipped", *given]) == 0
    (run,) = Path("runs").iterdir()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["run"]["scale"], saved["run"]["init"]) == ("tiny", str(shipped.files()["lts"]))
    last = torch.load(runs.checkpoint(run, "last"), weights_only=True)["state_dict"]
    name = "segment.classify.weight"
    assert torch.equal(load_file(shipped.files()["lts"])[name].float(), last[name])


def test_only_a_model_with_shipped_weights_starts_from_them() -> None:
    with pytest.raises(UserError, match="--init shipped: give --model one of lts, risam, vipa"):
        Request.read("fit", ["--model", "lavt", "--init", "shipped"])


def test_a_training_starts_from_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or an address stands for the weights in it, at the scale at which they were trained."""
    hub = Path("hub").absolute()
    shutil.copytree(shipped.folder(), hub / "user" / "small")
    (hub / "user" / "small" / "lts.safetensors").rename(hub / "user" / "small" / "model.safetensors")
    monkeypatch.setenv("RISZOO_HUB", str(hub))
    for given in ("hub/user/small", "hf://user/small"):
        request = Request.read("fit", ["--init", given, "--data", "refcoco"])
        assert request.scale == "tiny"
        (config,) = [config["run"] for config in request.base if "init" in config.get("run", {})]
        assert (hub / "user" / "small" / "model.safetensors").samefile(config["init"])


def test_labelme_files_become_lines() -> None:
    folder = Path("photos")
    folder.mkdir()
    square = [[2, 2], [20, 2], [20, 20]]
    shapes = [
        {"label": "cup", "description": "the red cup\nthe cup", "points": square, "shape_type": "polygon"},
        {"label": "dog", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"},
        {"label": "pair", "description": "both", "group_id": 1, "points": square},
        {"label": "pair", "group_id": 1, "points": [[30, 30], [40, 30], [40, 40]]},
        {"label": "spot", "description": "a point", "points": [[3, 3]], "shape_type": "point"},
    ]
    for name in ("a", "b"):
        Image.new("RGB", (64, 48)).save(folder / f"{name}.jpg")
        content = {"imagePath": f"{name}.jpg", "shapes": shapes}
        (folder / f"{name}.json").write_text(json.dumps(content))
    assert main(["data", "import", "photos", "--labels", "--val", "0.5"]) == 0
    (name,) = {row["image"] for row in lines(folder / "train.jsonl")}
    assert {name} | {row["image"] for row in lines(folder / "val.jsonl")} == {"a.jpg", "b.jpg"}
    rows = {row["sentence"]: row["mask"] for row in lines(folder / "train.jsonl")}
    assert list(rows) == ["the red cup", "the cup", "dog", "both"]
    assert rows["dog"] == [[1, 1, 9, 1, 9, 9, 1, 9]]
    assert len(rows["both"]) == 2
    assert main(["data", "check", "folder", "--root", "photos"]) == 0
    assert main(["data", "import", "photos", "--labels"]) == 2, "nothing is overwritten"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a readable JSON file"),
        ("[]", "is not a COCO file"),
        ('{"images": [], "annotations": []}', "contains no object with a sentence"),
        ('{"images": 3, "annotations": []}', "has no list of rows with 'id'"),
        (
            '{"images": [{"id": 1, "file_name": "../x.png"}], "annotations": [{"id": 1, "image_id": 1, "text": "a"}]}',
            "contains no object",
        ),
    ],
    ids=["broken", "list", "empty", "table", "path"],
)
def test_a_wrong_export_is_one_sentence(content: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("export.json").write_text(content)
    assert main(["data", "import", "export.json"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
