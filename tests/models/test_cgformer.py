"""CGFormer against the numbers of its authors' code at a small size, and the properties that its page states."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from riszoo import recipes
from riszoo.batch import Output, Words
from riszoo.bench.cost import skeleton
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.models.cgformer.decoder import GroupingDecoder, Head, MaskHead, Query
from riszoo.models.cgformer.grouping import Group, GumbelNoise, WordReader
from riszoo.models.cgformer.published import NAMES
from riszoo.training.optim import Optim, parameter_groups
from tests.support import cgformer_small, official
from tests.support.cgformer_small import Reference
from tests.support.lavt_small import STAGES, stage_modules, tensors_of
from tests.support.official import outputs_of
from tests.support.zoo import assert_trains_what_it_declares, tiny

LEVELS = range(3)


@pytest.fixture(scope="module")
def source() -> Reference:
    return cgformer_small.reference()


@cache
def intermediates() -> dict[str, Tensor]:
    """Every intermediate of both sentences in float64, by the fixture's names; the rounding of float32 differs between
    processors and would change a hit map where two scores are close."""
    source = cgformer_small.reference()
    model = cgformer_small.build(source).double()
    modules = {"text.states": model.text.model, "proj": model.decoder.head, **stage_modules(model)}
    modules |= {f"level{level + 1}.fused": model.decoder.fuses[level] for level in LEVELS}
    grouped: list[tuple[Tensor, Tensor, Tensor]] = []
    for grouping in model.decoder.groupings:
        grouping.register_forward_hook(lambda _module, inputs, output: grouped.append((inputs[0], *output)))
    with torch.no_grad(), outputs_of(modules) as caught:
        output = model(cgformer_small.batch(source))
        model.gates[3](caught["stage4.pwam"][0])  # no output depends on it, so decode does not compute it
    caught = tensors_of(caught)
    for level, (before, after, hits) in enumerate(grouped, 1):
        caught |= {f"level{level}.tokens_in": before, f"level{level}.tokens_out": after, f"level{level}.hitmap": hits}
    return {**caught, "logits": output.logits}


def second(name: str, like: Tensor) -> Tensor:
    """An intermediate of the second sentence, or of both where the fixture has both, in the fixture's shape."""
    return intermediates()[name][-len(like) :].reshape(like.shape)


MAPS = [f"stage{s + 1}.{part}" for s in STAGES for part in ("blocks", "pwam", "gate", "out")]
MAPS += [f"level{k + 1}.{part}" for k in LEVELS for part in ("fused", "tokens_in", "tokens_out")]
MAPS = [*(name for name in MAPS if name != "level3.fused"), "proj"]


@pytest.mark.parametrize("name", MAPS)
def test_every_map_agrees_with_the_official_code(name: str, source: Reference) -> None:
    expected, tolerance = source.tensors[f"maps.{name}"], 4 * source.rounding[f"maps.{name}"]
    found = intermediates()[name]
    rows = len(expected) if name.startswith("level") else 1
    found = found[-rows:].reshape(expected.shape)
    assert (found - expected).abs().max() <= tolerance


@pytest.mark.parametrize("level", [1, 2, 3])
def test_each_pixel_belongs_to_one_token_the_official_one(level: int, source: Reference) -> None:
    expected = source.tensors[f"maps.level{level}.hitmap"]
    found = second(f"level{level}.hitmap", expected)
    assert torch.equal(found.round(), expected.round().double())
    assert (found - found.round()).abs().max() < 1e-6
    assert (found.sum(1) - 1).abs().max() < 1e-6


def test_word_states_agree_with_the_official_code(source: Reference) -> None:
    valid = source.tensors["input.mask"].bool()
    error = (intermediates()["text.states"] - source.tensors["maps.text.states"])[valid].abs().max()
    assert error <= 4 * source.rounding["maps.text.states"]


def test_logits_agree_with_the_official_code(source: Reference) -> None:
    error = (intermediates()["logits"] - source.tensors["output.logits"]).abs().max()
    assert error <= 4 * source.rounding["output.logits"]


def logits(model: RISModule, source: Reference) -> Tensor:
    with torch.no_grad():
        return model(cgformer_small.batch(source)).logits


def test_logits_without_noise_agree_with_the_official_code(source: Reference) -> None:
    expected = source.tensors["output.logits_without_noise"]
    found = logits(cgformer_small.build(source, noisy=False).double(), source)
    assert (found[1:] - expected).abs().max() <= 4 * source.rounding["output.logits"]


# -- loss and gradients -----------------------------------------------------------------------------------------------


