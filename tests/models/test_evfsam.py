"""EVF-SAM against the numbers of its authors' code at a small size, and the properties that its page states."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from riszoo import recipes
from riszoo.batch import Batch, Features, Tokens
from riszoo.encoders.beit3.transformer import Layer
from riszoo.errors import UserError
from riszoo.metrics.protocols import PROTOCOLS
from riszoo.metrics.resample import foreground
from riszoo.model import RISModule
from riszoo.models.evfsam.model import Objective, in_frame, mask_terms
from riszoo.models.evfsam.published import NAMES
from tests.support import evfsam_small
from tests.support.evfsam_small import Reference
from tests.support.official import assert_gradients_agree, on_meta, vocabulary
from tests.support.zoo import assert_trains_what_it_declares, batch_of, tiny


@pytest.fixture(scope="module")
def source() -> Reference:
    return evfsam_small.reference()


def double(batch: Batch) -> Batch:
    """The batch with its views in float64, as the authors' code prepares them in float32."""
    batch.views = [view.double() for view in batch.views]
    return batch


def run(model: RISModule, batch: Batch) -> dict[str, Tensor]:
    """Every intermediate and output, by the fixture's names."""
    found: dict[str, Tensor] = {}
    layers: list[Tensor] = []
    update = Layer.update

    def caught(layer: Layer, image: Tensor, text: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        updated = update(layer, image, text, attended)
        layers.append(torch.cat(updated, 1))
        return updated

    hooks = [
        model.vision.register_forward_hook(lambda _m, _i, maps: found.update(image_embedding=maps[-1])),
        model.beit3.register_forward_hook(lambda _m, _i, o: found.update(beit=torch.cat([o.image, o.text], 1))),
        model.project.register_forward_hook(lambda _m, _i, prompt: found.update(prompt=prompt)),
        model.decoder.register_forward_hook(lambda _m, _i, o: found.update(low_res=o[0], iou=o[1])),
    ]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Layer, "update", caught)
        logits = model(batch).logits
    for hook in hooks:
        hook.remove()
    found |= {f"beit_layer_{index}": states for index, states in enumerate(layers)}
    found["cls"] = found["beit"][:, 0]
    for image, full in enumerate(at_image_size(logits, batch)):
        found[f"full_{image}"] = full
    return found


def at_image_size(logits: Tensor, batch: Batch) -> list[Tensor]:
    """Each image's logits (n, H0, W0): enlarged to the frame, cropped to the image, resized to its size."""
    frames = F.interpolate(logits, batch.geometry[0].frame, mode="bilinear")
    return [
        F.interpolate(
            frames[batch.image_index == i, :, : fit.inside[0], : fit.inside[1]], fit.original, mode="bilinear"
        )[:, 0]
        for i, fit in enumerate(batch.geometry)
    ]


@cache
def intermediates() -> dict[str, Tensor]:
    source = evfsam_small.reference()
    return run(evfsam_small.build(source).double(), double(evfsam_small.batch(source)))


def test_images_are_prepared_as_in_the_official_code(source: Reference) -> None:
    """The frame is exactly equal, and the square within the rounding of its values."""
    model, batch = evfsam_small.build(source), evfsam_small.batch(source)
    assert [each.inside for each in batch.geometry] == [tuple(size) for size in source.about["sizes"]["resized"]]
    assert torch.equal(model.normalise(batch.images, batch.valid), source.inputs["frames"])
    (square,) = batch.views
    assert (square / 127.5 - 1 - source.inputs["squares"]).abs().max() <= 1e-6


@pytest.mark.parametrize(
    "name",
    [
        *("image_embedding", "beit_layer_0", "beit_layer_1", "beit_layer_2", "beit", "cls"),
        *("prompt", "low_res", "iou", "full_0", "full_1"),
    ],
)
def test_every_intermediate_agrees_with_the_official_code(name: str, source: Reference) -> None:
    rounding = source.about["float32_minus_float64"]
    tolerance = 4 * rounding.get(name, rounding["beit"])  # it states none for layers, embedding and prompt
    assert (intermediates()[name] - source.outputs[name]).abs().max() <= tolerance


def test_masks_under_the_published_protocol_are_the_official_ones(source: Reference) -> None:
    batch = evfsam_small.batch(source)
    for image in range(2):
        chosen = batch.image_index == image
        expected = source.outputs[f"full_{image}"]
        geometry = [batch.geometry[image]] * int(chosen.sum())
        sizes = [each.original for each in geometry]
        logits = intermediates()["low_res"][chosen, 0].float()
        for name in ("evfsam", "lisa"):
            masks = foreground(logits, geometry, sizes, PROTOCOLS[name])
            for mask, full in zip(masks, expected, strict=True):
                sure = full.abs() > 1e-4
                assert torch.equal(mask[sure], full[sure] > 0)


# -- what must and what must not change the answer ----------------------------------------------------------------


