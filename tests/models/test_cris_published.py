"""The checkpoint files of CRIS's authors: read exactly, converted, and described; wrong files are reported."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riszoo.cli.main import main
from riszoo.models.cris import published
from riszoo.models.cris.published import options, translate, variant
from riszoo.training.checkpoints import from_checkpoint
from tests.support import cris_small, official
from tests.support.clip_small import goldens, write_merges
from tests.support.cris_small import Reference
from tests.support.published_files import (
    assert_every_tensor_is_used,
    assert_refused,
    assert_same_masks,
    assert_same_weights,
    assert_truncation_is_reported,
)

MERGES = 100
PIECES = 2 * 256 + MERGES + 2


@pytest.fixture(scope="module")
def source() -> Reference:
    return cris_small.reference()


def container(weights: dict[str, Tensor]) -> dict[str, Any]:
    """What the authors' training script saves, for a tokenizer of few merges."""
    table = weights["backbone.token_embedding.weight"]
    rows = {"backbone.token_embedding.weight": table.repeat(4, 1)[:PIECES]}
    return {
        "epoch": 50,
        "cur_iou": 0.5,
        "best_iou": 0.6,
        "prec": {"Pr@50": 0.7},
        "state_dict": {f"module.{name}": tensor for name, tensor in (weights | rows).items()},
        "optimizer": {"state": {}, "param_groups": []},
        "scheduler": {"milestones": Counter({35: 1})},
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and a cache with a small list of CLIP's merges."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    write_merges(tmp_path / "cache", goldens().merges[:MERGES])
    return tmp_path


@pytest.fixture
def file(folder: Path, source: Reference) -> Path:
    path = folder / "best_model.pth"
    torch.save(container(source.weights), path)
    return path


# -- every name -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "name", "parameters"), [("cris", "cris_r101", 161_251_682), ("cris_r50", "cris_r50", 146_849_122)]
)
def test_every_tensor_of_the_full_size_is_accounted_for(keys: str, name: str, parameters: int) -> None:
    state = official.full_size(f"{keys}_keys")["state_dict"]
    content = {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}
    assert variant(content) == name
    section = {"class_path": "riszoo.models.cris.model.CRIS", "init_args": options(content)}
    text = section["init_args"]["text"]
    text["vocabulary"] = official.vocabulary(49_408)  # in place of the word pieces
    text["options"]["tokens"] = "words"
    model = official.on_meta(section)
    translation = assert_every_tensor_is_used(published, content, model)
    assert translation.ignored == ["backbone.logit_scale"]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters - 1, "all but logit_scale"


def test_values_of_separate_projections_are_those_of_the_packed_one(source: Reference) -> None:
    state = translate({"state_dict": source.weights}).state
    layer = "text.model.encoder.layers.1.self_attn"
    packed = torch.cat([state[f"{layer}.{part}_proj.weight"] for part in "qkv"])
    assert torch.equal(packed, source.weights["backbone.transformer.resblocks.1.attn.in_proj_weight"])
    assert torch.equal(state["text.projection.weight"].T, source.weights["backbone.text_projection"])


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_published_file_gives_the_same_model(file: Path, source: Reference) -> None:
    assert_same_weights(from_checkpoint(file).state_dict(), translate(container(source.weights)).state)


def test_a_converted_file_is_the_same_model(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(file), "--out", "cris.safetensors"]) == 0
    assert_same_masks("cris", (file, Path("cris.safetensors")), ["the dog", "left"])
    capsys.readouterr()
    assert main(["info", "cris.safetensors"]) == 0
    described = capsys.readouterr().out
    assert "a published 'cris' checkpoint of riszoo.models.cris.model.CRIS" in described
    assert "1 tensors without weights ignored, such as backbone.logit_scale" in described


# -- wrong files ------------------------------------------------------------------------------------------------------


def damaged(source: Reference, kind: str) -> dict[str, Any]:
    content = container(source.weights)
    state = content["state_dict"]
    if kind == "partial":
        del state["module.neck.aggr.0.weight"]
    if kind == "larger":
        state["module.decoder.layers.0.adapter.weight"] = torch.zeros(2)
    if kind == "text":
        state["module.backbone.adapter.weight"] = torch.zeros(2)
    if kind == "no decoder":
        content["state_dict"] = {name: tensor for name, tensor in state.items() if "decoder" not in name}
    return {"weights": content} if kind == "other" else content


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("partial", "best.pth does not fit its model: it lacks 1 weights, such as neck.merge.0.weight"),
        ("larger", "tensors that the model does not have, such as decoder.layers.0.adapter"),
        ("text", "tensors that the model does not have, such as backbone.adapter"),
        ("no decoder", "has the form of a published 'cris' checkpoint but is not a complete one"),
        ("other", "best.pth is not a riszoo checkpoint"),
    ],
)
def test_a_wrong_file_is_reported(kind: str, message: str, folder: Path, source: Reference) -> None:
    torch.save(damaged(source, kind), folder / "best.pth")
    assert_refused(folder / "best.pth", message)


def test_a_truncated_file_is_reported(file: Path) -> None:
    assert_truncation_is_reported(file)
