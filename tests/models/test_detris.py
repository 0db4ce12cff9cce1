"""DETRIS against the numbers of its authors' code at a small size, and the properties that its page states."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from riszoo import recipes
from riszoo.batch import Batch
from riszoo.bench.cost import parameters, skeleton
from riszoo.build import instantiate
from riszoo.encoders.base import TextConfig
from riszoo.encoders.text import build_text
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.models.detris.adapters import Adapters, MixedConvolutions, TextAdapter
from riszoo.training.optim import make_optimizer
from tests.support import detris_small
from tests.support.detris_small import Reference
from tests.support.official import outputs_of
from tests.support.zoo import assert_trains_what_it_declares

LISTED = [
    *("text_block_0", "text_adapter_first", "word", "state"),
    *("dino_in", "dino_block_0", "aligner_first", "dino_block_first_adapted", "tap_0", "tap_1", "tap_2"),
    *("neck", "decoder_layer_0", "decoder", "logits"),
]


@pytest.fixture(scope="module")
def source() -> Reference:
    return detris_small.reference()


@cache
def intermediates() -> dict[str, Tensor]:
    """Every intermediate that the fixture lists, by its name there."""
    source = detris_small.reference()
    model, batch = detris_small.build(source), detris_small.batch(source)
    layers = model.text.model.encoder.layers
    modules = {
        "text_block_0": layers[0],
        "text_adapter_first": layers[1].adapter.up,
        "aligner_first": model.aligners["1"].up,
        "neck": model.neck,
        "decoder_layer_0": model.decoder.layers[0],  # each returns its attention, too
        "decoder": model.decoder,
    }
    taps: list[Tensor] = []
    model.neck.register_forward_pre_hook(lambda _module, inputs: taps.extend(inputs[0]))
    with torch.no_grad(), outputs_of(modules) as caught:
        output = model(batch)
        words = model.encode_text(batch.tokens)
        steps = model.steps
        start = steps.start(model.normalise(batch.images, batch.valid))
        first = steps.finish(0, steps.attend(0, start), None)
        second = steps.finish(1, steps.attend(1, first), model.update(1, words, start.grid, None))
    caught |= {name: caught[name][0] for name in ("decoder_layer_0", "decoder")}
    caught |= {f"tap_{index}": tap for index, tap in enumerate(taps)}
    caught |= {"word": words.states, "state": words.sentence, "logits": output.logits}
    caught |= {"dino_in": start.tokens, "dino_block_0": first.tokens, "dino_block_first_adapted": second.tokens}
    return caught


@pytest.mark.parametrize("name", LISTED)
def test_every_intermediate_agrees_with_the_official_code(name: str, source: Reference) -> None:
    expected = source.outputs[name]
    error = (intermediates()[name] - expected).abs().max()
    assert error <= 1e-5 * expected.abs().max()


def test_the_fixture_lists_nothing_else(source: Reference) -> None:
    assert source.outputs.keys() == set(LISTED)


# -- what the official code does and one might not expect -------------------------------------------------------------


def logits(model: RISModule, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch).logits


@pytest.fixture
def model(source: Reference) -> RISModule:
    return detris_small.build(source).double()


@pytest.fixture
def batch(source: Reference) -> Batch:
    return detris_small.batch(source)


def test_a_longer_text_length_changes_the_result(source: Reference, model: RISModule, batch: Batch) -> None:
    """Pads count like words, in the text's convolutions and in the aligners."""
    longer = copy.deepcopy(model)
    longer.text.length += 1
    assert (logits(model, batch) - logits(longer, batch)).abs().max() > 1e-3