def swapped(source: Reference, part: str) -> dict[str, Tensor]:
    """The official state with both experts' weights of one part exchanged in every layer."""

    def other(name: str) -> str:
        if f".{part}." not in name or ".layers." not in name:
            return name
        return name.replace(".A.", ".#.").replace(".B.", ".A.").replace(".#.", ".B.")

    return {name: source.state[other(name)] for name in source.state}


@pytest.mark.parametrize(
    "part", ["self_attn.inner_attn_ln", "self_attn_layer_norm", "final_layer_norm", "ffn"], ids=lambda part: part
)
def test_exchanged_experts_are_as_wrong_as_in_the_official_code(part: str, source: Reference) -> None:
    expected = source.about["mistakes"][f"experts of {part} swapped"]
    found = run(evfsam_small.build(source, swapped(source, part)).double(), double(evfsam_small.batch(source)))
    for name in ("cls", "low_res"):
        change = (found[name] - source.outputs[name]).abs().max()
        assert change == pytest.approx(expected[name], abs=1e-3)


def test_ids_under_the_pad_mask_change_nothing(source: Reference) -> None:
    model, batch = evfsam_small.build(source).double(), double(evfsam_small.batch(source))
    assert batch.tokens is not None
    other = batch.tokens.ids.where(batch.tokens.mask, torch.tensor(7))
    assert not torch.equal(other, batch.tokens.ids)
    batch.tokens = Tokens(other, batch.tokens.mask, batch.tokens.spans)
    assert torch.equal(run(model, batch)["low_res"], intermediates()["low_res"])


def test_a_sentence_alone_has_the_same_mask(source: Reference) -> None:
    model, batch = evfsam_small.build(source).double(), double(evfsam_small.batch(source))
    assert batch.tokens is not None
    length = int(batch.tokens.mask[1].sum())
    batch.image_index = batch.image_index[1:2]
    batch.tokens = Tokens(batch.tokens.ids[1:2, :length], batch.tokens.mask[1:2, :length], [[]])
    assert (run(model, batch)["full_0"] - source.outputs["alone"]).abs().max() <= 1e-5


# -- losses and gradients -------------------------------------------------------------------------------------------


def test_losses_and_gradients_agree_with_the_official_code(source: Reference) -> None:
    """At each image's own size, as the authors' code compares; in float64, because kernels differ between CPUs."""
    model, batch = evfsam_small.build(source).double(), double(evfsam_small.batch(source))
    logits = at_image_size(model(batch).logits, batch)
    sentences: dict[str, list[Tensor]] = {}
    for image, each in enumerate(logits):
        truth = source.inputs[f"truth_{image}"].bool()
        for name, value in mask_terms(Objective(), each, truth, torch.ones_like(truth)).items():
            sentences.setdefault(name, []).append(value)
    terms = {name: torch.cat(values).mean() for name, values in sentences.items()}
    for name, official in (("mask", "mask_bce_loss"), ("dice", "mask_dice_loss")):
        assert terms[name].item() == pytest.approx(source.outputs[official].item(), rel=1e-5)
    loss = terms["mask"] + terms["dice"]
    assert loss.item() == pytest.approx(source.outputs["loss"].item(), rel=1e-5)
    loss.backward()
    assert len(source.gradients) == 11
    assert_gradients_agree(model, source.gradients, NAMES)


def test_the_weights_of_the_two_terms() -> None:
    logits, masks = torch.randn(2, 6, 6), torch.rand(2, 6, 6) > 0.5
    inside = torch.ones_like(masks)
    one, other = (mask_terms(Objective(*weights), logits, masks, inside) for weights in ((1, 1), (2, 0.5)))
    torch.testing.assert_close(other["mask"], 2 * one["mask"])
    torch.testing.assert_close(other["dice"], 0.5 * one["dice"])


def test_only_what_no_mask_depends_on_is_not_trained(source: Reference) -> None:
    model, batch = evfsam_small.build(source), evfsam_small.batch(source)
    declared = {name for name, p in model.named_parameters() if not p.requires_grad and not name.startswith("vision.")}
    official = {NAMES.new_name(name) for name in source.about["trainable_without_gradient"] if "mask_token" not in name}
    assert declared == official
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        (model(batch).logits ** 2).mean().backward()
        assert all((p.grad is None) != p.requires_grad for p in model.parameters())
        optimizer.step()
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert same == frozen | {"positions.positional_encoding_gaussian_matrix"}


# -- full size --------------------------------------------------------------------------------------------------------


def published_size(**over: Any) -> RISModule:
    section = recipes.resolve("evfsam", "refcoco", "paper")["model"]
    section["init_args"]["vision"]["weights"] = "none"
    section["init_args"]["text"] = {"name": "beit3", "vocabulary": vocabulary(64_010), "options": {"width": 1024}}
    return on_meta(section, **over)


