"""A loss that is not finite is caught before it reaches a checkpoint, and wrong options before the training."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from riszoo.batch import Batch, Output
from riszoo.errors import UserError
from riszoo.training.callbacks.nonfinite import Flag, NonFinite, Step
from tests.support.tiny_training import checkpoint, few_images, fit
from tests.support.toys import Early


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)


@pytest.fixture
def bad_sentences(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the sentences whose loss is NaN: the second one of step 1."""
    ids: list[str] = []
    loss = Early.loss

    def sometimes(model: Early, output: Output, batch: Batch) -> dict[str, Tensor]:
        terms = loss(model, output, batch)
        if model.training and model.global_step == 1:
            ids.append(batch.samples[1].sentence_id)
            terms["mask"] = terms["mask"] * torch.tensor([1.0, float("nan"), 1.0, 1.0])
        return terms

    monkeypatch.setattr(Early, "loss", sometimes)
    return ids


def test_a_loss_that_is_not_finite_stops_the_training_and_is_described(
    bad_sentences: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit() == 2
    (folder,) = Path("runs").iterdir()
    assert capsys.readouterr().err.strip() == (
        f"riszoo: step 1: the loss term 'mask' is not finite for sentence {bad_sentences[0]}; see "
        f"{folder}/nonfinite-step1.json, lower --model.optim.lr, or go on with --run.nonfinite skip"
    )
    (batch,) = json.loads((folder / "nonfinite-step1.json").read_text())["batches"]
    assert batch["sentences"][1] == bad_sentences[0]
    assert [isinstance(value, float) for value in batch["terms"]["mask"]] == [True, False, True, True]
    assert batch["terms"]["mask"][1] == "nan"


@pytest.mark.parametrize("bad", [0, 1])
def test_each_process_describes_its_own_sentences(bad: int, tmp_path: Path) -> None:
    for rank in (1, 0):
        values = torch.tensor([1.0, float("inf") if rank == bad else 2.0])
        step = Step(5, [([f"a{rank}", f"b{rank}"], {"mask": values})], Flag(torch.tensor(False)))
        trainer = SimpleNamespace(world_size=2, global_rank=rank, is_global_zero=rank == 0)
        with pytest.raises(UserError, match=f"step5-process{rank}.json"):
            NonFinite(tmp_path, "stop", 0)._report(trainer, step)  # type: ignore[arg-type]
    found = json.loads((tmp_path / f"nonfinite-step5-process{bad}.json").read_text())
    assert found["batches"] == [{"sentences": [f"a{bad}", f"b{bad}"], "terms": {"mask": [1.0, "inf"]}}]
    assert len(list(tmp_path.iterdir())) == 1 + bad  # the first process always describes its own


def test_no_checkpoint_contains_a_step_that_is_not_finite(bad_sentences: list[str]) -> None:
    assert fit("--run.save_steps", "1") == 2
    assert (len(bad_sentences), checkpoint()["global_step"]) == (1, 1)
    assert all(value.isfinite().all() for value in checkpoint()["state_dict"].values())


def test_stopping_does_not_read_a_value_in_its_own_step(
    bad_sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read waits for the device: it comes after the next step's forward pass, which gives the device work."""
    events: list[str] = []
    read, forward = Flag.__bool__, Early.forward

    def noted_read(flag: Flag) -> bool:
        events.append("read")
        return read(flag)

    def noted_forward(model: Early, batch: Batch) -> Output:
        events.append("forward")
        return forward(model, batch)

    monkeypatch.setattr(Flag, "__bool__", noted_read)
    monkeypatch.setattr(Early, "forward", noted_forward)
    assert fit() == 2
    assert events == ["forward", "forward", "read", "forward", "read"]


def test_a_step_that_is_not_finite_can_be_skipped(bad_sentences: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--run.nonfinite", "skip") == 0
    assert f"skipped step 1: the loss term 'mask' is not finite for sentence {bad_sentences[0]}" in (
        capsys.readouterr().out
    )
    content = checkpoint()
    assert content["global_step"] == 6
    assert all(value.isfinite().all() for value in content["state_dict"].values())


@pytest.mark.parametrize("option", ["lr", "lr_vision", "weight_decay"])
@pytest.mark.parametrize("value", ["1e400", "-1"])
def test_an_impossible_optimiser_option_is_an_error_and_leaves_no_folder(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(f"--model.optim.{option}={value}") == 2
    assert f"--model.optim.{option} " in capsys.readouterr().err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
