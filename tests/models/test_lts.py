"""LTS: the checks that section 12 of its specification lists, by number."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Tokens, Words
from riszoo.build import instantiate, with_vocabulary
from riszoo.data.images import place_image
from riszoo.data.sets import Scenes
from riszoo.encoders.base import TextConfig
from riszoo.encoders.text import build_text
from riszoo.errors import UserError
from riszoo.inference.predictions import predictions
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.resample import foreground
from riszoo.metrics.suite import RISMetrics
from riszoo.models.lts import CBL, LTS, PRIORS, FilterLocator, Locate, TransformerLocator, build_pool, coordinates
from riszoo.training.optim import make_optimizer
from tests.support.zoo import Entry, batch_of, total_loss, train

SMALL = {
    "size": 64,
    "vision": {"name": "resnet18", "options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}},
    "text": {"name": "bigru", "options": {"embedding": 16, "width": 32}},
    "fusion": {"width": 32},
    "segment": {"width": 16},
}
BERT = {
    "name": "bert",
    "options": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
}


def section(**over: Any) -> recipes.Config:
    """The recipe's geometry and pixel normalisation, small widths, and the options of a test."""
    base = recipes.resolve("lts", "scenes", "tiny")["model"]
    text = over.pop("text", None)
    args = recipes.merge(
        recipes.merge({**base["init_args"], "vision": {}, "text": {}, "fusion": {}, "segment": {}}, SMALL), over
    )
    return {**base, "init_args": {**args, "text": text or args["text"]}}


def lts(**over: Any) -> LTS:
    torch.manual_seed(0)
    return instantiate(LTS, with_vocabulary(section(**over), Scenes()))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# -- 1 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [SMALL["text"], BERT], ids=["bigru", "bert"])