def test_a_longer_text_length_changes_nothing_without_raw_pads(model: RISModule, batch: Batch) -> None:
    model.text.raw_pads = False
    assert batch.tokens is not None
    expected = logits(model, batch)
    longer = copy.deepcopy(batch)
    longer.tokens = batch.tokens.resized(11, pad=7)
    torch.testing.assert_close(logits(model, longer), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", ["text", "image"])
def test_special_tokens_count_twice(part: str, model: RISModule, batch: Batch) -> None:
    """In the adapters: the start of the sentence; class and register tokens."""
    if part == "text":
        adapter = model.text.model.encoder.layers[1].adapter
        states = torch.randn(1, 5, 32, dtype=torch.float64)
        reduced = adapter.down(states[:, :1]).relu()
        torch.testing.assert_close(adapter(states)[:, :1], 0.2 * adapter.up(2 * reduced))
    else:
        aligner, words = model.aligners["1"], torch.randn(1, 4, 32, dtype=torch.float64)
        tokens = torch.randn(1, 5 + 6, 48, dtype=torch.float64)
        reduced = aligner.down(tokens[:, :5]).relu()
        torch.testing.assert_close(aligner(tokens, words, None, (2, 3))[:, :5], 0.2 * aligner.up(2 * reduced))


def test_query_and_key_rows_of_the_neck_have_no_effect(model: RISModule, batch: Batch) -> None:
    expected = logits(model, batch)
    for factor in model.neck.factors:
        nn.init.normal_(factor.attention.in_proj_weight[:64].data)
        nn.init.normal_(factor.attention.in_proj_bias[:64].data)
    assert torch.equal(logits(model, batch), expected)


def test_without_what_adapters_add_both_encoders_are_the_original_ones(source: Reference, batch: Batch) -> None:
    adapted = detris_small.build(source).double()
    plain = detris_small.section(source.config)["init_args"]["text"]
    assert batch.tokens is not None
    for adapter in (*adapted.aligners.values(), *(layer.adapter for layer in adapted.text.model.encoder.layers[1:])):
        nn.init.zeros_(adapter.up.weight)
        nn.init.zeros_(adapter.up.bias)
    clip = build_text(TextConfig(**plain)).double().eval()
    clip.load_state_dict(
        {name: tensor for name, tensor in adapted.text.state_dict().items() if ".adapter." not in name}
    )
    words = clip(batch.tokens)
    with torch.no_grad():
        torch.testing.assert_close(adapted.encode_text(batch.tokens).states, words.states)
        features = adapted.backbone(batch.images, batch.valid)
        taps = adapted.aligned_maps(features.maps, words, {})
        (last,) = adapted.vision(adapted.normalise(batch.images, batch.valid))
    torch.testing.assert_close(taps[2], last)


def test_only_adapters_neck_decoder_and_head_train(source: Reference, batch: Batch) -> None:
    model = detris_small.build(source).train()
    before = copy.deepcopy(model.state_dict())
    optimizer, _ = make_optimizer(model, model.optim, 10)
    model.loss(model(batch), batch)["mask"].mean().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    outside = {name for name in moved if name.startswith(("vision.", "text.")) and ".adapter." not in name}
    assert not outside
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert any(".adapter." in name and "running_mean" in name for name in moved), "adapters train in a frozen encoder"


def test_two_sentences_on_one_image_equal_two_single_runs(model: RISModule, batch: Batch) -> None:
    both = copy.deepcopy(batch)
    both.images, both.valid, both.image_index = batch.images[:1], batch.valid[:1], torch.tensor([0, 0])
    alone = copy.deepcopy(batch)
    alone.images = batch.images[:1].expand(2, -1, -1, -1)
    torch.testing.assert_close(logits(model, both), logits(model, alone), rtol=1e-9, atol=1e-9)


def test_the_stream_before_the_first_aligner_is_cached(model: RISModule, batch: Batch) -> None:
    with torch.no_grad():
        raw = model.backbone(batch.images, batch.valid)
    assert [tuple(one.shape) for one in raw.maps] == [(2, 48, 5, 1), (2, 48, 9, 9)]
    cached = copy.deepcopy(batch)
    cached.raw = raw
    torch.testing.assert_close(logits(model, cached), logits(model, batch), rtol=1e-9, atol=1e-9)


def test_epsilons_are_the_published_ones(model: RISModule) -> None:
    found = {
        part: {m.eps for m in module.modules() if isinstance(m, nn.LayerNorm | nn.modules.batchnorm._BatchNorm)}
        for part, module in model.named_children()
    }
    assert found["vision"] == {1e-6}
    assert found["aligners"] == {1e-3}
    assert found["text"] == {1e-5, 1e-3}
    assert found["neck"] == {1e-5}
    assert found["decoder"] == {1e-5}


# -- options ----------------------------------------------------------------------------------------------------------


def test_dense_branches_read_those_before_them() -> None:
    widths = {
        dense: [branch[0][0].in_channels for branch in MixedConvolutions(32, 1, dense).branches]
        for dense in (True, False)
    }
    assert widths == {True: [32, 32 + 16, 32 + 16 + 8], False: [32, 32, 32]}


def test_pads_are_kept_out_of_the_convolutions_of_a_text_adapter() -> None:
    torch.manual_seed(0)
    adapter = TextAdapter(16, 16, Adapters()).double().eval()
    states, valid = torch.randn(1, 6, 16, dtype=torch.float64), torch.tensor([[True, True, True, True, False, False]])
    noisy = states.clone()
    noisy[:, 4:] = 7
    torch.testing.assert_close(adapter(states, valid)[:, :4], adapter(noisy, valid)[:, :4])
    assert (adapter(states)[:, :4] - adapter(noisy)[:, :4]).abs().max() > 1e-3


VARIANTS = [
    {"adapters": {"convolutions": "plain"}},
    {"adapters": {"convolutions": "none"}},
    {"aligners": {"words": False}},
    {"aligners": {"enabled": False}},
    {"text_adapters": {"enabled": False}},
    {"aligners": {"enabled": False}, "text_adapters": {"enabled": False}},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_option_trains_and_reads_the_sentence(options: dict[str, Any], source: Reference, batch: Batch) -> None:
    torch.manual_seed(0)
    section = detris_small.section(source.config)
    for name, values in options.items():
        section["init_args"][name] = {**section["init_args"].get(name, {}), **values}
    model = instantiate(RISModule, section)  # type: ignore[type-abstract]
    assert_trains_what_it_declares(model, batch)
    batch.images = batch.images[:1].expand(2, -1, -1, -1)
    one, other = logits(model.eval(), batch)
    assert (one - other).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("name", "data", "total", "trained"),
    [
        ("detris", "refcoco", 175_528_241, 25_518_129),
        ("detris-large", "refcoco", 394_104_881, 26_306_097),
    ],
)
def test_the_paper_scale_has_the_published_sizes(name: str, data: str, total: int, trained: int) -> None:
    """Less the mask token, CLIP's scale and the class token's position, which are added or left out."""
    model = skeleton(name, data, "paper")
    assert parameters(model) == (total, trained)
    assert model.size == (448, 448)


def test_the_model_for_mixed_data_has_wide_adapters_in_nearly_every_block() -> None:
    options = recipes.resolve("detris-large", "mixed", "paper")["model"]["init_args"]
    assert options["aligners"] == {"width": 384, "blocks": list(range(1, 24))}
    assert options["text_adapters"] == {"width": 384, "layers": list(range(1, 12))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": [4, 2]}, r"taps \[4, 2\] is invalid: give two rising block numbers from 0 to 5"),
        ({"aligners": {"blocks": [1, 6]}}, r"aligners.blocks \[1, 6\] is invalid: the encoder has blocks 0 to 5"),
        ({"aligners": {"blocks": [1], "width": 24}}, "the adapters' width 24 is invalid: give a multiple of 16"),
        ({"aligners": {"blocks": [1], "heads": 3}}, "aligners.attention 128 must be a multiple of its heads"),
        ({"text_adapters": {"layers": [3]}}, "the text encoder has layers 0 to 2: layer 3 cannot be adapted"),
    ],
)
def test_wrong_options_are_reported(options: dict[str, Any], message: str, source: Reference) -> None:
    section = detris_small.section(source.config)
    section["init_args"] |= options
    with pytest.raises(UserError, match=message):
        instantiate(RISModule, section)  # type: ignore[type-abstract]
