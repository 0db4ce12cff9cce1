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
from riszoo.errors import UserError
from riszoo.models.vipa.expression import (
    Expression,
    Pooled,
    Veg,
    VisualExpressionGenerator,
    select_by_ratio,
    select_by_share,
)
from riszoo.models.vipa.fusion import Fusion, build_fusion
from tests.support.vipa_small import SMALL, small
from tests.support.zoo import Entry, batch_of, total_loss

T, L, C, W, D = 36, 7, 24, 20, 32  # tokens, cues, and channels of the map, the words and the expression
GRID = (6, 6)
ALL_CELLS = torch.ones(2, T, dtype=torch.bool)
KV = ("ve", "advanced_le", "vanilla_le")


def random_words(n: int = 2, valid: int = 5) -> Words:
    torch.manual_seed(1)
    mask = (torch.arange(L) < valid).expand(n, L)
    states = torch.randn(n, L, W, dtype=torch.float64) * mask[..., None]
    return Words(states, mask, torch.zeros(n, dtype=torch.long), [[]] * n)


def generator(**options: Any) -> VisualExpressionGenerator:
    torch.manual_seed(0)
    options = Veg(**options)
    return VisualExpressionGenerator(options, channels=C, words=W, length=L, width=D, heads=4).double().eval()


def express(veg: VisualExpressionGenerator, words: Words) -> Expression:
    """The expression of a seeded random map."""
    torch.manual_seed(2)
    return veg(torch.randn(2, C, *GRID, dtype=torch.float64), words, words, ALL_CELLS)


def run_step1(veg: VisualExpressionGenerator, words: Words) -> tuple[Tensor, Pooled]:
    """The projected tokens of a seeded random map, and the output of step 1."""
    torch.manual_seed(2)
    tokens = veg.project(torch.randn(2, T, C, dtype=torch.float64))
    return tokens, veg.step1(tokens, words, ALL_CELLS)


# -- section 11 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cues", ["both", "local", "global", "broadcast", "none"])
def test_pad_words_change_no_valid_row(cues: str) -> None:
    veg, plain = generator(cues=cues), random_words()
    noisy = Words(torch.where(plain.mask[..., None], plain.states, 9.0), plain.mask, plain.global_index, plain.spans)
    one, two = express(veg, plain), express(veg, noisy)
    assert one.mask.any(-1).all()
    torch.testing.assert_close(one.states[one.mask], two.states[one.mask], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("tokens", "ratio", "wanted"), [(225, 0.3, 68), (225, 0.2, 45), (225, 1.0, 225), (9, 0.01, 1)])
def test_every_cue_retrieves_its_share_of_the_tokens(tokens: int, ratio: float, wanted: int) -> None:
    scores = torch.randn(2, 4, tokens)
    mask = select_by_ratio(scores, ratio)
    assert (mask.sum(-1) == wanted).all()
    assert (scores.masked_fill(~mask, math.inf).amin(-1) >= scores.masked_fill(mask, -math.inf).amax(-1)).all()


def test_padded_cells_are_not_retrieved_and_do_not_count_in_the_ratio() -> None:
    cells = torch.arange(225) < torch.tensor([[100], [3]])
    scores = torch.randn(2, 4, 225).masked_fill(~cells[:, None], -math.inf)
    mask = select_by_ratio(scores, 0.3)
    assert mask.sum(-1).tolist() == [[30] * 4, [1] * 4]
    assert not (mask & ~cells[:, None]).any()


def test_refinement_attends_to_retrieved_tokens_only() -> None:
    veg = generator(ratio=0.3)
    tokens, pooled = run_step1(veg, random_words())
    expression = express(veg, random_words())
    assert (expression.attention[~expression.retrieved] == 0).all()
    assert (expression.attention[expression.retrieved] > 0).all()
    row, block = 3, veg.step2.cross_block
    edited = torch.where(pooled.mask[:, row, :, None], tokens, torch.randn_like(tokens))
    before, after = (block(pooled.states, pooled.mask, t)[:, row] for t in (tokens, edited))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("sampling", "reached"), [("gumbel_st", True), ("softmax_st", True), ("hard", False)])
@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_the_mask_loss_trains_the_relevance_unless_sampling_is_hard(
    sampling: str, reached: bool, aggregate: str
) -> None:
    model = small(veg={"sampling": sampling, "aggregate": aggregate}).train()
    batch = batch_of(model, 2, 2)
    model.loss(model(batch), batch)["mask"].mean().backward()
    for layer in model.expression.step1.relevance.children():
        assert (layer.weight.grad is not None and bool(layer.weight.grad.abs().sum() > 0)) is reached


def test_sampling_adds_noise_in_training_only() -> None:
    veg, words = generator(), random_words()
    tokens, pooled = run_step1(veg, words)
    assert torch.equal(veg.step1(tokens, words, ALL_CELLS).mask, pooled.mask)
    veg.train()
    (_, one), (_, two) = run_step1(veg, words), run_step1(veg, words)
    assert torch.equal(one.mask, two.mask), "the noise comes from torch's generator"
    assert not torch.equal(veg.step1(tokens, words, ALL_CELLS).mask, veg.step1(tokens, words, ALL_CELLS).mask)


