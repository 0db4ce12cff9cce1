"""VIPA's options, losses, recipes and user errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from riszoo import recipes
from riszoo.batch import Batch, Features, Output
from riszoo.errors import UserError
from riszoo.losses import weighted_cross_entropy
from riszoo.models.vipa.expression import Veg
from riszoo.models.vipa.model import VIPA, Contrast, Segment, pixel_bce, pixel_infonce, similarity
from tests.support.vipa_small import SMALL, small
from tests.support.zoo import Entry, batch_of, train, trained_names

# -- options ----------------------------------------------------------------------------------------------------------

OPTIONS = [
    {"fusion": {"position": False}},
    {"veg": {"keep_cue": True}},
    {"veg": {"step1": False}},
    {"veg": {"step2": False}},
    *({"veg": {"cues": cues}} for cues in ("global", "local", "broadcast", "none")),
    {"veg": {"score": "dot", "sampling": "softmax_st", "position": True}},
    *({"veg": {"aggregate": aggregate}} for aggregate in ("softmax", "max")),
    {"veg": {"ratio": "adaptive", "share": 0.5}},
    {"contrast": {"kind": "infonce"}},
    {"contrast": {"cues": "all", "diversity": 0.5}},
    {"segment": {"loss": "ce+dice"}, "decoder": {"levels": 3}},
    *({"kv": kv} for kv in ("advanced_le", "vanilla_le")),
    *({"fusion": {"kind": kind}} for kind in ("none", "late")),
    {"fusion": {"kind": "late"}, "kv": "vanilla_le"},
    {"fusion": {"kind": "late"}, "veg": {"step1": False}},
    {"no_target": {"enabled": True}},
    {"frozen_embeddings": True, "text": {"length": 12}},
]


@pytest.mark.parametrize("over", OPTIONS, ids=str)
def test_every_option_trains_all_its_parameters(over: dict[str, Any]) -> None:
    model = small(**over).train()
    batch = batch_of(model, 2, 2)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 1e-3)
    trained = train(model, batch, optimizer, 3)
    assert trained == trained_names(model)


@pytest.mark.parametrize("veg", [{"step1": False}, {"cues": "none"}])
def test_an_expression_that_reads_no_sentence_is_refused(veg: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="nothing reads the sentence"):
        small(veg=veg, fusion={"kind": "none"})


GRU = {**SMALL, "init_args": {**SMALL["init_args"], "text": {"options": {"embedding": 8, "width": 16}}}}


def test_without_a_global_cue_the_mean_relevance_of_the_words_is_supervised() -> None:
    model = Entry("vipa", GRU).build(fusion={"kind": "late"})
    batch = batch_of(model, 2, 2)
    assert "contrast" in model.loss(model(batch), batch)
    with pytest.raises(UserError, match="no global token"):
        Entry("vipa", GRU).build(fusion={"kind": "none"}, veg={"cues": "global"})(batch)


def test_adaptive_retrieval_reports_the_number_of_tokens() -> None:
    model = small(veg={"ratio": "adaptive", "share": 0.6}).eval()
    output: Output = model(batch_of(model, 2, 2))
    counts = output.aux["retrieved"]
    assert torch.equal(counts, output.evidence["retrieved"].sum((-2, -1)).long())
    assert 1 <= int(counts.min()) < int(counts.max()) <= 64


def test_evidence_has_a_map_for_each_cue() -> None:
    model = small().eval()
    batch = batch_of(model, 2, 2)
    evidence = model(batch).evidence
    assert set(evidence) == {"global_relevance", "relevance", "retrieved", "attention"}
    assert torch.equal(evidence.pop("global_relevance")[:, 0], evidence["relevance"][:, 0])
    assert {maps.shape for maps in evidence.values()} == {(4, batch.tokens.ids.shape[1], 8, 8)}
    torch.testing.assert_close(evidence["attention"].sum((-2, -1)), torch.ones(4, batch.tokens.ids.shape[1]))


# -- losses -----------------------------------------------------------------------------------------------------------


def test_the_mask_loss_is_the_papers_cross_entropy() -> None:
    torch.manual_seed(0)
    classes, masks = torch.randn(3, 2, 8, 8), torch.rand(3, 8, 8) > 0.8
    loss = weighted_cross_entropy(classes[:, 1] - classes[:, 0], masks, 0.9, 1.1)
    for i in range(3):
        expected = nn.functional.cross_entropy(classes[i : i + 1], masks[i : i + 1].long(), torch.tensor([0.9, 1.1]))
        torch.testing.assert_close(loss[i], expected)


def test_the_contrast_losses_equal_values_computed_by_hand() -> None:
    alignment = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]).expand(2, 2, 2)
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4, :4] = True
    loss = pixel_infonce(alignment, masks)
    assert loss[0].item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 3)))
    assert loss[1].item() == 0, "without a target there is no contrast"
    small_target = torch.zeros(2, 8, 8, dtype=torch.bool)
    small_target[:, 1, 1] = True
    torch.testing.assert_close(pixel_infonce(alignment, small_target), loss[:1].expand(2))
    torch.testing.assert_close(pixel_bce(torch.zeros(2, 2, 2), masks), torch.full((2,), math.log(2)))


def test_the_relevance_of_every_cue_can_be_supervised() -> None:
    model = small(contrast={"cues": "all", "weight": 2.0}).eval()
    batch = batch_of(model, 2, 2)
    output = model(batch)
    cues, terms = batch.tokens.mask, model.loss(output, batch)
    for i, relevance in enumerate(output.aux["relevance"]):
        each = pixel_bce(relevance[cues[i]], batch.masks[i].expand(int(cues[i].sum()), -1, -1))
        torch.testing.assert_close(terms["contrast"][i], 2 * each.mean())


def test_the_similarity_of_cues_is_one_where_they_agree_and_ignores_pads() -> None:
    first, second = torch.tensor([50.0, 0, 0]), torch.tensor([0.0, 50, 0])
    relevance = torch.stack([torch.stack([first, first, second]), torch.stack([first, second, second])])
    cues = torch.tensor([[True, True, False], [True, True, True]])
    torch.testing.assert_close(similarity(relevance, cues), torch.tensor([1.0, 1 / 3]))
    assert similarity(relevance[:1], cues[:1] & torch.tensor([True, False, False])).item() == 0, "one cue"


def test_the_no_target_head_has_a_loss_of_its_own() -> None:
    model = small(no_target={"enabled": True, "weight": 0.5})
    batch: Batch = batch_of(model, 2, 2)
    batch.no_target = torch.tensor([True, False, True, False])
    batch.masks[batch.no_target] = False
    terms = model.loss(model(batch), batch)
    assert set(terms) == {"mask", "contrast", "no_target"}
    assert all(torch.isfinite(term).all() for term in terms.values())
    output = Output(torch.zeros(4, 1, 16, 16), no_target=torch.tensor([20.0, -20, 20, -20]))
    assert model.loss(output, batch)["no_target"].max() < 1e-6


# -- user errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"fusion": {"layers": 4}}, "the text encoder has 5 layers"),
        ({"veg": {"ratio": 1.5}}, "veg.ratio is 1.5"),
        ({"veg": {"ratio": "adaptive", "share": 0.0}}, "veg.share is 0.0"),
        ({"veg": {"step1": False, "step2": False}}, "set one to true"),
    ],
    ids=["layers", "ratio", "share", "steps"],
)
def test_an_invalid_option_is_named(over: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**over)


def test_early_fusion_needs_a_text_encoder_with_layers() -> None:
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


def test_one_image_serves_all_its_sentences() -> None:
    """With late fusion the image is encoded once: decoding its features gives what the whole forward gives."""
    model = small(fusion={"kind": "late"}).double().eval()
    batch = batch_of(model, 1, 3)
    features: Features = model.encode_image(batch.images, batch.valid)
    assert [len(m) for m in features.maps] == [1, 1, 1, 1]
    output = model.decode(features, batch.image_index, model.encode_text(batch.tokens))
    torch.testing.assert_close(output.logits, model(batch).logits, rtol=1e-9, atol=1e-9)
