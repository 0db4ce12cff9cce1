"""Compiled blocks: no graph breaks in the functions of a model, equal outputs, each kind of block compiled once."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from torch import Tensor, nn
from torch._dynamo.utils import counters

from riszoo import blocks
from riszoo.batch import Batch
from riszoo.blocks import compile_blocks, repeated_blocks
from tests.support.tiny_training import few_images, fit
from tests.support.zoo import Entry, batch_of, entries

ENTRIES = [entry for entry in entries() if not entry.name.startswith("toy")]
OFTEN = ("lts", "risam", "vipa")


def named(often: Collection[str]) -> list[ParameterSet]:
    """Every recipe; in the default run, those named."""
    return [pytest.param(e, id=e.name, marks=() if e.name in often else pytest.mark.slow) for e in ENTRIES]


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trace as torch.compile does, and run the traced operations without generating code."""
    monkeypatch.setattr(blocks, "BACKEND", "eager")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("entry", named(OFTEN))
def test_encode_and_decode_are_one_graph_with_equal_outputs(entry: Entry) -> None:
    model = entry.build().double().train()
    batch = batch_of(model)

    def logits(batch: Batch) -> Tensor:
        assert batch.tokens is not None
        features = model.encode_image(batch.images, batch.valid, batch.views)
        return model.decode(features, batch.image_index, model.encode_text(batch.tokens)).logits

    one_graph = torch.compile(logits, backend="eager", fullgraph=True)  # a graph break raises
    found = []
    with torch._dynamo.config.patch(allow_rnn=True):  # by default torch leaves the graph for a GRU
        for function in (logits, one_graph):
            torch.manual_seed(0)
            found.append(function(batch))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("entry", named(("risam",)))
def test_compiled_blocks_give_equal_outputs(entry: Entry) -> None:
    model = entry.build().double().eval()
    names = list(model.state_dict())
    batch = batch_of(model, 2, 2)
    expected = model(batch).logits
    counters.clear()
    compile_blocks(model, "cpu")
    batch.tokens = model.tokenize(batch.texts)
    torch.testing.assert_close(model(batch).logits, expected, rtol=1e-9, atol=1e-9)
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]
    assert list(model.state_dict()) == names


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x).relu()


def test_the_innermost_modules_that_repeat_are_the_blocks() -> None:
    stages = nn.ModuleList(nn.Sequential(*(Residual(4) for _ in range(3))) for _ in range(2))
    model = nn.ModuleDict({"stages": stages, "head": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))})
    assert repeated_blocks(model) == [block for stage in stages for block in stage]


def test_equal_blocks_are_compiled_once() -> None:
    layers = nn.Sequential(*(Residual(4) for _ in range(5)), *(Residual(8) for _ in range(5)))
    for layer in layers:
        layer.compile(backend="eager")
    counters.clear()
    for layer in layers:
        layer(torch.zeros(2, layer.linear.in_features))
    assert counters["stats"]["unique_graphs"] <= 2


def test_a_training_compiles_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    counters.clear()
    assert fit("--compile", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0") == 0
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]


def test_a_missing_compiler_is_reported_before_the_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(blocks, "BACKEND", "inductor")
    monkeypatch.setenv("CXX", "no-such-compiler")
    few_images(monkeypatch)
    assert fit("--compile") == 2
    error = capsys.readouterr().err
    assert (
        error
        == "riszoo: --compile needs a C++ compiler and no-such-compiler is not installed: install it, or set CXX\n"
    )
