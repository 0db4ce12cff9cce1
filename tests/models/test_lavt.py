"""LAVT against the numbers of its authors' code at a small size, and the properties that its page states."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from riszoo.batch import Words
from riszoo.bench.cost import skeleton
from riszoo.build import instantiate
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.models.lavt.decoder import TopDownDecoder
from riszoo.models.lavt.fusion import PixelWordAttention
from riszoo.models.lavt.published import NAMES
from riszoo.training.optim import Optim, parameter_groups
from tests.support import lavt_small, official
from tests.support.lavt_small import STAGES, Reference, stage_modules, tensors_of
from tests.support.official import outputs_of
from tests.support.zoo import assert_trains_what_it_declares, tiny


@pytest.fixture(scope="module")
def source() -> Reference:
    return lavt_small.reference()


@cache
def intermediates() -> dict[str, Tensor]:
    """Every intermediate of the second sentence, and both sentences' logits, by the fixture's names."""
    source = lavt_small.reference()
    model = lavt_small.build(source)
    modules = {"decoder.logits": model.decoder.classify, "text.states": model.text.model, **stage_modules(model)}
    with torch.no_grad(), outputs_of(modules) as caught:
        logits = model(lavt_small.batch(source)).logits
        model.gates[3](caught["stage4.pwam"][0])  # no output depends on it, so decode does not compute it
    return tensors_of(caught) | {"logits": logits}


def second(name: str) -> Tensor:
    """An intermediate of the second sentence, maps as tokens."""
    value = intermediates()[name][-1:]
    return value.flatten(1, 2) if name.endswith("blocks") else value


@pytest.mark.parametrize("name", [f"stage{s + 1}.{part}" for s in STAGES for part in ("blocks", "pwam", "gate", "out")])
def test_every_stage_agrees_with_the_official_code(name: str, source: Reference) -> None:
    expected, tolerance = source.tensors[f"maps.{name}"], 4 * source.rounding[f"maps.{name}"]
    assert (second(name) - expected).abs().max() <= tolerance


def test_word_states_agree_with_the_official_code(source: Reference) -> None:
    valid = source.tensors["input.mask"].bool()
    error = (intermediates()["text.states"] - source.tensors["maps.text.states"])[valid].abs().max()
    assert error <= 4 * source.rounding["maps.text.states"]


def test_logits_agree_with_the_official_code(source: Reference) -> None:
    coarse = intermediates()["decoder.logits"][1:] - source.tensors["maps.decoder.logits"]
    assert coarse.abs().max() <= 4 * source.rounding["maps.decoder.logits"]
    background, target = source.tensors["output.logits"].split(1, 1)
    error = (intermediates()["logits"] - (target - background)).abs().max()
    assert error <= 2 * 4 * source.rounding["output.logits"], "a difference of two logits rounds twice"


def test_the_first_stage_is_the_same_for_both_sentences(source: Reference) -> None:
    assert len(intermediates()["stage1.blocks"]) == 1, "computed once for the image"
    assert source.tensors["maps.stage1.blocks"].shape[0] == 1


# -- loss and gradients -----------------------------------------------------------------------------------------------


def test_the_loss_of_each_sentence_agrees_with_the_official_code(source: Reference) -> None:
    batch = lavt_small.batch(source)
    model = lavt_small.build(source)
    terms = model.loss(model(batch), batch)
    assert list(terms) == ["mask"]
    torch.testing.assert_close(terms["mask"], source.tensors["train.loss_per_sentence"], rtol=1e-5, atol=0)


def test_gradients_agree_with_the_official_code(source: Reference) -> None:
    """Of the official loss, which divides by the class weights of the whole batch; in float64, since float32 differs by
    up to 5e-4 between the kernels of two processors."""
    batch = lavt_small.batch(source)
    model = lavt_small.build(source).double()
    logits = model(batch).logits
    classes = torch.cat([torch.zeros_like(logits), logits], 1)
    assert batch.masks is not None
    loss = F.cross_entropy(classes, batch.masks.long(), weight=torch.tensor([0.9, 1.1], dtype=torch.float64))
    torch.testing.assert_close(loss[None].float(), source.tensors["train.loss"], rtol=1e-5, atol=0)
    loss.backward()
    expected = official.with_prefix(source.tensors, "train.grad.")
    assert len(expected) == 6
    official.assert_gradients_agree(model, expected, NAMES)


def test_only_the_last_gate_is_never_trained(source: Reference) -> None:
    """Its result is thrown away, but checkpoints contain it."""
    model = lavt_small.build(source)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"gates.3.0.weight", "gates.3.2.weight"}
    batch = lavt_small.batch(source)
    model.loss(model(batch), batch)["mask"].sum().backward()
    assert all((parameter.grad is None) == (name in frozen) for name, parameter in model.named_parameters())


# -- the parts --------------------------------------------------------------------------------------------------------


def words_of(states: Tensor, mask: Tensor | None = None) -> Words:
    mask = torch.ones(states.shape[:2], dtype=torch.bool) if mask is None else mask
    return Words(states, mask, None, [[] for _ in states])


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_scores_are_divided_by_the_root_of_all_channels(heads: int) -> None:
    torch.manual_seed(0)
    fusion = PixelWordAttention(8, 8, heads, "none", 0.0)
    for linear in (fusion.query, fusion.key):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    pixels, states = torch.randn(1, 6, 8), torch.randn(1, 3, 8)
    _, weights = fusion(fusion.image_parts(pixels), words_of(states))
    per_head = zip(pixels.chunk(heads, -1), states.chunk(heads, -1), strict=True)
    expected = torch.stack([(query @ key.mT / 8**0.5).softmax(-1) for query, key in per_head]).mean(0)
    torch.testing.assert_close(weights, expected)


def test_pixels_attend_to_no_pad_word() -> None:
    torch.manual_seed(0)
    fusion = PixelWordAttention(8, 8, 1, "instance", 0.0)
    mask = torch.tensor([[True, True, False]])
    _, weights = fusion(fusion.image_parts(torch.randn(1, 6, 8)), words_of(torch.randn(1, 3, 8), mask))
    assert not weights[..., 2].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 6))


def decoder_inputs(model: RISModule, source: Reference) -> tuple[list[Tensor], list[Tensor]]:
    """F_1 and, of both sentences, V_2: what the decoder and what the next stage reads of the first stage."""
    with torch.no_grad(), outputs_of({"F": model.norms[0], "V": model.vision.stages[1]}) as caught:
        model(lavt_small.batch(source))
    return list(caught["F"]), list(caught["V"])


def test_with_gates_at_zero_only_the_decoder_reads_language(source: Reference) -> None:
    model = lavt_small.build(source)
    for gate in model.gates:
        torch.nn.init.zeros_(gate[2].weight)
    (read, other_read), (seen, other_seen) = decoder_inputs(model, source)
    torch.testing.assert_close(seen, other_seen)
    assert (read - other_read).abs().max() > 0.1


def test_the_decoder_reads_the_product_and_not_the_gated_sum(source: Reference) -> None:
    """A product scaled by a constant is the same after the norm, and another input of the next stage."""
    usual, scaled = lavt_small.build(source).double(), lavt_small.build(source).double()
    scaled.fusion[0].register_forward_hook(lambda _module, _inputs, output: (10 * output[0], output[1]))
    read, seen = decoder_inputs(usual, source)
    other_read, other_seen = decoder_inputs(scaled, source)
    torch.testing.assert_close(read, other_read, rtol=2e-2, atol=2e-2)
    assert (seen[0] - other_seen[0]).abs().max() > 0.1


def test_logits_are_enlarged_with_aligned_corners(source: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ramp stays a ramp, with the same values at its ends."""
    ramp = torch.linspace(-1, 1, 48).expand(2, 1, 40, 48)
    monkeypatch.setattr(TopDownDecoder, "forward", lambda _decoder, _maps: ramp)
    with torch.no_grad():
        logits = lavt_small.build(source)(lavt_small.batch(source)).logits
    torch.testing.assert_close(logits, torch.linspace(-1, 1, 192).expand(2, 1, 160, 192))