@pytest.mark.parametrize("kind", ["filter", "transformer"])
@pytest.mark.parametrize("pool", ["attention", "last", "max", "mean"])
def test_pad_words_change_neither_prior_nor_mask(text: dict[str, Any], kind: str, pool: str) -> None:
    model = lts(text=text, locate={"kind": kind}, pool=pool).double().eval()
    batch = batch_of(model, 2, 2)
    longer = copy.deepcopy(batch)
    assert batch.tokens is not None
    ids = torch.cat([batch.tokens.ids, torch.full((4, 3), 6)], 1)
    mask = F.pad(batch.tokens.mask, (0, 3))
    longer.tokens = Tokens(torch.where(mask, ids, 7), mask, batch.tokens.spans)
    one, two = model(batch), model(longer)
    torch.testing.assert_close(one.logits, two.logits, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(one.aux["prior"], two.aux["prior"], rtol=1e-11, atol=1e-11)


# -- 2 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["sigmoid", "spatial_softmax", "raw"])
def test_head_loss_and_evidence_share_one_activated_prior(act: str) -> None:
    model = lts(prior={"act": act}).eval()
    entered: list[Tensor] = []
    model.segment.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    batch = batch_of(model, 2, 2)
    output = model(batch)
    prior, located = output.evidence["prior"], output.aux["prior"]
    if act == "sigmoid":
        assert ((prior >= 0) & (prior <= 1)).all()
        measured = F.binary_cross_entropy(entered[0][:, -1], cells_of(batch), reduction="none").mean((1, 2))
        torch.testing.assert_close(model.loss(output, batch)["prior"], measured, rtol=1e-4, atol=1e-5)
    if act == "spatial_softmax":
        torch.testing.assert_close(prior.sum((1, 2, 3)), torch.ones(4))
        torch.testing.assert_close(entered[0][:, -1].mean((1, 2)), torch.ones(4))
    torch.testing.assert_close(entered[0][:, -1:], PRIORS[act].activate(located))


def cells_of(batch: Batch) -> Tensor:
    """y_52 by hand: more than half a cell of 8 x 8 pixels, or a target's fullest cell."""
    assert batch.masks is not None
    shares = batch.masks.unfold(1, 8, 8).unfold(2, 8, 8).float().mean((-2, -1))
    fullest = shares.flatten(1).amax(1)[:, None, None]
    return ((shares > 0.5) | ((shares == fullest) & (fullest > 0))).float()


def test_a_spatial_softmax_prior_is_trained_by_cross_entropy_over_the_cells() -> None:
    model = lts(prior={"act": "spatial_softmax"})
    batch = batch_of(model, 2, 1)
    output, cells = model(batch), cells_of(batch)
    log_prior = output.aux["prior"][:, 0].flatten(1).log_softmax(1).view_as(cells)
    expected = -(log_prior * cells).sum((1, 2)) / cells.sum((1, 2))
    torch.testing.assert_close(model.loss(output, batch)["prior"], expected)


# -- 3 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "prior", "logits"), [(416, 52, 104), (320, 40, 80)])
@pytest.mark.parametrize("kind", ["filter", "transformer"])
def test_the_prior_has_stride_8_and_the_logits_stride_4(size: int, prior: int, logits: int, kind: str) -> None:
    model = lts(size=size, locate={"kind": kind, "stride": 16}).eval()
    batch = batch_of(model, 1, 1, image=(64, 96))  # not square
    with torch.no_grad():
        output = model(batch)
    assert output.aux["prior"].shape == (1, 1, prior, prior)
    assert output.logits.shape == (1, 1, logits, logits)
    (prediction,) = predictions(output, batch, model.protocols[0])
    assert prediction.mask.shape == (64, 96)


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("head", ["aspp", "conv"])
def test_logits_have_the_configured_stride(stride: int, head: str) -> None:
    model = lts(segment={"stride": stride, "head": head})
    assert model(batch_of(model, 2, 1)).logits.shape[-2:] == (64 // stride, 64 // stride)


def test_invalid_strides_and_heads_are_user_errors() -> None:
    with pytest.raises(UserError, match=r"segment.stride 8 is coarser than the fused maps, of stride 4"):
        lts(fusion={"strides": [4, 8, 16]}, segment={"stride": 8})
    with pytest.raises(UserError, match=r"fusion.width 36 is not divisible by locate.heads 8"):
        lts(fusion={"width": 36}, locate={"kind": "transformer"})


def test_the_transformer_pools_the_fused_grid_to_its_own_stride() -> None:
    def cells_read(strides: list[int], stride: int) -> int:
        model = lts(fusion={"strides": strides}, locate={"kind": "transformer", "stride": stride})
        sizes: list[int] = []
        assert isinstance(model.locate, TransformerLocator)
        model.locate.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[1]))
        batch = batch_of(model, 1, 1)
        model.eval()(batch)
        assert batch.tokens is not None
        return sizes[0] - batch.tokens.ids.shape[1]

    assert cells_read([8, 16, 32], 8) == cells_read([4, 8, 16], 8) == 8 * 8
    assert cells_read([8, 16, 32], 16) == cells_read([4, 8, 16], 16) == 4 * 4


# -- 4 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(480, 640), (640, 427), (200, 600), (416, 416)])
def test_a_mask_survives_the_letterbox_and_its_inverse(size: tuple[int, int]) -> None:
    height, width = size
    y, x = np.mgrid[:height, :width]
    mask = ((y - 0.5 * height) / (0.3 * height)) ** 2 + ((x - 0.4 * width) / (0.25 * width)) ** 2 < 1
    geometry = Geometry.fit("letterbox", size, (416, 416))
    placed = place_image(np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255, geometry)[:1]
    logits = torch.logit(placed / 255, eps=1e-3)
    for name in ("mcn", "original"):
        back = foreground(logits, [geometry], [size], get_protocols(name)[0])[0].numpy()
        assert back.shape == size
        assert (back & mask).sum() / (back | mask).sum() > 0.98, name


# -- 5 ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> LTS:
    """The paper's recipe on the meta device."""
    paper = recipes.resolve("lts", "refcoco", "paper")["model"]
    over = {"vision": {"weights": "none"}, "text": {"vocabulary": ["star"]}}
    with torch.device("meta"):
        return instantiate(LTS, recipes.merge(paper, {"init_args": over}))