def test_the_parameters_of_the_published_size() -> None:
    model = published_size()
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count["vision"] == 637_026_048
    assert count["text"] + count["beit3"] == 672_702_464 - 1024, "without the mask token"
    assert count["project"] == 1_312_000
    assert count["decoder"] == 4_058_340 + 256, "with the embedding of the empty mask prompt"
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    unread = sum(p.numel() for p in (*model.beit3.parameters(), *model.decoder.parameters()) if not p.requires_grad)
    assert trained + unread == 678_073_060 - 1024


def test_the_parameters_with_the_base_encoders() -> None:
    model = published_size(
        vision={"name": "sam_vit_b"}, text={"options": {"width": 768}}, beit={"width": 768, "layers": 12, "heads": 12}
    )
    beit = sum(p.numel() for part in (model.text, model.beit3) for p in part.parameters())
    assert beit == 220_987_392 - 768


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"beit": {"fused_layers": 2}},
        {"beit": {"fused_layers": 0}},
        {"prompt": "eos"},
        {"prompt": "mean"},
        {"prompt": "words"},
        {"prompt": "mean", "beit": {"fused_layers": 2}},
        {"prompt": "words", "beit": {"fused_layers": 0}},
        {"decoder": {"frozen": True}},
        {"beit": {"side": 64, "stem": "patch"}},
        {"align": {"weight": 0.0}},
    ],
    ids=str,
)
def test_every_ablation_trains_all_that_it_declares(options: dict[str, Any]) -> None:
    assert_trains_what_it_declares(tiny("evfsam", **options))


def test_from_scratch_the_prompt_starts_as_large_as_the_tokens_of_the_decoder() -> None:
    def prompt_size(**options: Any) -> float:
        model, sizes = tiny("evfsam", **options), []
        model.project.register_forward_hook(lambda _m, _i, prompt: sizes.append(prompt.std().item()))
        with torch.no_grad():
            model(batch_of(model))
        return sizes[0] / model.decoder.mask_tokens.weight.std().item()

    assert 0.5 < prompt_size() < 2
    assert prompt_size(gain=None) < 0.4, "PyTorch's initial weights"


def test_without_fusion_the_image_states_do_not_depend_on_the_sentence() -> None:
    model = tiny("evfsam", beit={"fused_layers": 0}).double().eval()
    batch = batch_of(model, 1, 2)
    states: list[Tensor] = []
    model.beit3.register_forward_hook(lambda _m, _i, encoded: states.append(encoded.image))
    with torch.no_grad():
        logits = model(batch).logits
    torch.testing.assert_close(states[0][0], states[0][1], rtol=1e-9, atol=1e-9)
    assert (logits[0] - logits[1]).abs().max() > 1e-6, "the sentence reaches the mask beside the image"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beit": {"heads": 5}}, "beit.width 96 must be a multiple of beit.heads"),
        ({"beit": {"side": 90}}, "beit.side 90 must be a multiple of beit.patch"),
        ({"beit": {"patch": 24}}, "beit.patch 24 must be a power of two"),
        ({"beit": {"fused_layers": 9}}, "beit.fused_layers 9 must be between 0 and beit.layers"),
        ({"text": {"length": 40}}, "text.length 40 needs 42 positions"),
        ({"gain": 0.0}, "gain 0.0 must be above 0"),
        ({"text": {"options": {"spread": "wide"}}}, "text.options.spread wide: give a number above 0"),
        ({"width": 90}, "width 90 must be a multiple of 8"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny("evfsam", **options)


def test_evidence_is_on_the_image_within_the_frame() -> None:
    """A map that is hot in the right half of the image is hot in the right half of the image's box."""
    maps = torch.zeros(1, 1, 2, 2)
    maps[..., 1] = 1.0
    box = torch.tensor([[0, 0, 16, 8]])  # an upright image at the left of the frame
    placed = in_frame(maps, Features([], box, (16, 16)), (8, 8))
    assert placed.shape == (1, 1, 8, 8)
    assert (placed[..., :1] == 0).all()
    assert (placed[..., 3:4] == 1).all()


@pytest.mark.parametrize("prompt", ["cls", "eos", "mean", "words"])
def test_the_attention_is_that_of_the_positions_that_become_the_prompt(prompt: str) -> None:
    model = tiny("evfsam", prompt=prompt).double().eval()
    batch, layer = batch_of(model, 2, 3), model.beit3.layers[-1]
    read, other = (layer.image, layer.text) if prompt == "cls" else (layer.text, layer.image)
    with torch.no_grad():
        before = model(batch).evidence["attention"]
        other.q.weight.mul_(5)
        assert torch.equal(model(batch).evidence["attention"], before), "other positions do not count"
        read.q.weight.mul_(5)
        assert not torch.equal(model(batch).evidence["attention"], before)


def test_attention_is_shown_as_a_map(source: Reference) -> None:
    with torch.no_grad():
        output = evfsam_small.build(source)(evfsam_small.batch(source))
    (name,) = output.evidence
    assert name == "attention"
    assert output.evidence[name].shape == (3, 1, 8, 8)