# -- full size ---------------------------------------------------------------------------------------------------------


def test_the_parameters_of_the_published_size() -> None:
    model = skeleton("lavt", "refcoco", "paper")
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert sum(count.values()) == 227_739_514
    assert count["decoder"] == 20_651_010
    assert count["text"] == 108_891_648
    assert count["gates"] == 2_785_280
    assert count["fusion"] == 8_531_200


# -- training ---------------------------------------------------------------------------------------------------------


def test_the_published_optimiser_groups(source: Reference) -> None:
    """No decay for norms and bias tables of the encoder and of what is inside its stages; the first layers of BERT."""
    model = lavt_small.build(source, frozen_embeddings=True, trained_text_layers=1)
    groups = parameter_groups(model, Optim(lr=5e-5, weight_decay=0.01, decayed="published"))
    assert {group["lr"] for group in groups} == {5e-5}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    official = {NAMES.new_name(name): name for name in source.weights}
    for name, parameter in model.named_parameters():
        published = official[name]
        if published.startswith(
            ("text_encoder.embeddings", "text_encoder.encoder.layer.1", "backbone.layers.3.res_gate")
        ):
            assert id(parameter) not in decay, published
            continue
        plain = published.startswith("backbone.") and ("norm" in published or "bias_table" in published)
        assert decay[id(parameter)] == (0.0 if plain else 0.01), published