def test_parameter_count_of_darknet_and_of_its_detection_neck(published: LTS) -> None:
    assert count(published.vision) == 40_584_928
    with torch.device("meta"):
        neck = [CBL(1024, 512) if i % 2 == 0 else CBL(512, 1024, 3) for i in range(6)]
    assert count(published.vision) + sum(map(count, neck)) == 56_322_784
    slopes = {m.negative_slope for m in published.vision.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.01}, "timm trained the recipe's weights with this slope"


def test_darknets_own_file_needs_its_own_pixels() -> None:
    with pytest.raises(UserError, match="was trained on RGB in"):
        Entry("lts", recipes.resolve("lts", "refcoco", "paper")["model"]).build(
            vision={"weights": "darknet.weights", "options": {"negative_slope": 0.1}}, text={"vocabulary": ["star"]}
        )


def test_parameter_counts_of_everything_else(published: LTS) -> None:
    gru = count(published.text) - count(published.text.get_submodule("embedding"))
    assert gru == 8_146_944
    rest = sum(count(m) for name, m in published.named_children() if name not in ("vision", "text"))
    assert gru + rest == 20_166_274
    with torch.device("meta"):
        transformer = TransformerLocator(Locate(kind="transformer"), 512, 1024, 8)
    assert count(transformer.encoder) == 3_152_384


def test_the_paper_scale_is_the_specification() -> None:
    plain, longer = (recipes.resolve("lts", data, "paper") for data in ("refcoco", "refcocog"))
    args = plain["model"]["init_args"]
    assert (args["size"], args["geometry"], args["fill"]) == (416, "letterbox", 128)
    assert (args["text"]["length"], longer["model"]["init_args"]["text"]["length"]) == (15, 20)
    epochs = plain["trainer"]["max_epochs"]
    assert [round(share * epochs) for share in args["optim"]["milestones"]] == [30, 35, 40]
    assert LTS.published == "mcn"
    assert get_protocols(LTS.published)[0].threshold == 0.35


def test_the_swin_recipe_fits_its_encoders() -> None:
    swin = recipes.resolve("lts-swin", "refcoco", "paper")["model"]
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text = {"name": "bert", "weights": "none", "length": 20, "options": small, "vocabulary": ["star"]}
    args = {**swin["init_args"], "text": text}
    with torch.device("meta"):
        model = instantiate(
            LTS, recipes.merge({**swin, "init_args": args}, {"init_args": {"vision": {"weights": "none"}}})
        )
    assert [model.vision.channels[model.level_at(s)] for s in model.strides] == [256, 512, 1024]
    assert model.geometry == "squeeze"
    assert (model.optim.lr, model.optim.schedule, model.optim.power) == (5e-5, "poly", 0.9)


# -- 6 ----------------------------------------------------------------------------------------------------------------


def test_a_frozen_backbone_does_not_change_and_everything_else_does() -> None:
    model = lts(vision={"frozen": True}).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer, _ = make_optimizer(model, model.optim, 10)
    for images in (3, 4):
        optimizer.zero_grad()
        total_loss(model, batch_of(model, images, 3)).backward()
        optimizer.step()
    after = model.state_dict()
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("vision.")} <= unchanged
    trained = {name for name, _ in model.named_parameters() if not name.startswith("vision.")}
    assert not unchanged & trained
    statistics = {n for n in before if n.endswith("running_mean") and not n.startswith("vision.")}
    assert statistics
    assert not unchanged & statistics


