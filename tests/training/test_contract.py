"""What a class of one's own returns is checked in its first step: the error names the method and the expected form."""

from __future__ import annotations

import pytest
import torch

from tests.support.tiny_training import few_images, fit
from tests.support.toys import Early


def test_logits_and_loss_of_another_form(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few_images(monkeypatch)
    decode = Early.decode
    with monkeypatch.context() as patch:
        patch.setattr(Early, "loss", lambda *_: 0.5)
        assert fit() == 2
        said = "riszoo: tests.support.toys.Early.loss returned float: return a dict of terms, each of shape (N,)"
        assert capsys.readouterr().err.strip() == said

    def without_channel(model: Early, *inputs: torch.Tensor) -> torch.Tensor:
        output = decode(model, *inputs)
        output.logits = output.logits[:, 0]
        return output

    monkeypatch.setattr(Early, "decode", without_channel)
    assert fit() == 2
    said = "Early.decode returned logits of shape (4, 4, 4) for 4 sentences: return (N, 1, h, w)"
    assert capsys.readouterr().err.strip() == f"riszoo: tests.support.toys.{said}"