def test_loss_and_gradients_agree_with_the_official_code(source: Reference) -> None:
    """In float64, except that one unit of the head, at -1.5e-7, is above zero as in the official float32: its ReLU
    changes the encoder's gradients by 1e-4. `tau`, trained for this comparison, has a small sum of large terms."""
    batch = cgformer_small.batch(source)
    model = cgformer_small.build(source).double()
    for grouping in model.decoder.groupings:
        grouping.tau.requires_grad_(True)
    relu = model.decoder.head.upsample[0][3]
    relu.register_forward_pre_hook(lambda _module, inputs: inputs[0] + 3e-7 * (inputs[0].abs() < 2e-7))
    terms = model.loss(model(batch), batch)
    assert list(terms) == ["mask", "dice", "contrast"]
    loss = torch.stack([term.mean() for term in terms.values()]).sum()
    torch.testing.assert_close(loss[None].float(), source.tensors["train.loss"], rtol=1e-5, atol=0)
    loss.backward()
    expected = official.with_prefix(source.tensors, "train.grad.")
    assert len(expected) == 10
    tolerance = {name: 1e-4 for name in expected if name.endswith("tau")}
    official.assert_gradients_agree(model, expected, NAMES, tolerance)
    assert model.decoder.groupings[1].tau.grad == 0, "a temperature of at least 1 is clamped"
    assert model.decoder.groupings[0].tau.grad != 0


def test_what_no_loss_trains_is_declared(source: Reference) -> None:
    model = cgformer_small.build(source)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    taus = {"decoder.groupings.0.tau", "decoder.groupings.1.tau"}
    assert frozen == {"gates.3.0.weight", "gates.3.2.weight"} | taus
    batch = cgformer_small.batch(source)
    torch.stack([term.sum() for term in model.loss(model(batch), batch).values()]).sum().backward()
    assert all((parameter.grad is None) == (name in frozen) for name, parameter in model.named_parameters())


def test_the_loss_of_a_perfect_hit_map_is_not_zero(source: Reference) -> None:
    """A hit of 1 passes a sigmoid and counts 0.731."""
    model = cgformer_small.build(source)
    batch = cgformer_small.batch(source)
    batch.masks = torch.ones_like(batch.masks)  # type: ignore[arg-type]
    hits = {f"group{level}": torch.ones(2, *grid) for level, grid in enumerate([(8, 10), (16, 20), (32, 40)], 1)}
    terms = model.loss(Output(torch.zeros(2, 1, 128, 160), aux=hits), batch)
    hit, expected = torch.tensor(1.0).sigmoid(), torch.tensor(0.0)
    for weight, n in ((0.001, 80), (0.01, 320), (0.1, 1280)):
        expected = expected + weight * (1 - (2 * hit * n + 1) / (hit * n + n + 1))
    torch.testing.assert_close(terms["contrast"], expected.expand(2))


# -- the decoder ------------------------------------------------------------------------------------------------------


def test_the_temperature_does_not_change_a_hard_grouping(source: Reference) -> None:
    usual, other = cgformer_small.build(source).double(), cgformer_small.build(source).double()
    for grouping in other.decoder.groupings:
        grouping.tau.fill_(-0.9)
    torch.testing.assert_close(logits(usual, source), logits(other, source))


@pytest.mark.parametrize(("index", "changed"), [(0, [True, True, True]), (1, [False, True, True])])
def test_the_finer_levels_share_one_grouping(index: int, changed: list[bool], source: Reference) -> None:
    model = cgformer_small.build(source).double()
    torch.nn.init.zeros_(model.decoder.groupings[index].project.weight)
    after: list[Tensor] = []
    for grouping in model.decoder.groupings:
        grouping.register_forward_hook(lambda _module, _inputs, output: after.append(output[0]))
    logits(model, source)
    usual = [intermediates()[f"level{level}.tokens_out"] for level in (1, 2, 3)]
    assert [bool((one - other).abs().max() > 1e-6) for one, other in zip(after, usual, strict=True)] == changed


def test_the_first_grouping_starts_from_the_learned_tokens(source: Reference) -> None:
    tokens = intermediates()["level1.tokens_in"]
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0].float(), source.weights["decoder.tokens.weight"])


@pytest.mark.parametrize(("readers", "first_reads"), [("last", False), ("all", True)])
def test_which_tokens_read_the_words(readers: Any, first_reads: bool) -> None:
    torch.manual_seed(0)
    reader = WordReader(8, 6, readers, 0.0)
    tokens, mask = torch.randn(1, 3, 8).expand(2, -1, -1), torch.ones(2, 4, dtype=torch.bool)
    one, other = reader(tokens, Words(torch.randn(2, 4, 6), mask, None, [[], []]))
    assert (not torch.equal(one[0], other[0])) == first_reads
    assert not torch.equal(one[-1], other[-1])


def test_around_the_mask_there_is_the_bias_alone() -> None:
    torch.manual_seed(0)
    head = MaskHead(8, Head()).eval()
    token = torch.randn(2, 8)
    with torch.no_grad():
        mask = head(torch.randn(2, 8, 5, 6), token)
        bias = head.dynamic(token)[:, -1]
    assert mask.shape == (2, 1, 22, 26)
    for side in (mask[..., 0, :], mask[..., -1, :], mask[..., 0], mask[..., -1]):
        assert torch.equal(side.flatten(1), bias[:, None].expand_as(side.flatten(1)))
    assert (mask[..., 1:-1, 1:-1] - bias[:, None, None, None]).abs().max() > 0