# -- 7 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_the_filter_is_linear_in_the_features_and_equals_a_convolution(size: int) -> None:
    torch.manual_seed(1)
    locator = FilterLocator(Locate(size=size), 16, 8).double()
    one, two = torch.randn(2, 2, 16, 6, 5, dtype=torch.double)
    sentence, nowhere = torch.randn(2, 8, dtype=torch.double), torch.zeros(0)

    def score(fused: Tensor) -> Tensor:
        located: Tensor = locator(fused, sentence, None, nowhere)
        return located - locator.bias

    torch.testing.assert_close(score(2 * one - 3 * two), 2 * score(one) - 3 * score(two))
    kernel = torch.tanh(locator.generate(sentence)).view(2, 16, size, size)
    by_hand = [F.conv2d(one[i : i + 1], kernel[i : i + 1], padding=size // 2) / (4 * size) for i in range(2)]
    torch.testing.assert_close(score(one), torch.cat(by_hand))


@pytest.mark.parametrize("kind", ["filter", "transformer"])
def test_two_sentences_about_one_image_have_different_priors(kind: str) -> None:
    model = lts(locate={"kind": kind}).eval()
    prior = model(batch_of(model, 1, 2)).evidence["prior"]
    assert (prior[0] - prior[1]).abs().max() > 1e-6


# -- 8, 9 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["aspp", "conv"])
def test_without_the_prior_there_is_no_locator_and_one_channel_less(head: str) -> None:
    on, off = lts(segment={"head": head}), lts(segment={"head": head}, prior={"enabled": False})
    shapes, without = ({n: p.shape for n, p in m.named_parameters()} for m in (on, off))
    assert {n for n in shapes if n not in without} == {n for n in shapes if n.startswith("locate.")}
    changed = {n for n in without if shapes[n] != without[n]}
    assert changed
    for name in changed:
        assert name.startswith("segment.")
        assert shapes[name][1] == without[name][1] + 1
    batch = batch_of(off, 2, 1)
    output = off(batch)
    assert (output.evidence, set(off.loss(output, batch))) == ({}, {"mask"})


@pytest.mark.parametrize(("prior", "trained"), [({}, True), ({"detach": True}, False)])
def test_the_mask_loss_trains_the_locator_unless_the_prior_is_detached(prior: dict[str, Any], trained: bool) -> None:
    model = lts(prior=prior)
    batch = batch_of(model, 2, 2)
    model.loss(model(batch), batch)["mask"].mean().backward()
    assert model.locate is not None
    grads = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.locate.parameters()]
    assert all(grads) if trained else not any(grads)


def test_the_loss_of_the_prior_has_a_weight() -> None:
    once, twice = lts(prior={"weight": 1.0}), lts(prior={"weight": 2.5})
    batch = batch_of(once, 2, 2)
    terms = [model.loss(model(batch), batch)["prior"] for model in (once, twice)]
    torch.testing.assert_close(2.5 * terms[0], terms[1])
    assert set(lts(segment={"loss": "bce+dice"}).loss(once(batch), batch)) == {"mask", "dice", "prior"}


# -- 10, 11 -----------------------------------------------------------------------------------------------------------


def test_masks_depend_on_the_logits_only() -> None:
    """There is no DCRF: other pixels with the same logits give the same masks."""
    model = lts().eval()
    batch = batch_of(model, 2, 2)
    output = model(batch)
    other = replace(batch, images=255 - batch.images)
    for name in ("mcn", "original", "simrec", "cris035"):
        (protocol,) = get_protocols(name)
        for one, two in zip(predictions(output, batch, protocol), predictions(output, other, protocol), strict=True):
            assert np.array_equal(one.mask, two.mask)


def test_both_ious_and_both_thresholds_are_computed_from_the_same_logits() -> None:
    """Half of a large target and all of a small one: oIoU follows the large one, mIoU weighs both equally."""
    model = lts(protocols="published,original").eval()
    batch = batch_of(model, 2, 1)
    output = model(batch)
    large, small = torch.zeros(2, 64, 64, dtype=torch.bool)
    large[:32] = small[60:62, 4:8] = True
    batch.target_index = torch.tensor([0, 1])
    batch.ground_truths = {p.ground_truth.key: [large, small] for p in model.protocols}
    logits = torch.full((2, 1, 64, 64), -4.0)
    logits[0, 0, :16], logits[1, 0, 60:62, 4:8] = 4.0, 4.0
    logits[0, 0, 16:24] = -0.4  # a probability of 0.40: inside at 0.35, outside at 0.5
    metrics = RISMetrics(model.protocols)
    metrics.update(replace(output, logits=logits), batch)
    got = metrics.compute()
    area, little = 64 * 32, 8
    assert got["original"]["mIoU"] == pytest.approx(75.0)
    assert got["original"]["oIoU"] == pytest.approx(100 * (area / 2 + little) / (area + little))
    assert got["mcn"]["mIoU"] == pytest.approx(87.5, abs=0.5)
    assert got["mcn"]["oIoU"] > got["original"]["oIoU"] + 20


# -- 12 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["filter", "transformer"])
def test_a_few_images_can_be_memorised_and_the_prior_peaks_inside_the_target(kind: str) -> None:
    """Over five seeds and both locators the loss falls from 1.3 to 0.22-0.27, and IoU is 0.83-0.92."""
    model = lts(locate={"kind": kind}, segment={"head": "conv", "stride": 2, "loss": "bce+dice"})
    batch = batch_of(model, 2, 2)
    before = total_loss(model.eval(), batch)
    train_fast(model, batch, 120)
    output = model.eval()(batch)
    assert total_loss(model, batch) < 0.4 * before
    predicted = F.interpolate(output.logits, (64, 64), mode="bilinear")[:, 0] > 0
    assert batch.masks is not None
    iou = (predicted & batch.masks).sum((1, 2)) / (predicted | batch.masks).sum((1, 2))
    assert iou.mean() > 0.7, iou
    peak = output.evidence["prior"].flatten(1).argmax(1)
    inside = cells_of(batch).flatten(1).gather(1, peak[:, None])
    assert inside.all(), "the prior peaks outside the target"


def train_fast(model: LTS, batch: Batch, steps: int) -> None:
    optimizer, _ = make_optimizer(model, model.optim, 10 * steps)
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    train(model, batch, optimizer, steps)


# -- sections 3 and 4 -------------------------------------------------------------------------------------------------


def test_the_sentence_vector_equals_one_computed_by_hand() -> None:
    encoder = build_text(TextConfig("bigru", vocabulary=["a", "red", "star"], options={"embedding": 4, "width": 6}))
    words = encoder(encoder.tokenize(["red star", "a"]))
    pool: Any = build_pool("attention", 6)
    states = words.states[0, :2]
    weight = torch.tanh(pool.attend(states)).softmax(0)
    torch.testing.assert_close(pool(words)[0], (weight * states).sum(0))
    torch.testing.assert_close(pool(words)[1], words.states[1, 0], msg="one word is the sentence")
    torch.testing.assert_close(build_pool("last", 6)(words)[0], states[1])
    torch.testing.assert_close(build_pool("max", 6)(words)[0], states.amax(0))
    torch.testing.assert_close(build_pool("mean", 6)(words)[0], states.mean(0))


@pytest.mark.parametrize(("side", "cells"), [(11, 6), (12, 6)])
def test_a_pooled_grid_covers_every_cell(side: int, cells: int) -> None:
    locate = TransformerLocator(Locate(kind="transformer", stride=16, heads=2), 16, 8, 8).eval()
    words = Words(torch.randn(1, 2, 8), torch.ones(1, 2, dtype=torch.bool), None, [[]])
    read: list[torch.Size] = []
    locate.encoder.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape))
    fused = torch.randn(1, 16, side, side, requires_grad=True)
    located = locate(fused, torch.randn(1, 8), words, torch.ones(1, side, side, dtype=torch.bool))
    assert located.shape == (1, 1, side, side)
    assert read == [(1, cells**2 + 2, 16)]
    located.sum().backward()
    assert fused.grad is not None
    assert bool((fused.grad.abs().sum(1) > 0).all())


def test_coordinates_are_the_edges_and_the_centre_of_each_cell() -> None:
    maps = coordinates(torch.zeros(2, 1, 3, 4))
    assert maps.shape == (2, 8, 3, 4)
    torch.testing.assert_close(maps[0, :, 0, 0], torch.tensor([-1, -1, -0.5, -1 / 3, -0.75, -2 / 3, 1 / 4, 1 / 3]))
    torch.testing.assert_close(maps[1, :6, 2, 3], torch.tensor([0.5, 1 / 3, 1, 1, 0.75, 2 / 3]))


@pytest.mark.parametrize("fusion", [{"op": "add"}, {"op": "concat"}, {"levels": 1}, {"coords": False}], ids=str)
def test_every_fusion_option_trains_all_its_parameters(fusion: dict[str, Any]) -> None:
    model = lts(fusion={**fusion, "width": 16})
    total_loss(model, batch_of(model, 3, 2)).backward()
    untrained = {n for n, p in model.fusion.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert not untrained
