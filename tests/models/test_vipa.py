"""VIPA against section 11 of its specification."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from riszoo.batch import Words
from riszoo.encoders.base import TextConfig, VisionConfig
from riszoo.encoders.text import build_text
from riszoo.encoders.vision import build_vision
from riszoo.models.vipa.fusion import Fusion, build_fusion
from riszoo.models.vipa.model import (
    Expression,
    Veg,
    VisualExpressionGenerator,
    holding,
    most_relevant,
)
from tests.support.vipa_small import SMALL, small
from tests.support.zoo import Entry, batch_of

T, L, C, E, D = 36, 7, 24, 20, 32
GRID = (6, 6)
KV = ("ve", "advanced_le", "vanilla_le")


def words(n: int = 2, valid: int = 5) -> Words:
    torch.manual_seed(1)
    mask = (torch.arange(L) < valid).expand(n, L)
    states = torch.randn(n, L, E, dtype=torch.float64) * mask[..., None]
    return Words(states, mask, torch.zeros(n, dtype=torch.long), [[]] * n)


def generator(**options: Any) -> VisualExpressionGenerator:
    torch.manual_seed(0)
    return VisualExpressionGenerator(Veg(**options), C, E, L, D, 4).double().eval()


def express(veg: VisualExpressionGenerator, said: Words) -> Expression:
    torch.manual_seed(2)
    return veg(torch.randn(2, C, *GRID, dtype=torch.float64), said, torch.ones(2, T, dtype=torch.bool))


def found_by(veg: VisualExpressionGenerator, said: Words) -> tuple[Tensor, Any]:
    """The projected tokens, and what step 1 retrieves of them."""
    torch.manual_seed(2)
    tokens = veg.token(torch.randn(2, T, C, dtype=torch.float64))
    return tokens, veg.retrieve(veg.cue(said.states), tokens, torch.ones(2, T, dtype=torch.bool), said)


# -- section 11 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cues", ["both", "local", "global", "broadcast", "none"])
def test_pad_words_change_no_valid_row(cues: str) -> None:
    veg, said = generator(cues=cues), words()
    other = Words(torch.where(said.mask[..., None], said.states, 9.0), said.mask, said.global_index, said.spans)
    one, two = express(veg, said), express(veg, other)
    assert one.mask.any(-1).all()
    assert torch.equal(one.states[one.mask], two.states[one.mask])


@pytest.mark.parametrize(("tokens", "ratio", "wanted"), [(225, 0.3, 68), (225, 0.2, 45), (225, 1.0, 225), (9, 0.01, 1)])
def test_a_cue_retrieves_its_share(tokens: int, ratio: float, wanted: int) -> None:
    scores = torch.randn(2, 4, tokens)
    mask = most_relevant(scores, torch.ones(2, tokens, dtype=torch.bool), ratio)
    assert (mask.sum(-1) == wanted).all()
    assert (scores.masked_fill(~mask, math.inf).amin(-1) >= scores.masked_fill(mask, -math.inf).amax(-1)).all()


def test_of_a_padded_image_the_share_of_what_is_image() -> None:
    cells = torch.arange(225) < torch.tensor([[100], [3]])
    scores = torch.randn(2, 4, 225).masked_fill(~cells[:, None], -math.inf)
    mask = most_relevant(scores, cells, 0.3)
    assert mask.sum(-1).tolist() == [[30] * 4, [1] * 4]
    assert not (mask & ~cells[:, None]).any()


def test_refinement_sees_nothing_but_what_was_retrieved() -> None:
    veg = generator(ratio=0.3)
    tokens, found = found_by(veg, words())
    weights = veg.look.attention.weights(veg.look.norm(tokens[:, :L]), tokens, found.mask)
    assert (weights[~found.mask] == 0).all()
    assert (weights[found.mask] > 0).all()
    pooled = veg.aggregate(found, tokens)
    row = 3
    edited = torch.where(found.mask[:, row, :, None], tokens, torch.randn_like(tokens))
    before, after = (veg.look(pooled, found.mask, t)[:, row] for t in (tokens, edited))
    torch.testing.assert_close(before, after, rtol=0, atol=0)


@pytest.mark.parametrize(("sampling", "reached"), [("gumbel_st", True), ("softmax_st", True), ("hard", False)])
@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_the_mask_alone_teaches_the_relevance(sampling: str, reached: bool, aggregate: str) -> None:
    model = small(veg={"sampling": sampling, "aggregate": aggregate}, contrast={"weight": 0.0}).train()
    batch = batch_of(model, 2, 2)
    terms = model.loss(model(batch), batch)
    assert set(terms) == {"mask"}
    terms["mask"].mean().backward()
    for layer in (model.expression.relevance.cue, model.expression.relevance.token):
        assert (layer.weight.grad is not None and bool(layer.weight.grad.abs().sum() > 0)) is reached


def test_noise_in_training_only() -> None:
    veg, said = generator(), words()
    assert torch.equal(express(veg, said).states, express(veg, said).states)
    veg.train()
    (_, one), (_, two) = found_by(veg, said), found_by(veg, said)
    assert torch.equal(one.mask, two.mask), "the noise comes from torch's generator"
    grid, cells = torch.randn(2, C, *GRID, dtype=torch.float64), torch.ones(2, T, dtype=torch.bool)
    assert not torch.equal(veg(grid, said, cells).retrieval.mask, veg(grid, said, cells).retrieval.mask)


def test_all_tokens_retrieved_is_plain_cross_attention() -> None:
    veg = generator(ratio=1.0)
    tokens, found = found_by(veg, words())
    assert found.mask.all()
    pooled = veg.aggregate(found, tokens)
    plain, masked = veg.look(pooled, None, tokens), veg.look(pooled, found.mask, tokens)
    torch.testing.assert_close(plain, masked, rtol=1e-12, atol=1e-12)


def test_keys_and_values_change_nothing_else() -> None:
    models = {kv: small(kv=kv) for kv in KV}
    sizes = {kv: [tuple(p.shape) for p in model.decoder.parameters()] for kv, model in models.items()}
    assert sizes["ve"] == sizes["advanced_le"] == sizes["vanilla_le"]
    batch = batch_of(models["ve"], 2, 2)
    vanilla, advanced = models["vanilla_le"].eval(), models["advanced_le"].eval()
    vanilla.load_state_dict(advanced.state_dict())
    assert (vanilla(batch).logits - advanced(batch).logits).abs().max() > 1e-6, "words that met the image differ"
    assert set(vanilla.loss(vanilla(batch), batch)) == {"mask"}, "no retrieval, nothing to supervise"


@pytest.mark.parametrize("fusion", ["none", "late", "early"])
@pytest.mark.parametrize("vision", ["cnn", "vit", "swin"])
def test_any_encoder_will_do(fusion: str, vision: str) -> None:
    encoders = {
        "cnn": {"name": "tests.support.vipa_small.ToyCNN", "options": {}},
        "vit": {
            "name": "vit_tiny_patch16_224",
            "options": {"embed_dim": 24, "depth": 2, "num_heads": 2, "dynamic_img_size": False},
        },
        "swin": {
            "name": "swin_tiny_patch4_window7_224",
            "options": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
        },
    }
    section = {
        **SMALL["init_args"],
        "vision": encoders[vision],
        "fusion": {**SMALL["init_args"]["fusion"], "kind": fusion},
    }
    model = Entry("vipa", {**SMALL, "init_args": section}).build()
    batch = batch_of(model, 2, 2)
    terms = model.loss(model(batch), batch)
    torch.stack([term.mean() for term in terms.values()]).sum().backward()
    assert model(batch).logits.shape == (4, 1, 16, 16)
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("vision"))


def test_the_expression_moves_with_its_cues() -> None:
    veg, said = generator(), words(valid=L)
    order = torch.tensor([0, 3, 1, 2, 6, 5, 4])
    moved = Words(said.states[:, order], said.mask, said.global_index, said.spans)
    torch.testing.assert_close(express(veg, moved).states, express(veg, said).states[:, order], rtol=1e-9, atol=1e-9)


def test_early_fusion_begins_as_the_plain_encoder() -> None:
    """The tokens that enter each later stage are the plain encoder's; each map is already a fused one."""
    model = small().double().eval()
    entered: list[Tensor] = []
    blocks = model.vision.blocks
    model.vision.blocks = lambda stage, x: entered.append(x) or blocks(stage, x)  # type: ignore[assignment,func-returns-value]
    batch = batch_of(model, 2, 1)
    x = model.normalise(batch.images, batch.valid)
    plain = model.vision(x)
    alone = [*entered]
    entered.clear()
    model(batch)
    for one, two in zip(alone, entered, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    for gated in [*model.fusion.gate, *model.fusion.gate_down]:
        nn.init.normal_(gated.gate[2].weight)
    entered.clear()
    model(batch)
    assert all((one - two).abs().max() > 1e-6 for one, two in zip(alone[1:], entered[1:], strict=True))
    assert len(plain) == 4


def test_numbers_of_parameters() -> None:
    with torch.device("meta"):
        veg = VisualExpressionGenerator(Veg(), 1024, 768, 21, 512, 8)
        swin = build_vision(VisionConfig("swin_base_patch4_window12_384"), (480, 480))
        text = build_text(TextConfig("bert", vocabulary=[str(i) for i in range(30522 - 4)]))
        bert = count(text)
        fusion = build_fusion(Fusion(), swin, text)
    # timm's feature chain leaves out the last LayerNorm, which no map passes (2 x 1024)
    assert count(swin) + 2048 == 86_878_584
    assert bert == 108_891_648
    assert 7.9e6 < count(veg) < 8.1e6
    assert [layer.back.in_features for layer in fusion.fuse] == [256, 256, 512, 1024]
    assert [layer.heads for layer in fusion.fuse] == [4, 4, 8, 16]
    assert [look.attention.k.in_features for look in fusion.hear] == [256, 512, 1024]
    assert (len(text.model.encoder.layer), len(text.later)) == (6, 3)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("cues", ["both", "local", "global", "broadcast"])
def test_cues_choose_the_rows_that_count(cues: str) -> None:
    veg, said = generator(cues=cues), words(valid=5)
    made = express(veg, said)
    assert made.mask[0].nonzero()[:, 0].tolist() == {"global": [0], "local": [1, 2, 3, 4]}.get(cues, [0, 1, 2, 3, 4])
    alike = (made.retrieval.mask == made.retrieval.mask[:, :1]).all()
    assert bool(alike) is (cues == "broadcast")


def test_adaptive_retrieval_takes_the_fewest_that_hold_the_share() -> None:
    scores = torch.tensor([[[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]]]).log()
    assert holding(scores, 0.5).sum(-1).tolist() == [[1, 2]]
    assert holding(scores, 0.79).tolist() == [[[True, True, False, False], [True] * 4]]
    assert holding(scores, 1.0).all()
    mass = (scores.softmax(-1) * holding(scores, 0.7)).sum(-1)
    assert (mass >= 0.7).all()