def test_more_trained_layers_than_the_text_encoder_has_is_an_error(source: Reference) -> None:
    with pytest.raises(UserError, match="the text encoder has 2 layers; train 0 to 2, not 3"):
        lavt_small.build(source, trained_text_layers=3)


@pytest.mark.parametrize(
    "options",
    [
        {"pathway": {"enabled": False}},
        {"pathway": {"gate": "sigmoid"}},
        {"pathway": {"gate": "none"}},
        {"fusion": {"kind": "sentence"}},
        {"fusion": {"norm": "layer"}},
        {"fusion": {"norm": "batch"}},
        {"fusion": {"norm": "none"}},
        {"fusion": {"heads": [1, 2, 4], "dropout": 0.1}},
        {"decoder_input": "visual"},
        {"decoder_input": "gated"},
        {"segment": {"loss": "dice"}},
        {"vision": {"name": "resnet18", "stages": 1}},
    ],
    ids=str,
)
def test_every_ablation_trains_all_that_it_declares(options: dict[str, Any]) -> None:
    assert_trains_what_it_declares(tiny("lavt", size=64, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pathway": {"enabled": False}, "decoder_input": "visual"}, "change decoder_input 'visual'"),
        ({"fusion": {"heads": 3}}, "fusion.heads 3 is invalid"),
        ({"fusion": {"heads": [1, 2]}}, "one for each stage"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny("lavt", **options)


def test_weights_in_the_names_of_the_swin_release_load(tmp_path: Path, source: Reference) -> None:
    """Its classifier, last norm and masks find no use; merging layers belong to the stage before."""
    state = {n.removeprefix("backbone."): t for n, t in source.weights.items() if n.startswith("backbone.")}
    state = {n: t for n, t in state.items() if not any(part in n for part in ("fusion", "res_gate", "norm0", "norm3"))}
    state = {n: t for n, t in state.items() if not n.startswith("norm")}
    extra = {"norm.weight": torch.ones(64), "norm.bias": torch.zeros(64), "head.weight": torch.zeros(3, 64)}
    extra |= {"head.bias": torch.zeros(3), "layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16)}
    torch.save({"model": state | extra}, tmp_path / "swin.pth")
    section = lavt_small.section(source.config)
    section["init_args"]["vision"]["weights"] = str(tmp_path / "swin.pth")
    model = instantiate(RISModule, section)  # type: ignore[type-abstract]
    expected = lavt_small.build(source).vision.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.vision.state_dict().items())
