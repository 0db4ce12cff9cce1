"""Checkpoints in the form that DETRIS's authors publish: every key used, the same model, wrong files reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riszoo.build import instantiate
from riszoo.cli.main import main
from riszoo.model import RISModule
from riszoo.models.detris import published
from riszoo.models.detris.published import options, translate, variant
from riszoo.training.checkpoints import RISCheckpointIO, from_checkpoint
from tests.support import clip_small, detris_small, official
from tests.support.official import FIXTURES
from tests.support.published_files import (
    Payload,
    assert_every_tensor_is_used,
    assert_refused,
    assert_same_masks,
    assert_same_weights,
    assert_truncation_is_reported,
)

PIECES = 49_408
EMBEDDING = "txt_backbone.token_embedding.weight"


def container(weights: dict[str, Tensor]) -> dict[str, Any]:
    """What the authors' training script saves."""
    return {
        "epoch": 50,
        "cur_iou": 0.7,
        "best_iou": 0.71,
        "prec": {"Pr@50": 0.8},
        "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()},
        "optimizer": {"state": {}, "param_groups": []},
        "scheduler": {"last_epoch": 50},
    }


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The fixture's, with an embedding for each of OpenAI's word pieces."""
    state = detris_small.reference().weights
    return {**state, EMBEDDING: torch.randn(PIECES, state[EMBEDDING].shape[1])}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and OpenAI's merges in torch's cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    clip_small.write_merges(tmp_path / "cache", clip_small.goldens().merges)
    return tmp_path


@pytest.fixture
def file(folder: Path, weights: dict[str, Tensor]) -> Path:
    torch.save(container(weights), folder / "refcoco.pth")
    return folder / "refcoco.pth"


# -- every name -------------------------------------------------------------------------------------------------------

SIZES = {
    "detris": ("detris-base", 992, 175_529_778 - 2 * 768 - 1, 25_518_129),
    "detris_large": ("detris-large", 1160, 394_106_930 - 2 * 1024 - 1, 26_306_097),
}
"""Variant, tensors used, parameters, and trained ones. The published count has three more: DINOv2's mask token, CLIP's
scale, and the class token's position, which timm adds to the token."""


@pytest.mark.parametrize("file", SIZES)
def test_every_tensor_of_the_full_size_is_accounted_for(file: str) -> None:
    state = official.full_size(f"{file}_keys")["state_dict"]
    content = container(state)
    name, used, total, trained = SIZES[file]
    assert variant(content) == name
    section = {"class_path": "riszoo.models.detris.model.DETRIS", "init_args": options(content)}
    section["init_args"]["text"]["options"]["tokens"] = "words"
    section["init_args"]["text"]["vocabulary"] = official.vocabulary(PIECES)
    model = official.on_meta(section)
    translation = assert_every_tensor_is_used(published, content, model)
    assert translation.ignored == ["dinov2.mask_token", "txt_backbone.logit_scale"]
    assert len(state) - len(translation.ignored) == used
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == trained


def test_wide_aligners_are_those_of_the_mixed_data(weights: dict[str, Tensor]) -> None:
    large = {
        "dinov2.cls_token": torch.empty(1, 1, 1024),
        "dinov2.blocks.1.adapter.D_fc1.weight": torch.empty(384, 1024),
    }
    assert variant(container({**weights, **large})) == "detris-large-mixed"


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_published_file_gives_its_tensors_to_the_model(file: Path, weights: dict[str, Tensor]) -> None:
    found = from_checkpoint(file).state_dict()
    assert torch.equal(found["text.model.embeddings.token_embedding.weight"], weights[EMBEDDING])
    assert torch.equal(found["neck.projections.2.0.weight"], weights["neck.f5_proj.0.weight"].transpose(0, 1))
    assert torch.equal(found["vision.vit.blocks.3.mlp.fc1.weight"], weights["dinov2.blocks.3.mlp.fc1.weight"])
    assert_same_weights(found, translate(container(weights)).state)


def test_a_converted_file_is_the_same_model(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(file), "--out", "detris.safetensors"]) == 0
    files = (file, Path("detris.safetensors"))
    assert_same_masks("detris", files, ["the cat", "a dog"])
    capsys.readouterr()
    for path in files:
        assert main(["info", str(path)]) == 0
        text = capsys.readouterr().out
        assert "a published 'detris-base' checkpoint of riszoo.models.detris.model.DETRIS" in text
        assert "2 tensors without weights ignored" in text


# -- initial weights --------------------------------------------------------------------------------------------------


def test_initial_weights_are_those_of_meta_and_openai_and_stay_in_their_files(tmp_path: Path) -> None:
    """A checkpoint of trained weights contains adapters, neck, decoder and head; the rest comes from the two files."""
    source = detris_small.reference()
    meta = {n.removeprefix("dinov2."): t for n, t in source.weights.items() if n.startswith("dinov2.")}
    torch.save({name: tensor for name, tensor in meta.items() if ".adapter." not in name}, tmp_path / "dinov2.pth")
    section = detris_small.section(source.config)
    vision, text = section["init_args"]["vision"], section["init_args"]["text"]
    vision["weights"], text["weights"] = str(tmp_path / "dinov2.pth"), str(FIXTURES / "clip_small_vit.pt")
    text["options"] |= {"width": 64, "heads": 1, "layers": 2, "projection": 48}
    section["init_args"]["text_adapters"]["layers"] = [1]
    model = instantiate(RISModule, section)  # type: ignore[type-abstract]
    expected = translate({"state_dict": source.weights}).state
    state = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in state.items() if name.startswith("vision."))
    checkpoint = {"state_dict": state, "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    RISCheckpointIO(model, trained_only=True).save_checkpoint(checkpoint, tmp_path / "delta.ckpt")
    stored = torch.load(tmp_path / "delta.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in stored} == {"aligners", "decoder", "head", "neck", "text", "project_words"}
    assert all(".adapter." in name for name in stored if name.startswith("text."))
    again = from_checkpoint(tmp_path / "delta.ckpt").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in state.items())


# -- wrong files ------------------------------------------------------------------------------------------------------


def damaged(weights: dict[str, Tensor], kind: str) -> dict[str, Any]:
    state = dict(weights)
    if kind == "partial":
        del state["dinov2.blocks.1.adapter.D_fc2.bias"]
    if kind == "larger":
        state["neck.more.weight"] = torch.zeros(2)
    if kind == "no neck":
        state = {name: tensor for name, tensor in state.items() if not name.startswith("neck.")}
    content = container(state)
    return {**content, "scheduler": Payload()} if kind == "pickle" else content


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("partial", "refcoco.pth does not fit its model: it lacks 1 weights, such as aligners.1.up.bias"),
        ("larger", "is a published 'detris-base' checkpoint with 1 tensors that the model does not have, such as neck"),
        ("no neck", "has the form of a published 'detris-base' checkpoint but is not a complete one"),
        ("pickle", "refcoco.pth contains objects other than tensors and plain values"),
    ],
)
def test_a_wrong_file_is_reported(kind: str, message: str, folder: Path, weights: dict[str, Tensor]) -> None:
    torch.save(damaged(weights, kind), "refcoco.pth")
    assert_refused(Path("refcoco.pth"), message)


def test_a_truncated_file_is_reported(file: Path) -> None:
    assert_truncation_is_reported(file)
