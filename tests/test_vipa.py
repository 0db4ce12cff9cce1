"""VIPA against section 11 of its specification, and each of its switches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from riszoo import recipes
from riszoo.batch import Batch, Features, Output, Words
from riszoo.build import instantiate
from riszoo.encoders.base import Text, Vision, VisionEncoder
from riszoo.encoders.text import build_text
from riszoo.encoders.vision import build_vision
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.models.vipa import (
    VIPA,
    Contrast,
    Expression,
    Segment,
    Veg,
    VisualExpressionGenerator,
    holding,
    most_relevant,
    pixel_bce,
    pixel_infonce,
    weighted_cross_entropy,
)
from riszoo.models.vipa_fusion import Fusion, build_fusion, to_tokens
from tests.zoo import Entry, batch_of

T, L, C, E, D = 36, 7, 24, 20, 32
GRID = (6, 6)
KV = ("ve", "advanced_le", "vanilla_le")
SMALL = {
    "class_path": "riszoo.models.vipa.VIPA",
    "init_args": {
        "size": 64,
        "vision": {"name": "resnet18", "options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}},
        "text": {
            "name": "bert",
            "options": {
                "hidden_size": 32,
                "num_hidden_layers": 5,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
        },
        "fusion": {"layers": 2, "head": 16, "least": 16},
        "veg": {"stride": 8},
        "decoder": {"layers": 1, "width": 16},
        "width": 32,
        "heads": 2,
    },
}


class ToyCNN(VisionEncoder):
    """Strides no encoder of the zoo has, and a step between stages that does not change the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = [6, 10], [2, 8]
        self.first = nn.Conv2d(3, 6, 3, 2, 1)
        self.second = nn.Conv2d(6, 10, 5, 4, 2)

    def stem(self, x: Tensor) -> Tensor:
        return self.first(x)

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        return (self.second(x) if stage else x).relu()


def small(**over: Any) -> RISModule:
    return Entry("vipa", SMALL).build(**over)


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


def test_of_a_padded_picture_the_share_of_what_is_picture() -> None:
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
    assert (vanilla(batch).logits - advanced(batch).logits).abs().max() > 1e-6, "words that met the picture differ"
    assert set(vanilla.loss(vanilla(batch), batch)) == {"mask"}, "no retrieval, nothing to supervise"


@pytest.mark.parametrize("fusion", ["none", "late", "early"])
@pytest.mark.parametrize("vision", ["cnn", "vit", "swin"])
def test_any_encoder_will_do(fusion: str, vision: str) -> None:
    encoders = {
        "cnn": {"name": "tests.test_vipa.ToyCNN", "options": {}},
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
        swin = build_vision(Vision("swin_base_patch4_window12_384"), (480, 480))
        text = build_text(Text("bert", vocabulary=[str(i) for i in range(30522 - 4)]))
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


# -- switches ---------------------------------------------------------------------------------------------------------

SWITCHES = [
    {"veg": {"step1": False}},
    {"veg": {"step2": False}},
    *({"veg": {"cues": cues}} for cues in ("global", "local", "broadcast", "none")),
    {"veg": {"score": "dot", "sampling": "softmax_st", "position": True}},
    *({"veg": {"aggregate": aggregate}} for aggregate in ("softmax", "max")),
    {"veg": {"ratio": "adaptive", "share": 0.5}},
    {"contrast": {"kind": "infonce"}},
    {"segment": {"loss": "ce+dice"}, "decoder": {"levels": 3}},
    *({"kv": kv} for kv in KV[1:]),
    *({"fusion": {"kind": kind}} for kind in ("none", "late")),
    {"nothing": {"enabled": True}},
    {"frozen_embeddings": True, "text": {"length": 12}},
]


@pytest.mark.parametrize("over", SWITCHES, ids=str)
def test_every_switch_trains_all_it_builds(over: dict[str, Any]) -> None:
    model = small(**over).train()
    batch = batch_of(model, 2, 2)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 1e-3)
    seen: set[str] = set()
    for _ in range(3):
        optimizer.zero_grad()
        torch.stack([term.mean() for term in model.loss(model(batch), batch).values()]).sum().backward()
        seen |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    assert not {name for name, p in model.named_parameters() if p.requires_grad} - seen


@pytest.mark.parametrize("cues", ["both", "local", "global", "broadcast"])
def test_cues_choose_the_rows_that_count(cues: str) -> None:
    veg, said = generator(cues=cues), words(valid=5)
    made = express(veg, said)
    assert made.mask[0].nonzero()[:, 0].tolist() == {"global": [0], "local": [1, 2, 3, 4]}.get(cues, [0, 1, 2, 3, 4])
    alike = (made.retrieval.mask == made.retrieval.mask[:, :1]).all()
    assert bool(alike) is (cues == "broadcast")


GRU = {**SMALL, "init_args": {**SMALL["init_args"], "text": {"options": {"embedding": 8, "width": 16}}}}


def test_without_a_global_cue_the_words_together_are_supervised() -> None:
    model = Entry("vipa", GRU).build(fusion={"kind": "late"})
    batch = batch_of(model, 2, 2)
    assert "contrast" in model.loss(model(batch), batch)
    with pytest.raises(UserError, match="needs a global cue"):
        Entry("vipa", GRU).build(fusion={"kind": "none"}, veg={"cues": "global"})(batch)


def test_adaptive_retrieval_takes_the_fewest_that_hold_the_share() -> None:
    scores = torch.tensor([[[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]]]).log()
    assert holding(scores, 0.5).sum(-1).tolist() == [[1, 2]]
    assert holding(scores, 0.79).tolist() == [[[True, True, False, False], [True] * 4]]
    assert holding(scores, 1.0).all()
    mass = (scores.softmax(-1) * holding(scores, 0.7)).sum(-1)
    assert (mass >= 0.7).all()


