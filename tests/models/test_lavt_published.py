"""The checkpoint files of LAVT's authors: read exactly, converted, and described; wrong files are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from riszoo.cli.main import main
from riszoo.errors import UserError
from riszoo.models.lavt import published
from riszoo.models.lavt.published import options, translate
from riszoo.training.checkpoints import from_checkpoint, read_checkpoint
from tests.support import lavt_small, official
from tests.support.lavt_small import SIZE, Reference, container, save_bert
from tests.support.published_files import (
    Payload,
    assert_every_tensor_is_used,
    assert_refused,
    assert_same_masks,
    assert_same_weights,
    assert_truncation_is_reported,
)


@pytest.fixture(scope="module")
def source() -> Reference:
    return lavt_small.reference()


@pytest.fixture
def folder(tmp_path: Path, source: Reference) -> Path:
    """The working folder, with a small BERT's tokenizer in place of bert-base-uncased."""
    save_bert(tmp_path / "bert-base-uncased", source.config["bert"])
    return tmp_path


@pytest.fixture(params=["lavt", "lavt_one"])
def file(request: pytest.FixtureRequest, folder: Path, source: Reference) -> Path:
    path = folder / "refcoco.pth"
    torch.save(container(source.weights, request.param), path)
    return path


# -- every name -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["lavt", "lavt_one"])
def test_every_tensor_of_the_full_size_is_accounted_for(layout: str) -> None:
    content = official.full_size(f"{layout}_keys")
    section = {"class_path": "riszoo.models.lavt.model.LAVT", "init_args": options(content)}
    section["init_args"]["text"] = {"name": "bert", "vocabulary": official.vocabulary(30_522)}
    model = official.on_meta(section)
    translation = assert_every_tensor_is_used(published, content, model)
    assert (len(translation.state), len(translation.ignored)) == (624, 24)
    assert all(name.endswith("relative_position_index") for name in translation.ignored)
    assert sum(parameter.numel() for parameter in model.parameters()) == 227_739_514


def test_the_options_of_the_model_come_from_the_file(source: Reference) -> None:
    found = options(container(source.weights, "lavt", mha="8-8-8-8", img_size=320))
    assert found["size"] == 320
    assert found["fusion"] == {"heads": [8, 8, 8, 8]}
    assert found["segment"] == {"loss": "ce"}
    swin = found["vision"]["options"]
    assert (swin["embed_dim"], swin["depths"], swin["num_heads"]) == (8, [2, 2, 2, 2], [1, 2, 4, 8])
    assert swin["window_size"] == 4
    assert options(container(source.weights, "lavt_one"))["segment"] == {"loss": "dice"}


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_published_file_gives_the_same_model(file: Path, source: Reference) -> None:
    model, expected = from_checkpoint(file), lavt_small.build(source, size=SIZE)
    assert_same_weights(model.state_dict(), expected.state_dict())
    batch = lavt_small.batch(source)
    batch.images, batch.valid = batch.images[..., :SIZE, :SIZE], torch.tensor([[0, 0, SIZE, SIZE]])
    with torch.no_grad():
        torch.testing.assert_close(model(batch).logits, expected(batch).logits)


def test_a_prefix_of_distributed_training_is_removed(folder: Path, source: Reference) -> None:
    content = container(source.weights, "lavt")
    for part in ("model", "bert_model"):
        content[part] = {f"module.{name}": tensor for name, tensor in content[part].items()}
    torch.save(content, folder / "wrapped.pth")
    assert len(read_checkpoint(folder / "wrapped.pth")["state_dict"]) == len(translate(content).state)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.ckpt"])
def test_a_converted_file_is_the_same_model(name: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(file), "--out", name]) == 0
    assert_same_masks("lavt", (file, Path(name)), ["w3 w7", "w1"])
    assert main(["info", name]) == 0
    assert "a published 'lavt" in capsys.readouterr().out
    assert main(["convert", str(file), "--out", name]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_published_file_is_tested_by_name(
    folder: Path, source: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(container(source.weights, "lavt"), "refcoco.pth")
    words = ["--model", "lavt", "--ckpt_path", "refcoco.pth", "--data.test_images", "2", "--split", "val"]
    assert main(["test", *words, "--trainer.accelerator", "cpu", "--run.images", "0"]) == 0
    assert list(folder.glob("**/metrics.json"))
    capsys.readouterr()
    assert main(["fit", "--model", "lavt", "--ckpt_path", "refcoco.pth"]) == 2
    assert "no training that `fit` could continue" in capsys.readouterr().err


def test_info_describes_a_published_file_and_plain_weights(
    folder: Path, source: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(container(source.weights, "lavt"), "refcoco.pth")
    assert main(["info", "refcoco.pth"]) == 0
    text = capsys.readouterr().out
    assert "a published 'lavt' checkpoint of riszoo.models.lavt.model.LAVT" in text
    assert "8 tensors without weights ignored" in text
    torch.save({"model": {"patch_embed.proj.weight": torch.zeros(3, 2)}}, "swin.pth")
    assert main(["info", "swin.pth"]) == 0
    assert "weights without a model, 1 tensors with 6 values" in capsys.readouterr().out


def test_the_tokenizer_is_read_from_a_folder_of_hub_models(
    folder: Path, source: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(container(source.weights, "lavt"), "refcoco.pth")
    (folder / "hub").mkdir()
    (folder / "bert-base-uncased").rename(folder / "hub" / "bert-base-uncased")
    with pytest.raises(UserError, match=r"bert-base-uncased is neither a .* set RISZOO_HUB") as error:
        from_checkpoint(Path("refcoco.pth"))
    assert len(str(error.value)) < 400
    monkeypatch.setenv("RISZOO_HUB", "nowhere")
    with pytest.raises(UserError, match="RISZOO_HUB is nowhere, which is not a folder"):
        from_checkpoint(Path("refcoco.pth"))
    monkeypatch.setenv("RISZOO_HUB", "hub")
    assert from_checkpoint(Path("refcoco.pth")).text.tokenize(["w3"]).ids.tolist() == [[2, 7, 3]]


# -- wrong files ------------------------------------------------------------------------------------------------------


def damaged(source: Reference, kind: str) -> dict[str, Any]:
    content = container(source.weights, "lavt")
    model = content["model"]
    if kind == "partial":
        del model["backbone.norm2.weight"]
    if kind == "larger":
        model["backbone.layers.4.res_gate.0.weight"] = torch.zeros(2, 2)
        model["segmenter.weight"] = torch.zeros(2)
    if kind == "no tables":
        content["model"] = {name: tensor for name, tensor in model.items() if "bias_table" not in name}
    if kind == "frame":
        content["args"].img_size = 10**9
    if kind == "pickle":
        content["args"] = Payload()
    return {"weights": content} if kind == "other" else content


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("partial", "refcoco.pth does not fit its model: it lacks 1 weights, such as norms.2.weight"),
        (
            "larger",
            "refcoco.pth is a published 'lavt' checkpoint with 1 tensors that the model does not have, such as seg",
        ),
        ("no tables", "has the form of a published 'lavt' checkpoint but is not a complete one"),
        ("frame", "img_size is 1000000000"),
        ("pickle", "refcoco.pth contains objects other than tensors and plain values"),
        ("other", "refcoco.pth is not a riszoo checkpoint"),
    ],
)
def test_a_wrong_file_is_reported(kind: str, message: str, folder: Path, source: Reference) -> None:
    torch.save(damaged(source, kind), "refcoco.pth")
    assert_refused(Path("refcoco.pth"), message)


def test_a_truncated_file_is_reported(file: Path) -> None:
    assert_truncation_is_reported(file)