def test_with_all_tokens_retrieved_refinement_is_plain_cross_attention() -> None:
    veg = generator(ratio=1.0)
    tokens, pooled = run_step1(veg, random_words())
    assert pooled.mask.all()
    block = veg.step2.cross_block
    plain, masked = block(pooled.states, None, tokens), block(pooled.states, pooled.mask, tokens)
    torch.testing.assert_close(plain, masked, rtol=1e-12, atol=1e-12)


def test_the_kind_of_expression_does_not_change_the_decoder() -> None:
    models = {kv: small(kv=kv) for kv in KV}
    sizes = {kv: [tuple(p.shape) for p in model.decoder.parameters()] for kv, model in models.items()}
    assert sizes["ve"] == sizes["advanced_le"] == sizes["vanilla_le"]
    batch = batch_of(models["ve"], 2, 2)
    vanilla, advanced = models["vanilla_le"].eval(), models["advanced_le"].eval()
    vanilla.load_state_dict(advanced.state_dict())
    assert (vanilla(batch).logits - advanced(batch).logits).abs().max() > 1e-6, "fused words differ from plain ones"
    assert set(vanilla.loss(vanilla(batch), batch)) == {"mask"}, "no retrieval, nothing to supervise"


@pytest.mark.parametrize("fusion", ["none", "late", "early"])
@pytest.mark.parametrize("vision", ["cnn", "vit", "swin"])
def test_every_fusion_works_with_any_vision_encoder(fusion: str, vision: str) -> None:
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
    total_loss(model, batch).backward()
    assert model(batch).logits.shape == (4, 1, 16, 16)
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("vision"))


def test_early_fusion_may_begin_in_a_later_stage() -> None:
    section = {**SMALL["init_args"], "fusion": {**SMALL["init_args"]["fusion"], "start": 1}}
    model = Entry("vipa", {**SMALL, "init_args": section}).build().double()
    stages = len(model.vision.channels)
    assert len(model.fusion.stage_attention) == stages - 1
    assert len(model.text.later_layers) == stages - 2
    batch = batch_of(model, 2, 2)
    total_loss(model, batch).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.eval()
    features = model.encode_image(batch.images, batch.valid)
    torch.testing.assert_close(
        features.maps, model.vision(model.normalise(batch.images, batch.valid))[:2], rtol=1e-12, atol=1e-12
    )
    words = model.encode_text(model.tokenize(batch.texts))
    visual = features.per_sentence(batch.image_index)
    nn.init.normal_(model.fusion.stage_gate[0].gate[2].weight)
    maps, _ = model.fusion(visual, words, model.vision, model.text)
    assert torch.equal(maps[0], visual.maps[0]), "the first stage sees no language"
    assert all((one[0] - one[1]).abs().max() > 1e-6 for one in maps[1:]), "the later ones do"


def test_maps_of_images_and_of_sentences_meet_in_the_decoder() -> None:
    """With sentences of several images in any order, each has the logits that it has alone."""
    model = small(fusion={"start": 2}).double().eval()
    for residual in [*model.fusion.stage_gate, *model.fusion.down_gate]:
        nn.init.normal_(residual.gate[2].weight)
    batch = batch_of(model, 2, 2)
    features, words = model.encode_image(batch.images, batch.valid), model.encode_text(model.tokenize(batch.texts))
    index = torch.tensor([1, 0, 1, 0])
    together = model.decode(features, index, words).logits
    for sentence, image in enumerate(index.tolist()):
        one = model.encode_image(batch.images[[image]], batch.valid[[image]])
        alone = model.decode(one, torch.tensor([0]), model.encode_text(model.tokenize([batch.texts[sentence]]))).logits
        torch.testing.assert_close(together[[sentence]], alone, rtol=1e-7, atol=1e-7)
    assert (together[0] - together[1]).abs().max() > 1e-6


def test_a_stage_behind_all_used_maps_is_refused() -> None:
    with pytest.raises(UserError, match=r"fusion.start is 2, but the maps of strides 4, 8, 8 .* lower fusion.start"):
        small(fusion={"start": 2}, strides=[4, 8])


@pytest.mark.parametrize("start", [-1, 9])
def test_a_stage_that_does_not_exist_is_refused(start: int) -> None:
    with pytest.raises(UserError, match=f"fusion.start is {start}: give a stage from 0 to"):
        small(fusion={"start": start})


def test_permuting_the_cues_permutes_the_expression() -> None:
    veg, words = generator(), random_words(valid=L)
    order = torch.tensor([0, 3, 1, 2, 6, 5, 4])
    permuted = Words(words.states[:, order], words.mask, words.global_index, words.spans)
    expected = express(veg, words).states[:, order]
    torch.testing.assert_close(express(veg, permuted).states, expected, rtol=1e-9, atol=1e-9)


def test_early_fusion_starts_as_the_plain_encoder() -> None:
    """The maps that enter each stage are the plain encoder's until the gates are trained."""
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
    for residual in [*model.fusion.stage_gate, *model.fusion.down_gate]:
        nn.init.normal_(residual.gate[2].weight)
    entered.clear()
    model(batch)
    assert all((one - two).abs().max() > 1e-6 for one, two in zip(alone[1:], entered[1:], strict=True))
    assert len(plain) == 4


