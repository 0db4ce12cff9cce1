"""The checkpoint files of CGFormer's authors: read exactly, and described; wrong files are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riszoo.cli.main import main
from riszoo.models.cgformer import published
from riszoo.models.cgformer.published import options, translate
from riszoo.training.checkpoints import from_checkpoint, read_checkpoint
from tests.support import cgformer_small, lavt_small, official
from tests.support.cgformer_small import Reference
from tests.support.published_files import assert_every_tensor_is_used, assert_refused, assert_same_weights

SIZE = 64


@pytest.fixture(scope="module")
def source() -> Reference:
    return cgformer_small.reference()


def container(source: Reference) -> dict[str, Any]:
    """What the authors' training script saves, with position tables of a square frame."""
    weights: dict[str, Tensor] = dict(source.weights)
    for level, stride in enumerate((16, 8, 4)):
        name = f"decoder.layers.{level}.positional_embedding"
        weights[name] = weights[name][: (SIZE // stride) ** 2].clone()
    training = {"optimizer": {"state": {}, "param_groups": []}, "scheduler": {}, "epoch": 49}
    results = {"cur_iou": torch.tensor(0.7), "best_iou": torch.tensor(0.7), "prec": {"Pr@50": 0.8}}
    return {"model_state_dict": weights, **training, **results}


@pytest.fixture
def folder(tmp_path: Path, source: Reference) -> Path:
    """The working folder, with a small BERT's tokenizer in place of bert-base-uncased."""
    lavt_small.save_bert(tmp_path / "bert-base-uncased", source.config["bert"])
    return tmp_path


def test_every_tensor_of_the_full_size_is_accounted_for() -> None:
    content = official.full_size("cgformer_keys")
    found = options(content)
    assert (found["size"], found["query"]) == (480, {"tokens": 2, "width": 512})
    section = {"class_path": "riszoo.models.cgformer.model.CGFormer", "init_args": found}
    section["init_args"]["text"] = {"name": "bert", "vocabulary": official.vocabulary(30_522)}
    translation = assert_every_tensor_is_used(published, content, official.on_meta(section))
    assert (len(translation.state), len(translation.ignored)) == (716, 36)
    without_effect = [name for name in translation.ignored if not name.endswith("relative_position_index")]
    assert len(without_effect) == 12
    assert all(".loadtoken.norm." in name or ".loadtoken.mlp." in name for name in without_effect)


def test_a_published_file_is_described_and_gives_the_same_model(
    folder: Path, source: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    content = container(source)
    torch.save(content, "best_model.pth")
    assert main(["info", "best_model.pth"]) == 0
    assert "a published 'cgformer' checkpoint of riszoo.models.cgformer.model.CGFormer" in capsys.readouterr().out
    model, translated = from_checkpoint(Path("best_model.pth")), translate(content).state
    assert model.size == (SIZE, SIZE)
    assert_same_weights(model.state_dict(), translated)
    assert main(["convert", "best_model.pth", "--out", "own.safetensors"]) == 0
    converted = read_checkpoint(Path("own.safetensors"))["state_dict"]
    assert_same_weights(converted, translated)


def damaged(source: Reference, kind: str) -> dict[str, Any]:
    content = container(source)
    weights = content["model_state_dict"]
    if kind == "without tokens":
        del weights["decoder.tokens.weight"]
    if kind == "partial":
        del weights["decoder.proj.txt.bias"]
    if kind == "larger":
        weights["decoder.layers.2.filter.weight"] = torch.zeros(2)
    if kind == "not square":
        weights["decoder.layers.2.positional_embedding"] = torch.zeros(250, 32)
    return content


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("without tokens", "but is not a complete one .*decoder.tokens.weight"),
        ("partial", "it lacks 1 weights, such as decoder.head.dynamic.bias"),
        (
            "larger",
            "a published 'cgformer' checkpoint with 1 tensors that the model does not have, such as decoder.lay",
        ),
        ("not square", "the finest position table has 250 cells"),
    ],
)
def test_a_wrong_file_is_reported(kind: str, message: str, folder: Path, source: Reference) -> None:
    torch.save(damaged(source, kind), "best_model.pth")
    assert_refused(Path("best_model.pth"), message)