def build_decoder(**group: Any) -> GroupingDecoder:
    torch.manual_seed(0)
    return GroupingDecoder([4, 8, 8], [(8, 8), (4, 4), (2, 2)], 6, Query(), Group(**group), Head(upsamplings=0)).eval()


def decoded(decoder: GroupingDecoder, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, c, n, n, generator=generator) for c, n in ((4, 8), (8, 4), (8, 2))]
    words = Words(torch.randn(1, 3, 6, generator=generator), torch.ones(1, 3, dtype=torch.bool), None, [[]])
    torch.manual_seed(seed)
    with torch.no_grad():
        _, hits = decoder(maps, words)
    return torch.cat([hit.flatten() for hit in hits])


@pytest.mark.parametrize(
    ("noise", "training", "random"),
    [
        ("seeded", False, False),
        ("seeded", True, True),
        ("training", False, False),
        ("training", True, True),
        ("always", False, True),
        ("never", True, False),
    ],
)
def test_when_the_grouping_is_random(noise: str, training: bool, random: bool) -> None:
    decoder = build_decoder(noise=noise)
    decoder.noise.train(training)
    assert torch.equal(decoded(decoder, 0), decoded(decoder, 0))
    assert torch.equal(decoded(decoder, 0), decoded(decoder, 1)) == (not random)


def test_the_noise_is_gumbel_noise() -> None:
    torch.manual_seed(0)
    drawn, seeded = GumbelNoise("always", 4, []), GumbelNoise("seeded", 4, [50_000]).eval()
    for noise in (drawn, seeded):
        values = noise(torch.zeros(1, 4, 50_000))
        assert abs(values.mean() - 0.5772) < 0.02
        assert abs(values.std() - torch.pi / 6**0.5) < 0.02


def test_the_seeded_noise_is_the_same_for_every_sentence_and_precision() -> None:
    noise = GumbelNoise("seeded", 2, [16, 64]).eval()
    values = noise(torch.zeros(3, 2, 16))
    assert torch.equal(values[0], values[1])
    assert torch.equal(noise(torch.zeros(1, 2, 16, dtype=torch.float64)), values[:1].double())
    assert noise(torch.zeros(1, 2, 64)).shape == (1, 2, 64)
    assert noise.state_dict() == {}


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"query": {"tokens": 3}},
        {"query": {"readers": "all"}},
        {"group": {"kind": "soft"}},
        {"group": {"kind": "attention"}, "contrast": {"weight": 0.0}},
        {"group": {"noise": "never"}},
        {"group": {"consecutive": False}},
        {"head": {"upsamplings": 2, "padding": 1, "width": 16}},
        {"contrast": {"weight": 0.0}},
        {"pathway": {"enabled": False}},
        {"vision": {"stages": 2}},
    ],
    ids=str,
)
def test_every_ablation_trains_all_that_it_declares(options: dict[str, Any]) -> None:
    assert_trains_what_it_declares(tiny("cgformer", size=64, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": {"kind": "attention"}}, "set contrast.weight to 0"),
        ({"query": {"tokens": 1}}, "query.tokens is 1"),
        ({"vision": {"stages": 1}}, "at least two maps"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny("cgformer", **options)


# -- full size --------------------------------------------------------------------------------------------------------


def test_the_parameters_of_the_published_size() -> None:
    """Without the 12 tensors that the published files have and no output depends on."""
    model = skeleton("cgformer", "refcoco", "paper")
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.decoder.named_children()}
    assert count["fuses"] == 20_653_056
    assert count["groupings"] == 4_207_618
    assert count["head"] == 5_246_465
    assert count["position_embeddings"] == 9_676_800
    unused = 2 * (2 * 512 + 512 * 1024 + 1024 + 1024 * 512 + 512)
    assert count["readers"] + count["position_embeddings"] + unused == 16_508_928
    assert model.decoder.queries.numel() == 1_024
    assert sum(p.numel() for p in model.parameters()) == 253_705_595 - unused


def test_the_published_learning_rates(source: Reference) -> None:
    """1e-4 for the decoder and what is named `pwam`, 5e-5 for all else; weight decay of everything."""
    optim = recipes.resolve("cgformer", "refcoco", "paper")["model"]["init_args"]["optim"]
    assert optim["amsgrad"]
    model = cgformer_small.build(source)
    groups = parameter_groups(model, Optim(**optim))
    assert {group["weight_decay"] for group in groups} == {1e-4}
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    for published in source.weights:
        name = NAMES.new_name(published)
        parameter = dict(model.named_parameters()).get(str(name))
        if parameter is not None and parameter.requires_grad:
            expected = 1e-4 if "pwam" in published or published.startswith("decoder.") else 5e-5
            assert rate[id(parameter)] == expected, published