def test_parameter_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        veg = VisualExpressionGenerator(Veg(), channels=1024, words=768, length=21, width=512, heads=8)
        swin = build_vision(VisionConfig("swin_base_patch4_window12_384"), (480, 480))
        text = build_text(TextConfig("bert", vocabulary=[str(i) for i in range(30522 - 4)]))
        bert = count(text)
        fusion = build_fusion(Fusion(), swin, text, reads_words=True)
    # timm's feature extractor leaves out the last LayerNorm, which is behind every map (2 x 1024)
    assert count(swin) + 2048 == 86_878_584
    assert bert == 108_891_648
    assert 7.9e6 < count(veg) < 8.1e6
    assert [layer.project.in_features for layer in fusion.stage_attention] == [256, 256, 512, 1024]
    assert [layer.heads for layer in fusion.stage_attention] == [4, 4, 8, 16]
    assert [layer.attention.k.in_features for layer in fusion.word_attention] == [256, 512, 1024]
    assert (len(text.model.encoder.layer), len(text.later_layers)) == (6, 3)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("fusion", ["none", "late", "early"])
def test_the_position_code_starts_as_the_identity_and_tells_cells_apart(fusion: str) -> None:
    model = small(fusion={"kind": fusion}).double().eval()
    batch = batch_of(model, 1, 2)
    batch.images = torch.full_like(batch.images, 100)  # nothing but position differs between cells
    code = model.fusion.position
    grid = torch.randn(2, code.project.in_features, 4, 6, dtype=torch.float64)
    assert torch.equal(code(grid), grid)
    before = model(batch).logits
    nn.init.normal_(code.project.weight)
    shift = (code(grid) - grid).flatten(2)  # (2, C, 24)
    torch.testing.assert_close(shift[0], shift[1], rtol=1e-9, atol=1e-9)
    assert torch.cdist(shift[0].T, shift[0].T).fill_diagonal_(1.0).min() > 1e-3
    assert (model(batch).logits - before).abs().max() > 1e-6


def test_keeping_the_cue_tells_rows_apart_that_retrieve_the_same_tokens() -> None:
    plain, kept = (generator(ratio=1.0, keep_cue=keep_cue) for keep_cue in (False, True))
    words = random_words()
    rows = [run_step1(veg, words)[1].states[0, :5] for veg in (plain, kept)]
    torch.testing.assert_close(rows[0][:-1], rows[0][1:], rtol=1e-9, atol=1e-9)
    assert torch.pdist(rows[1]).min() > 1e-3


@pytest.mark.parametrize("kv", KV)
def test_under_the_control_constant_the_expression_has_no_influence(kv: str) -> None:
    model = small(kv=kv, fusion={"kind": "none"}).double().eval()
    batch = batch_of(model, 2, 2)
    model.controls, model.protocols = ["none", "constant"], []
    model.create_metrics(2)

    def logits() -> list[Tensor]:
        return [model.validation_step(batch, 0, control).logits for control in (0, 1)]

    before = logits()
    for parameter in model.expression.parameters():
        nn.init.normal_(parameter)
    after = logits()
    assert torch.equal(before[1], after[1])
    assert (before[0] - after[0]).abs().max() > 1e-6
    assert torch.equal(model(batch).logits, after[0]), "the control ends with its step"


def test_under_the_control_exchanged_the_next_sentence_of_the_image_is_decoded() -> None:
    model = small(fusion={"kind": "none"}).double().eval()
    batch = batch_of(model, 2, 3)
    model.controls, model.protocols = ["none", "exchanged"], []
    model.create_metrics(2)
    own, exchanged = (model.validation_step(batch, 0, control).logits for control in (0, 1))
    assert (own - exchanged).abs().max() > 1e-6
    torch.testing.assert_close(exchanged, own[[1, 2, 0, 4, 5, 3]], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("cues", ["both", "local", "global", "broadcast"])
def test_cues_choose_the_rows_that_count(cues: str, training: bool) -> None:
    expression = express(generator(cues=cues).train(training), random_words(valid=5))
    rows = expression.mask[0].nonzero()[:, 0].tolist()
    assert rows == {"global": [0], "local": [1, 2, 3, 4]}.get(cues, [0, 1, 2, 3, 4])
    all_rows_equal = (expression.retrieved == expression.retrieved[:, :1]).all()
    assert bool(all_rows_equal) is (cues == "broadcast")


def test_adaptive_retrieval_selects_the_fewest_tokens_that_carry_the_share() -> None:
    scores = torch.tensor([[[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]]]).log()
    assert select_by_share(scores, 0.5).sum(-1).tolist() == [[1, 2]]
    assert select_by_share(scores, 0.79).tolist() == [[[True, True, False, False], [True] * 4]]
    assert select_by_share(scores, 1.0).all()
    mass = (scores.softmax(-1) * select_by_share(scores, 0.7)).sum(-1)
    assert (mass >= 0.7).all()
