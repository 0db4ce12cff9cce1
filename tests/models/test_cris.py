"""CRIS against the numbers of its authors' code at a small size, and the properties that its page states."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from riszoo import recipes
from riszoo.batch import Output, Tokens
from riszoo.build import instantiate
from riszoo.encoders.clip.archive import read_archive
from riszoo.errors import UserError
from riszoo.layers import sentence_convolution
from riszoo.model import RISModule
from riszoo.models.cris.decoder import pixel_positions, word_positions
from riszoo.training.optim import make_optimizer
from tests.support import cris_small
from tests.support.cris_small import Reference
from tests.support.official import FIXTURES, outputs_of
from tests.support.zoo import assert_trains_what_it_declares, tiny

RESNET = FIXTURES / "clip_small_rn.pt"


@pytest.fixture(scope="module")
def source() -> Reference:
    return cris_small.reference()


@cache
def intermediates() -> dict[str, Tensor]:
    """Every intermediate by the fixture's name, in float64: kernels of float32 differ between processors."""
    source = cris_small.reference()
    model = cris_small.build(source).double()
    modules = {
        "c3": model.vision.stages[1],
        "c4": model.vision.stages[2],
        "layer4": model.vision.stages[3],
        "c5": model.pool,
        "text_block_0": model.text.model.encoder.layers[0],
        "word": model.text.model.final_layer_norm,
        "state": model.text.projection,
        "neck": model.neck,
        "decoder_layer_0": model.decoder.layers[0],
        "decoder": model.decoder,
    }
    with torch.no_grad(), outputs_of(modules) as caught:
        caught["logits"] = model(cris_small.batch(source)).logits
    return {name: value[0] if isinstance(value, tuple) else value for name, value in caught.items()}


NAMES = ("c3", "c4", "layer4", "c5", "text_block_0", "word", "state", "neck", "decoder_layer_0", "decoder", "logits")


@pytest.mark.parametrize("name", NAMES)
def test_every_intermediate_agrees_with_the_official_code(name: str, source: Reference) -> None:
    assert (intermediates()[name] - source.output(name)).abs().max() <= 4 * source.rounding


def logits(model: RISModule, source: Reference, tokens: Tokens | None = None) -> Tensor:
    batch = cris_small.batch(source)
    batch.tokens = batch.tokens if tokens is None else tokens
    with torch.no_grad():
        return model(batch).logits


def changed(source: Reference, name: str, rows: slice) -> float:
    """How much the logits change with other values in rows of a weight."""
    model = cris_small.build(source).double()
    before = logits(model, source)
    with torch.no_grad():
        model.get_parameter(name)[rows].neg_().add_(1)
    return float((logits(model, source) - before).abs().max())


def test_rows_of_position_tables_that_are_not_read_have_no_effect(source: Reference) -> None:
    table = "text.model.embeddings.position_embedding.weight"
    assert changed(source, "pool.pos_embed", slice(0, 1)) == 0
    assert changed(source, "pool.pos_embed", slice(1, 2)) > 1e-3
    assert changed(source, table, slice(8, None)) == 0
    assert changed(source, table, slice(7, 8)) > 1e-3


def test_a_pad_changes_no_logit(source: Reference) -> None:
    assert changed(source, "text.model.embeddings.token_embedding.weight", slice(0, 1)) == 0
    model = cris_small.build(source).double()
    tokens = cris_small.tokens(source)
    longer = Tokens(F.pad(tokens.ids, (0, 4)), F.pad(tokens.mask, (0, 4)), tokens.spans)
    torch.testing.assert_close(logits(model, source, longer), logits(model, source), rtol=1e-9, atol=1e-9)


def test_a_sentence_vector_is_read_at_the_end_token(source: Reference) -> None:
    """The first sentence of the fixture is cut, and its last token is the end token."""
    words = intermediates()["word"]
    ends = cris_small.tokens(source).mask.sum(1) - 1
    assert ends.tolist() == [7, 4]
    projection = source.weights["backbone.text_projection"].double()
    torch.testing.assert_close(intermediates()["state"], words[torch.arange(2), ends] @ projection)


def test_columns_and_rows_are_not_confused() -> None:
    table = pixel_positions((2, 3), 8, torch.zeros((), dtype=torch.float64)).view(2, 3, 8)
    code = word_positions(3, 4, table)
    for row in range(2):
        for column in range(3):
            torch.testing.assert_close(table[row, column], torch.cat([code[column], code[row]]))


def test_position_codes_alternate_sine_and_cosine() -> None:
    code = word_positions(5, 6, torch.zeros((), dtype=torch.float64))
    rates = torch.tensor([10000 ** (-2 * k / 6) for k in range(3)], dtype=torch.float64)
    torch.testing.assert_close(code[3, 0::2], (3 * rates).sin())
    torch.testing.assert_close(code[3, 1::2], (3 * rates).cos())


