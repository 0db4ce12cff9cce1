"""Checkpoints of EVF-SAM's authors are read, described, converted and used; wrong ones are reported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from riszoo.cli.main import main
from riszoo.errors import UserError
from riszoo.models.evfsam import published
from riszoo.models.evfsam.published import options
from riszoo.training.checkpoints import from_checkpoint
from riszoo.translation import State
from tests.support import evfsam_small, official
from tests.support.evfsam_small import Reference
from tests.support.published_files import (
    assert_every_tensor_is_used,
    assert_refused,
    assert_same_masks,
    assert_same_weights,
    assert_truncation_is_reported,
)

WEIGHTS, PIECES = "pytorch_model.bin", "sentencepiece.bpe.model"


@pytest.fixture(scope="module")
def source() -> Reference:
    return evfsam_small.reference()


@pytest.fixture
def folder(tmp_path: Path, source: Reference) -> Path:
    """A folder as on the hub, in half precision, in the working folder."""
    made = tmp_path / "evf-sam"
    made.mkdir()
    torch.save({name: value.half() for name, value in source.state.items()}, made / WEIGHTS)
    (made / PIECES).write_bytes(source.pieces)
    (made / "config.json").write_text(json.dumps({"architectures": ["EvfSamModel"]}))
    return made


def published_state() -> State:
    """The names and shapes of the published size, without values."""
    return official.full_size("evfsam_keys")["state_dict"]


# -- every name -------------------------------------------------------------------------------------------------------


def test_every_tensor_of_the_full_size_is_accounted_for() -> None:
    content = published_state()
    section = {"class_path": "riszoo.models.evfsam.model.EVFSAM", "init_args": options(content)}
    section["init_args"]["text"] = {
        "name": "beit3",
        "vocabulary": official.vocabulary(64_010),
        "options": {"width": 1024},
    }
    translation = assert_every_tensor_is_used(published, content, official.on_meta(section).half())
    assert (len(translation.state), len(translation.ignored)) == (1553, 16)
    unused = r"vision_embed\.mask_token|prompt_encoder\.(point_embeddings|not_a_point_embed|mask_downscaling)"
    assert all(re.search(unused, name) for name in translation.ignored)


def test_the_options_of_the_published_size_are_those_of_the_recipe() -> None:
    found = options(published_state())
    assert (found["size"], found["geometry"], found["width"]) == ([1024, 1024], "pad", 256)
    assert found["beit"] == {
        "width": 1024, "layers": 24, "heads": 16, "side": 224, "patch": 16, "text_positions": 1024,
    }  # fmt: skip
    assert found["decoder"] == {"depth": 2, "hidden": 2048, "iou_hidden": 256}
    assert found["text"]["options"] == {"width": 1024, "rows": 64_010}
    vision = found["vision"]["options"]
    assert (vision["embed_dim"], vision["depth"], vision["heads"], vision["window"]) == (1280, 32, 16, 14)
    assert vision["global_blocks"] == [7, 15, 23, 31]


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, "model.safetensors"])
def test_a_published_folder_gives_the_same_model(name: str, folder: Path, source: Reference) -> None:
    if name != WEIGHTS:
        state = torch.load(folder / WEIGHTS, weights_only=True)
        (folder / WEIGHTS).unlink()
        save_file(state, folder / name)
    one_head = {"width": 48, "layers": 3, "heads": 1, "side": 64, "patch": 16}  # heads are 64 wide in published files
    model, expected = from_checkpoint(folder / name), evfsam_small.build(source, beit=one_head)
    assert_same_weights(model.state_dict(), expected.state_dict())
    batch = evfsam_small.batch(source)
    with torch.no_grad():
        assert torch.equal(model(batch).logits, expected(batch).logits)


def test_the_tokenizer_beside_the_weights_is_used(folder: Path, source: Reference) -> None:
    model = from_checkpoint(folder / WEIGHTS)
    tokens = model.tokenize(source.about["sentences"][:2])
    assert tokens.ids.tolist() == source.inputs["ids"][:2].tolist()
    (folder / "added_tokens.json").write_text(json.dumps({"[semantic]": 65}))
    semantic = from_checkpoint(folder / WEIGHTS)
    assert semantic.tokenize(source.about["sentences"]).ids.tolist() == source.inputs["ids"].tolist()
    assert len(model.tokenize(["[semantic] hair"]).ids[0]) > len(semantic.tokenize(["[semantic] hair"]).ids[0])


def test_a_published_folder_is_described_converted_and_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(folder), "--out", "own.safetensors"]) == 0
    assert_same_masks("evfsam", (folder, Path("own.safetensors")), ["zebra top left", "a man"])
    capsys.readouterr()
    for path in (str(folder / WEIGHTS), "own.safetensors"):
        assert main(["info", path]) == 0
        text = capsys.readouterr().out
        assert "a published 'evfsam' checkpoint of riszoo.models.evfsam.model.EVFSAM" in text
        assert "16 tensors without weights ignored" in text


# -- wrong files ------------------------------------------------------------------------------------------------------


def damaged(state: State, kind: str) -> dict[str, Any]:
    if kind == "partial":
        del state["text_hidden_fcs.0.2.bias"]
    if kind == "larger":
        state["text_hidden_fcs.1.0.bias"] = torch.zeros(2)
    if kind == "incomplete":
        state = {name: value for name, value in state.items() if "embed_positions" not in name}
    if kind == "sam2":
        state = {name.replace("image_encoder.", "image_encoder.trunk."): value for name, value in state.items()}
    return state


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("partial", "does not fit its model: it lacks 1 weights, such as project.2.bias"),
        ("larger", "with 1 tensors that the model does not have, such as text_hidden_fcs.1.0.bias"),
        ("incomplete", "has the form of a published 'evfsam' checkpoint but is not a complete one"),
        ("sam2", "an EVF-SAM over SAM-2 or EfficientSAM, which are not supported"),
    ],
)
def test_a_wrong_file_is_reported(kind: str, message: str, folder: Path, source: Reference) -> None:
    torch.save(damaged(dict(source.state), kind), folder / WEIGHTS)
    assert_refused(folder / WEIGHTS, message)


def test_a_truncated_file_is_reported(folder: Path) -> None:
    assert_truncation_is_reported(folder / WEIGHTS)


def test_a_missing_or_damaged_tokenizer_is_reported(folder: Path) -> None:
    (folder / PIECES).write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"sentencepiece\.bpe\.model is not a sentencepiece model"):
        from_checkpoint(folder / WEIGHTS)
    (folder / PIECES).unlink()
    with pytest.raises(UserError, match=r"beit3\.spm is not a file, and .* does not exist"):
        from_checkpoint(folder / WEIGHTS)
    (folder / PIECES).write_bytes(b"")
    (folder / "added_tokens.json").write_text("{")
    with pytest.raises(UserError, match=r"added_tokens\.json is not valid JSON"):
        from_checkpoint(folder / WEIGHTS)