def test_adaptive_retrieval_reports_how_many() -> None:
    model = small(veg={"ratio": "adaptive", "share": 0.6}).eval()
    output: Output = model(batch_of(model, 2, 2))
    counts = output.aux["retrieved"]
    assert torch.equal(counts, output.evidence["retrieved"].sum((-2, -1)).long())
    assert 1 <= int(counts.min()) < int(counts.max()) <= 64


def test_evidence_is_drawn_per_cue() -> None:
    model = small().eval()
    batch = batch_of(model, 2, 2)
    evidence = model(batch).evidence
    assert set(evidence) == {"relevance", "retrieved", "attention"}
    assert {maps.shape for maps in evidence.values()} == {(4, batch.tokens.ids.shape[1], 8, 8)}
    torch.testing.assert_close(evidence["attention"].sum((-2, -1)), torch.ones(4, batch.tokens.ids.shape[1]))


# -- losses -----------------------------------------------------------------------------------------------------------


def test_the_mask_loss_is_the_papers_cross_entropy() -> None:
    torch.manual_seed(0)
    classes, masks = torch.randn(3, 2, 8, 8), torch.rand(3, 8, 8) > 0.8
    found = weighted_cross_entropy(classes[:, 1] - classes[:, 0], masks, Segment())
    for i in range(3):
        theirs = nn.functional.cross_entropy(classes[i : i + 1], masks[i : i + 1].long(), torch.tensor([0.9, 1.1]))
        torch.testing.assert_close(found[i], theirs)


def test_contrast_by_hand() -> None:
    alignment = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]).expand(2, 2, 2)
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4, :4] = True
    found = pixel_infonce(alignment, masks)
    assert found[0].item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 3)))
    assert found[1].item() == 0, "no target, nothing to contrast"
    flat = pixel_bce(torch.zeros(2, 2, 2), masks)
    torch.testing.assert_close(flat, torch.full((2,), math.log(2)))


def test_a_sentence_that_means_nothing_can_be_learnt() -> None:
    model = small(nothing={"enabled": True, "weight": 0.5})
    batch: Batch = batch_of(model, 2, 2)
    batch.no_target = torch.tensor([True, False, True, False])
    batch.masks[batch.no_target] = False
    terms = model.loss(model(batch), batch)
    assert set(terms) == {"mask", "contrast", "nothing"}
    assert all(torch.isfinite(term).all() for term in terms.values())
    output = Output(torch.zeros(4, 1, 16, 16), no_target=torch.tensor([20.0, -20, 20, -20]))
    assert model.loss(output, batch)["nothing"].max() < 1e-6


# -- what a user can do wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"fusion": {"layers": 4}}, "the text encoder has 5 layers"),
        ({"veg": {"ratio": 1.5}}, "veg.ratio is 1.5"),
        ({"veg": {"ratio": "adaptive", "share": 0.0}}, "veg.share is 0.0"),
        ({"veg": {"step1": False, "step2": False}}, "switch one on"),
    ],
    ids=["layers", "ratio", "share", "steps"],
)
def test_a_mistake_is_one_sentence(over: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small(**over)


def test_early_fusion_wants_layers_it_can_take_apart() -> None:
    with pytest.raises(ValueError, match=r"--model\.fusion\.kind late"):
        Entry("vipa", GRU).build()


# -- recipes ----------------------------------------------------------------------------------------------------------


def test_the_papers_recipe() -> None:
    """Section 7, as the command line resolves it."""
    for data in ("refcoco", "mixed"):
        config = recipes.resolve("vipa", data)
        model = config["model"]["init_args"]
        assert model["vision"]["name"] == "swin_base_patch4_window12_384.ms_in22k"
        assert (model["size"], model["geometry"], model["text"]["length"]) == (480, "squeeze", 21)
        assert config["data"]["init_args"]["total_batch_size"] == 32
        assert config["trainer"]["max_epochs"] == 40
    assert VIPA.published == "lavt480"
    assert (Veg(), Contrast(), Segment()) == (Veg(ratio=0.3, stride=32), Contrast("bce", 0.5), Segment("ce", 0.9, 1.1))


def ablations() -> list[Any]:
    sweep = recipes.read_yaml(recipes.folders()[0] / "ablations" / "vipa.yaml")
    return [
        pytest.param(row.get("model", {}), id=f"{table}-{name}")
        for table, content in sweep.items()
        if isinstance(content, dict)
        for name, row in content["rows"].items()
    ]


@pytest.mark.parametrize("over", ablations())
def test_every_published_ablation_is_a_configuration(over: dict[str, Any]) -> None:
    section = recipes.merge(SMALL, {"init_args": over})
    with torch.device("meta"):
        model = instantiate(RISModule, recipes.merge(section, {"init_args": {"text": {"vocabulary": ["a"]}}}))  # type: ignore[type-abstract]
    assert isinstance(model, VIPA)


def test_one_picture_serves_all_its_sentences() -> None:
    """Late fusion repeats no picture encoder: `decode` of features alone gives what the whole forward gives."""
    model = small(fusion={"kind": "late"}).eval()
    batch = batch_of(model, 1, 3)
    features: Features = model.encode_image(batch.images, batch.valid)
    assert [len(m) for m in features.maps] == [1, 1, 1, 1]
    output = model.decode(features, batch.image_index, model.encode_text(batch.tokens))
    assert torch.equal(output.logits, model(batch).logits)
    assert to_tokens(features.maps[-1]).shape == (1, 4, 32)