def test_every_sentence_has_its_own_convolution() -> None:
    torch.manual_seed(0)
    pixels, kernels, bias = torch.randn(4, 6, 5, 7), torch.randn(4, 6, 3, 3), torch.randn(4)
    expected = [F.conv2d(pixels[[i]], kernels[[i]], bias[[i]], padding=1) for i in range(4)]
    together = sentence_convolution(pixels.double(), kernels.double(), bias.double())
    torch.testing.assert_close(together.float(), torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_sentences_about_one_image_are_as_sentences_about_copies_of_it(source: Reference) -> None:
    model = cris_small.build(source).double()
    grouped = cris_small.batch(source)
    copies = copy.copy(grouped)
    grouped.images, grouped.valid = grouped.images[:1], grouped.valid[:1]
    grouped.image_index = torch.zeros(2, dtype=torch.long)
    copies.images = grouped.images.expand(2, -1, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(model(grouped).logits, model(copies).logits, rtol=1e-9, atol=1e-9)


# -- training ---------------------------------------------------------------------------------------------------------


def test_learning_rates_of_each_epoch_are_those_of_the_published_code(source: Reference) -> None:
    """By a fault of its schedule, CLIP trains at the full rate in the first epoch; position tables always do."""
    options = recipes.resolve("cris", "refcoco", "paper")["model"]["init_args"]["optim"]
    model = cris_small.build(source, optim=options)
    optimizer, schedule = make_optimizer(model, model.optim, 50)
    rates = []
    for _ in range(50):
        rates.append({group["name"].removesuffix("-plain"): group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        schedule.step()
    expected = [(1e-4, 1e-4), *[(1e-5, 1e-4)] * 34, *[(1e-6, 1e-5)] * 15]
    for rate, (clip, new) in zip(rates, expected, strict=True):
        assert (rate["vision"], rate["text"], rate["new"]) == pytest.approx((clip, clip, new))
    new = {id(p) for group in optimizer.param_groups if group["name"].startswith("new") for p in group["params"]}
    found = {name for name, parameter in model.named_parameters() if id(parameter) in new}
    assert {"pool.pos_embed", "text.model.embeddings.position_embedding.weight", "head.kernel.weight"} <= found
    assert not [
        name for name in found if name.startswith(("vision.", "pool.shortcut", "pool.query", "text.projection"))
    ]


def test_embeddings_and_position_tables_train(source: Reference) -> None:
    model = cris_small.build(source)
    names = (
        "pool.pos_embed",
        "text.model.embeddings.token_embedding.weight",
        "text.model.embeddings.position_embedding.weight",
    )
    before = {name: model.get_parameter(name).detach().clone() for name in names}
    optimizer, _ = make_optimizer(model, model.optim, 10)
    batch = cris_small.batch(source)
    model.loss(model(batch), batch)["mask"].sum().backward()
    optimizer.step()
    assert all((model.get_parameter(name) - value).abs().max() > 0 for name, value in before.items())


def test_the_target_of_a_cell_is_its_first_pixel_or_its_share(source: Reference) -> None:
    batch = cris_small.batch(source)
    assert batch.masks is not None
    batch.masks[:, :, 1::4] = True  # a quarter of each cell, and never its first pixel
    output = Output(torch.zeros(2, 1, 24, 32))
    output.logits += 2.0
    pixel, share = (
        cris_small.build(source, segment={"target": target}).loss(output, batch)["mask"]
        for target in ("pixel", "share")
    )
    expected = [F.binary_cross_entropy_with_logits(torch.tensor(2.0), torch.tensor(value)) for value in (0.0, 0.25)]
    torch.testing.assert_close(pixel, expected[0].expand(2))
    torch.testing.assert_close(share, expected[1].expand(2))


@pytest.mark.parametrize(
    "options",
    [
        {"head": "plain"},
        {"decoder": {"layers": 0}},
        {"decoder": {"words": False}},
        {"text": {"frozen": True}},
        {"vision": {"frozen": True}},
    ],
    ids=str,
)
def test_every_option_trains_all_that_it_declares(options: dict[str, Any]) -> None:
    assert_trains_what_it_declares(tiny("cris", size=64, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": {"strides": [4, 8, 32]}}, r"neck.strides \[4, 8, 32\] are invalid"),
        ({"neck": {"heads": 3}}, "neck.heads 3 does not divide the 128 channels"),
        ({"decoder": {"heads": 5}}, "decoder.heads 5 are invalid"),
        ({"sentence_width": 32}, "leave it out"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny("cris", size=64, **options)


def test_the_attention_pooling_starts_from_the_archive() -> None:
    vision = {"name": "resnet50_clip_gap", "weights": str(RESNET), "options": {"layers": [1, 1, 2, 1], "width": 8}}
    section = copy.deepcopy(cris_small.SECTION)
    section["init_args"] |= {"vision": vision, "neck": {"widths": [16, 32, 64], "grid": 2}}
    model = instantiate(RISModule, section)  # type: ignore[type-abstract]
    state = read_archive(RESNET)
    assert torch.equal(model.pool.pos_embed, state["visual.attnpool.positional_embedding"])
    assert torch.equal(model.pool.query.weight, state["visual.attnpool.q_proj.weight"])
    section["init_args"]["neck"]["grid"] = 7
    with pytest.raises(UserError, match=r"pos_embed is \(5, 256\) in the file and \(50, 256\)"):
        instantiate(RISModule, section)  # type: ignore[type-abstract]
