"""What docs/models/risam.md promises: masks, both attentions, the frozen set, counts, options, checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from segment_anything.modeling import MaskDecoder as OfficialDecoder
from segment_anything.modeling import PromptEncoder
from segment_anything.modeling import TwoWayTransformer as OfficialTransformer
from torch import Tensor
from torch.utils.data import DataLoader

from riszoo.batch import Batch, Features, Geometry, Output, Words
from riszoo.encoders.adapters import added_names
from riszoo.encoders.base import TextConfig, VisionConfig
from riszoo.encoders.sam import SamEncoder
from riszoo.errors import UserError
from riszoo.layers import sine
from riszoo.losses import focal
from riszoo.metrics.protocols import PROTOCOLS
from riszoo.metrics.resample import foreground
from riszoo.models.risam.model import RISAM, MutualAwareBlock, informative_words, over_cells, over_words
from riszoo.models.risam.options import Align, Decoder, Enhancement, MutualAware, NoTarget, Objective
from riszoo.training.checkpoints import RISCheckpointIO, from_checkpoint, read_checkpoint
from riszoo.training.optim import Optim, make_optimizer
from tests.metrics.test_rules import table
from tests.support.sam_reference import TOY, official, randomise
from tests.support.zoo import Entry, batch_of

WORDS = ["the", "red", "blue", "big", "circle", "square", "left"]
BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SMALL: dict[str, Any] = {
    "width": 32,
    "ma": MutualAware(heads=4, hidden=64),
    "decoder": Decoder(heads=4, hidden=64),
    "fe": Enhancement(stride=8),
}


def toy(vision: dict[str, Any] | None = None, weights: str = "none", **options: Any) -> RISAM:
    torch.manual_seed(0)
    over = {"patch": 8, "window": 4, "peft": "adapter", "rank": 4, "out_channels": 32} | (vision or {})
    text = TextConfig("bert", frozen=True, vocabulary=WORDS, options=BERT)
    encoder = VisionConfig("sam_vit_tiny", weights, options=TOY | over)
    return RISAM(size=64, geometry="pad", vision=encoder, text=text, **(SMALL | options))


def asked(count: int = 2, length: int = 5, width: int = 32) -> dict[str, Tensor]:
    """Inputs of a block, as its keyword arguments: an 8 x 8 grid whose lower half is padding, words whose last two
    are pads."""
    generator = torch.Generator().manual_seed(1)
    words = torch.arange(length).expand(count, -1) < length - 2
    return {
        "v": torch.randn(count, 64, width, generator=generator).double(),
        "w": torch.randn(count, length, width, generator=generator).double() * words[..., None],
        "pv": torch.randn(64, width, generator=generator).double(),
        "pl": sine(length, width, torch.zeros(1).double()),
        "words": words,
        "cells": (torch.arange(64) < 32).expand(count, -1),
    }


def block(seed: int = 0, **options: Any) -> MutualAwareBlock:
    torch.manual_seed(seed)
    return MutualAwareBlock(MutualAware(heads=4, hidden=64, **options), 32).double()


def changed(inputs: dict[str, Tensor], name: str, where: Tensor) -> dict[str, Tensor]:
    noise = torch.randn(inputs[name].shape, generator=torch.Generator().manual_seed(9)).double()
    return inputs | {name: torch.where(where[..., None], inputs[name] + noise, inputs[name])}


# ---- section 5


def test_pad_words_move_nothing() -> None:
    part, inputs = block(), asked()
    v, w, _ = part(**inputs)
    v2, w2, _ = part(**changed(inputs, "w", ~inputs["words"]))
    assert torch.equal(v, v2)
    assert torch.equal(w, w2)
    assert not w[~inputs["words"]].any()


def test_padded_cells_do_not_reach_the_words() -> None:
    part, inputs = block(), asked()
    _, w, _ = part(**inputs)
    _, w2, _ = part(**changed(inputs, "v", ~inputs["cells"]))
    assert torch.equal(w, w2)
    _, w3, _ = part(**changed(inputs, "v", inputs["cells"]))
    assert not torch.allclose(w, w3)


@pytest.mark.parametrize("norm", ["pixel_softmax", "literal_transpose"])
def test_what_the_attentions_sum_to(norm: str) -> None:
    inputs = asked()
    _, _, seen = block(lga_norm=norm)(**inputs)
    a, transposed = seen["words"], seen["regions"]  # (N, H, n, L), (N, H, L, n)
    torch.testing.assert_close(a.sum(-1), torch.ones_like(a.sum(-1)))
    assert not a[..., 3:].any()
    assert not transposed[..., 32:].any()
    sums = transposed.sum(-1)[:, :, :3]
    assert torch.allclose(sums, torch.ones_like(sums)) is (norm == "pixel_softmax")
    if norm == "literal_transpose":
        assert torch.equal(transposed[..., :32], a.mT[..., :32])


def test_language_reaches_cells_through_a_alone() -> None:
    part, inputs = block(), asked()
    gained, _, seen = part.attention(**inputs)
    values = part.attention.word_value(inputs["w"]).unflatten(-1, (4, 8)).transpose(1, 2)
    by_hand = part.attention.cell_out((seen["words"] @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(gained, by_hand)


def test_without_lga_each_word_is_on_its_own() -> None:
    part, inputs = block(lga=False), asked()
    _, w, seen = part(**inputs)
    assert set(seen) == {"words"}
    _, w2, _ = part(**changed(changed(inputs, "w", torch.tensor([[False, True, False, False, False]] * 2)), "v",
                              inputs["cells"]))  # fmt: skip
    assert torch.equal(w[:, [0, 2]], w2[:, [0, 2]])
    assert not torch.equal(w[:, 1], w2[:, 1])


def test_without_vga_cells_know_no_word() -> None:
    part, inputs = block(vga=False), asked()
    v, _, _ = part(**inputs)
    assert torch.equal(v, part(**changed(inputs, "w", inputs["words"]))[0])


def test_branches_are_parallel() -> None:
    """The words' gain is computed from the block's input, so weights of the other branch cannot matter to it."""
    part, inputs = block(), asked()
    _, w, _ = part(**inputs)
    torch.nn.init.normal_(part.attention.cell_out.weight)
    assert torch.equal(w, part(**inputs)[1])


def test_own_affinities_differ_and_train_apart() -> None:
    part, inputs = block(shared_affinity=False), asked()
    _, _, before = part(**inputs)
    torch.nn.init.normal_(part.attention.own_affinity.cell.weight)  # type: ignore[union-attr]
    _, _, after = part(**inputs)
    assert torch.equal(before["words"], after["words"])
    assert not torch.equal(before["regions"], after["regions"])


def test_pruning_drops_what_is_below_the_mean_and_keeps_one() -> None:
    a = torch.tensor([[[[1.0, 2.0, 6.0, 100.0], [0.1, 0.1, 0.1, 0.1]]]])
    cells = torch.tensor([[True, True, True, False]])
    pruned = over_cells(a, cells, prune=True)[0, 0]
    assert pruned[0].tolist() == [0, 0, 1, 0]
    torch.testing.assert_close(pruned.sum(-1), torch.ones(2))


def test_counts_of_a_block() -> None:
    part = MutualAwareBlock(MutualAware(), 256)
    assert sum(p.numel() for p in part.parameters()) == 1_447_936


# ---- section 6


def official_decoder() -> tuple[OfficialDecoder, PromptEncoder]:
    transformer = OfficialTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = OfficialDecoder(transformer_dim=256, transformer=transformer)
    prompts = PromptEncoder(embed_dim=256, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=16)
    randomise(decoder)
    randomise(prompts)
    return decoder.eval(), prompts.eval()


def save_sam(path: Path, seed: int = 2) -> tuple[str, OfficialDecoder, PromptEncoder]:
    """A whole SAM as the official files are, of a narrow encoder for 128 px."""
    encoder = official((128, 128))
    randomise(encoder, seed)
    decoder, prompts = official_decoder()
    parts = {"image_encoder": encoder, "mask_decoder": decoder, "prompt_encoder": prompts}
    torch.save({f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()},
               path)  # fmt: skip
    return str(path), decoder, prompts


def over_sam(path: str, **options: Any) -> RISAM:
    text = TextConfig("bert", frozen=True, vocabulary=WORDS, options=BERT)
    vision = VisionConfig("sam_vit_tiny", path, options=TOY | {"peft": "adapter", "rank": 4})
    torch.manual_seed(0)
    return RISAM(size=128, geometry="pad", vision=vision, text=text, ma=MutualAware(depth=1), **options)


@torch.no_grad()
def test_the_decoder_is_sams(tmp_path: Path) -> None:
    """With nothing masked and one sparse prompt, the same weights give the same logits and position codes."""
    path, decoder, prompts = save_sam(tmp_path / "sam.pth")
    model = over_sam(path, decoder=Decoder(kind="sam_sparse"))
    positions = prompts.get_dense_pe()
    torch.testing.assert_close(model.positions(8, 8), positions[0].flatten(1).mT)
    v, sentence = torch.randn(1, 256, 8, 8), torch.randn(3, 1, 256)
    dense = prompts.no_mask_embed.weight.view(1, -1, 1, 1).expand(3, -1, 8, 8)
    expected, _ = decoder.predict_masks(v, positions, sentence, dense)
    whole = torch.ones(3, 64, dtype=torch.bool)
    logits, _ = model.decoder(
        v.flatten(2).mT.expand(3, -1, -1), sentence, model.positions(8, 8), None, whole[:, :1], whole, (8, 8)
    )
    assert ((logits[:, 0] - expected[:, 0]).abs().max() / expected[:, 0].abs().max()) < 1e-4


@pytest.mark.parametrize("kind", ["mutual", "fpn"])
def test_the_decoder_starts_from_sam(tmp_path: Path, kind: Any) -> None:
    path, decoder, _ = save_sam(tmp_path / "sam.pth")
    own, state = over_sam(path, decoder=Decoder(kind=kind)).decoder.state_dict(), decoder.state_dict()
    left = {name for name, value in own.items() if name not in state or not torch.equal(value, state[name])}
    assert left == ({"query"} if kind == "mutual" else {"head.weight", "head.bias"})
    fresh = over_sam(path, decoder=Decoder(weights="none")).decoder.state_dict()
    assert not torch.equal(fresh["output_upscaling.0.weight"], state["output_upscaling.0.weight"])


def test_a_file_without_decoder_is_refused(tmp_path: Path) -> None:
    state = {f"image_encoder.{name}": value for name, value in official((128, 128)).state_dict().items()}
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"half\.pth holds no mask_decoder"):
        over_sam(str(tmp_path / "half.pth"))


def test_pads_move_no_mask_through_the_decoder() -> None:
    for options in ({}, {"query": "sentence"}, {"query": "none"}, {"kind": "sam_sparse"}):
        model = toy(decoder=Decoder(heads=4, hidden=64, **options)).double()  # type: ignore[arg-type]
        inputs = asked()
        logits, _ = model.decoder(**inputs, grid=(8, 8))
        again, _ = model.decoder(**changed(inputs, "w", ~inputs["words"]), grid=(8, 8))
        torch.testing.assert_close(logits, again, rtol=1e-12, atol=1e-12)
        moved, _ = model.decoder(**changed(inputs, "w", inputs["words"]), grid=(8, 8))
        assert not torch.allclose(logits, moved), options


def test_the_word_switch_and_its_position_code() -> None:
    inputs = asked()
    order = torch.tensor([2, 0, 1, 3, 4])  # the words in another order, their code left in place
    for pos_l, same in ((True, False), (False, True)):
        decoder = toy(decoder=Decoder(heads=4, hidden=64, pos_l=pos_l)).double().decoder
        one, two = (decoder(**i, grid=(8, 8))[0] for i in (inputs, inputs | {"w": inputs["w"][:, order]}))
        assert torch.allclose(one, two) is same
    silent = toy(decoder=Decoder(heads=4, hidden=64, words=False)).double().decoder
    assert torch.equal(
        silent(**inputs, grid=(8, 8))[0], silent(**changed(inputs, "w", inputs["words"]), grid=(8, 8))[0]
    )


def test_start_is_added_to_every_logit() -> None:
    inputs = {name: value.float() if value.is_floating_point() else value for name, value in asked().items()}
    zero, low = (toy(decoder=Decoder(heads=4, hidden=64, start=s)).decoder(**inputs, grid=(8, 8))[0] for s in (0, -3))
    torch.testing.assert_close(zero - 3, low)


# ---- the whole


def test_feature_enhancement_begins_as_the_deep_map() -> None:
    adapted, plain = toy(), toy({"peft": "none"}, fe=Enhancement(enabled=False, stride=8))
    plain.load_state_dict(adapted.state_dict(), strict=False)
    images, valid = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8), torch.tensor([[0, 0, 64, 64]])
    maps = plain.vision(plain.normalise(images, valid))
    assert torch.equal(adapted.encode_image(images, valid).maps[0], maps[-1])
    assert torch.equal(plain.encode_image(images, valid).maps[0], maps[-1])


def train(model: RISAM, steps: int, zeros: bool = False) -> set[str]:
    """Steps of training; the names of the parameters that had a gradient, if only of zeros where `zeros` is set."""
    batch, seen = batch_of(model, 2, 2), set()
    optimizer, _ = make_optimizer(model.train(), Optim(lr=1e-3), 10)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack([term.mean() for term in model.loss(model(batch), batch).values()]).sum().backward()
        seen |= {name for name, p in model.named_parameters() if p.grad is not None and (zeros or p.grad.any())}
        optimizer.step()
    return seen


@pytest.mark.parametrize("peft", ["adapter", "none", "lora", "full"])
def test_the_frozen_set_stays_and_the_rest_trains(peft: str) -> None:
    model = toy({"peft": peft})
    before = {name: p.clone() for name, p in model.named_parameters()}
    added = {f"vision.{name}" for name in added_names(model.vision)}
    assert bool(added) is (peft in ("adapter", "lora"))
    frozen = {n for n in before if n.startswith("text.") or (n.startswith("vision.") and n not in added)}
    frozen = {n for n in frozen if not (peft == "full" and n.startswith("vision."))}
    assert train(model, 3) == before.keys() - frozen
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - frozen


@pytest.mark.parametrize(("places", "left"), [("attention", "mlp_adapter"), ("mlp", "attn_adapter")])
def test_adapters_can_sit_in_one_place(places: str, left: str) -> None:
    names = added_names(toy({"places": places}).vision)
    assert len(names) == 4 * 4
    assert not any(left in name for name in names)


OPTIONS: dict[str, dict[str, Any]] = {
    "ma.vga": {"ma": MutualAware(heads=4, hidden=64, vga=False)},
    "ma.lga": {"ma": MutualAware(heads=4, hidden=64, lga=False)},
    "ma.depth": {"ma": MutualAware(heads=4, hidden=64, depth=0)},
    "ma.shared_affinity": {"ma": MutualAware(heads=4, hidden=64, shared_affinity=False)},
    "ma.lga_norm": {"ma": MutualAware(heads=4, hidden=64, lga_norm="literal_transpose")},
    "ma.prune": {"ma": MutualAware(heads=4, hidden=64, prune="mean")},
    "decoder sam_sparse": {"decoder": Decoder(heads=4, hidden=64, kind="sam_sparse")},
    "decoder fpn": {"decoder": Decoder(kind="fpn", heads=4)},
    "query sentence": {"decoder": Decoder(heads=4, hidden=64, query="sentence")},
    "query none": {"decoder": Decoder(heads=4, hidden=64, query="none")},
    "decoder.words": {"decoder": Decoder(heads=4, hidden=64, words=False)},
    "decoder.pos_l": {"decoder": Decoder(heads=4, hidden=64, pos_l=False)},
    "fe": {"fe": Enhancement(enabled=False, stride=8)},
    "fe.taps": {"fe": Enhancement(taps=(0, 0, 2), stride=8)},
    "fe.norm": {"fe": Enhancement(norm="bn", stride=8)},
    "fe.text": {"fe": Enhancement(text="film", stride=8)},
    "fe.stride": {"fe": Enhancement(stride=16)},
    "bce+dice": {"objective": Objective(kind="bce+dice")},
    "ce": {"objective": Objective(kind="ce")},
    "align": {"align": Align(weight=1.0)},
    "nt head": {"nt": NoTarget(kind="head")},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_trains_whole(name: str) -> None:
    """No parameter is left without gradient, which would stop training on several devices."""
    model = toy(**OPTIONS[name])
    idle = {n for n, p in model.named_parameters() if p.requires_grad} - train(model, 1, zeros=True)
    assert not idle


def test_a_plain_pyramid_serves_as_well() -> None:
    options = {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}
    model = RISAM(size=64, vision=VisionConfig("resnet18", options=options), text=TextConfig(vocabulary=WORDS), **SMALL)
    assert model(batch_of(model, 1, 2)).logits.shape == (2, 1, 32, 32)
    single = RISAM(
        size=64,
        vision=VisionConfig("sam_vit_tiny", options=TOY | {"taps": []}),
        text=TextConfig(vocabulary=WORDS),
        **SMALL,
    )
    assert single.levels == [0, 0, 0]


WRONG: dict[str, dict[str, Any]] = {
    "nothing brings the sentence": {"ma": MutualAware(depth=0), "decoder": Decoder(kind="fpn")},
    "no token to ask": {"decoder": Decoder(query="none", words=False)},
    "nt.kind head": {"decoder": Decoder(kind="fpn"), "nt": NoTarget(kind="head")},
    "fe.taps 7": {"fe": Enhancement(taps=(0, 1, 7)), "decoder": Decoder(heads=4), "ma": MutualAware(heads=4)},
    "width 30": {"width": 30},
}


@pytest.mark.parametrize("words", WRONG)
def test_options_that_cannot_be_are_refused(words: str) -> None:
    with pytest.raises(UserError, match=words):
        toy(**WRONG[words])


def paper(size: int = 1024, **options: Any) -> RISAM:
    """The recipe at its own scale without storage: shapes and counts only."""
    with torch.device("meta"):
        text = TextConfig("clip_text_model", frozen=True, vocabulary=WORDS, length=17)
        return RISAM(
            size=size,
            vision=VisionConfig("sam_vit_b", options={"peft": "adapter"} | options),
            text=text,
            geometry="pad",
        )


def count(module: torch.nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def test_trainable_parameters_are_those_of_the_formula() -> None:
    model = paper()
    assert count(model.text, trained=True) == 0
    assert count(model.vision, trained=True) == 2_379_264
    assert count(model.enhance) == 2_820_864
    assert count(model.decoder) == 3_505_280
    projection = 512 * 256 + 256 + 2 * 256
    assert count(model, trained=True) == 2_379_264 + 2_820_864 + projection + 2 * 1_447_936 + 3_505_280
    assert count(paper(peft="none"), trained=True) == count(model, trained=True) - 2_379_264


def test_sam_counts_as_published() -> None:
    decoder, prompts = official_decoder()
    assert count(decoder) == 4_058_340
    assert count(prompts) == 6_220
    assert count(paper().decoder.transformer) == 3_291_264
    assert count(paper(peft="none").vision) + count(decoder) + count(prompts) == 93_735_472


def test_shapes_at_the_papers_scale() -> None:
    model = paper()
    with torch.device("meta"):
        images = Features([torch.zeros(1, 256, 64, 64)], torch.zeros(1, 4, dtype=torch.long), (1024, 1024))
        words = Words(torch.zeros(2, 17, 512), torch.ones(2, 17, dtype=torch.bool), None, [])
        output = model.decode(images, torch.zeros(2, dtype=torch.long), words)
    assert output.logits.shape == (2, 1, 256, 256)
    assert output.evidence["regions"].shape == output.evidence["words"].shape == (2, 17, 64, 64)


@pytest.mark.parametrize("original", [(333, 500), (500, 333), (7, 640), (481, 479)])
def test_the_way_back_is_the_images_own_size(original: tuple[int, int]) -> None:
    """Logits of a quarter of the frame, drawn as the image's left half, come back as the image's left half."""
    geometry = Geometry.fit("pad", original, (1024, 1024))
    split = geometry.inside[1] / 2 / 4
    logits = torch.where(torch.arange(256) + 0.5 < split, 4.0, -4.0).expand(1, 256, 256)
    mask = foreground(logits, [geometry], [original], PROTOCOLS["original"])[0]
    assert mask.shape == original
    assert abs(mask.float().mean().item() - 0.5) < 0.02


def test_rejecting_counts_as_the_benchmark_does() -> None:
    got = table("rela", (0, 0, 0, True, -1), (0, 5, 0, True, -1), (2, 4, 4, False, -1), (9, 9, 9, False, -1))
    assert got["gIoU"] == pytest.approx(100 * (1 + 0 + 2 / 6 + 1) / 4)
    assert got["cIoU"] == pytest.approx(100 * 11 / (5 + 6 + 9))
    assert got["N-acc"] == 50


# ---- section 7


def loss_batch(model: RISAM) -> tuple[Output, Batch]:
    batch = batch_of(model, 2, 2, image=(64, 128))  # the lower half is padding
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(4, 1, 32, 32, generator=generator)
    return Output(logits, no_target=torch.randn(4, generator=generator)), batch


@pytest.mark.parametrize("kind", ["focal+dice", "bce+dice", "ce"])
def test_padding_is_no_part_of_the_loss(kind: Any) -> None:
    model = toy(objective=Objective(kind=kind))
    output, batch = loss_batch(model)
    other = Output(output.logits.clone(), no_target=output.no_target)
    other.logits[:, :, 17:] = 9.0  # row 16 is blended into the image's last row
    one, two = model.loss(output, batch), model.loss(other, batch)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_focal_against_torchvision() -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, target = torch.randn(2, 5, 5), (torch.rand(2, 5, 5) > 0.7).float()
    torch.testing.assert_close(focal(logits, target, 0.25, 2), sigmoid_focal_loss(logits, target, 0.25, 2))


def test_terms_are_weighted_and_per_sentence() -> None:
    model = toy(nt=NoTarget(kind="head"))
    output, batch = loss_batch(model)
    batch.no_target = torch.tensor([True, False, True, False])
    terms = model.loss(output, batch)
    assert set(terms) == {"focal", "dice", "nothing"}
    assert output.no_target is not None
    expected = 0.1 * torch.tensor([1.1, 0.9, 1.1, 0.9]) * F.softplus(output.no_target * torch.tensor([-1, 1, -1, 1]))
    torch.testing.assert_close(terms["nothing"], expected)
    where = torch.zeros(64, 64, dtype=torch.bool)
    where[:32] = True
    at_frame = F.interpolate(output.logits, (64, 64), mode="bilinear")[:, 0]
    assert batch.masks is not None
    by_hand = 20 * focal(at_frame, batch.masks, 0.25, 2)[:, where].mean(-1)
    torch.testing.assert_close(terms["focal"], by_hand)


# ---- evidence


def test_informative_words_of_a_region() -> None:
    heeded = torch.zeros(5, 2, 2)
    heeded[1], heeded[2], heeded[3], heeded[4] = 0.1, 0.2, 0.3, 0.4
    heeded[:, 1, 1] = torch.tensor([0, 0.9, 0.1, 0, 0])
    spans = [("the", 1, 2), ("motorbike", 2, 4), ("left", 4, 5)]
    region = torch.tensor([[True, True], [False, False]])
    words = informative_words(heeded, spans, region, most=2)
    assert [word for word, _ in words] == ["motorbike", "left"]
    assert [share for _, share in words] == pytest.approx([0.5, 0.4])
    assert informative_words(heeded, spans, ~region & torch.tensor([False, True]))[0][0] == "the"
    with pytest.raises(UserError, match="region is empty"):
        informative_words(heeded, spans, torch.zeros(2, 2, dtype=torch.bool))


def test_evidence_is_the_last_blocks_attention() -> None:
    model = toy().eval()
    batch = batch_of(model, 1, 2)
    evidence = model(batch).evidence
    mask = batch.tokens.mask  # type: ignore[union-attr]
    torch.testing.assert_close(evidence["regions"].sum((-2, -1))[mask], torch.ones(int(mask.sum())))
    torch.testing.assert_close(evidence["words"].sum(1), torch.ones(2, 8, 8))
    a = torch.randn(1, 2, 3, 4)
    assert torch.equal(over_words(a, torch.ones(1, 4, dtype=torch.bool)), a.softmax(-1))
    assert math.isclose(over_cells(a.mT, torch.ones(1, 3, dtype=torch.bool), False).sum().item(), 8, rel_tol=1e-5)


# ---- checkpoints of the trained part


def save(model: RISAM, path: Path, trained_only: bool) -> None:
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    RISCheckpointIO(model, trained_only).save_checkpoint(checkpoint, path)


def test_a_checkpoint_can_hold_the_trained_part_alone(tmp_path: Path) -> None:
    path, _, _ = save_sam(tmp_path / "sam.pth")
    model = over_sam(path)
    train(model, 2)
    save(model, tmp_path / "it.ckpt", trained_only=True)
    kept = read_checkpoint(tmp_path / "it.ckpt")["state_dict"]
    names = {name for name in kept if name.startswith("vision.")}
    assert names == {f"vision.{name}" for name in added_names(model.vision)}
    assert any(name.startswith("text.") for name in kept), "a text encoder that came from no file is kept"
    again = from_checkpoint(tmp_path / "it.ckpt")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_another_weight_file_is_refused(tmp_path: Path) -> None:
    path, _, _ = save_sam(tmp_path / "sam.pth")
    save(over_sam(path), tmp_path / "it.ckpt", trained_only=True)
    save_sam(tmp_path / "sam.pth", seed=5)
    with pytest.raises(UserError, match=r"sam\.pth is not the file this checkpoint was trained with"):
        from_checkpoint(tmp_path / "it.ckpt")
    (tmp_path / "sam.pth").unlink()
    with pytest.raises(UserError, match=r"sam\.pth are not a file"):
        from_checkpoint(tmp_path / "it.ckpt")
    with pytest.raises(UserError, match=r"give that file as --model\.vision\.weights"):
        RISCheckpointIO(toy()).load_checkpoint(tmp_path / "it.ckpt", weights_only=True)


def test_a_whole_checkpoint_needs_no_weight_file(tmp_path: Path) -> None:
    path, _, _ = save_sam(tmp_path / "sam.pth")
    model = over_sam(path)
    save(model, tmp_path / "it.ckpt", trained_only=False)
    (tmp_path / "sam.pth").unlink()
    again = from_checkpoint(tmp_path / "it.ckpt")
    assert isinstance(again.vision, SamEncoder)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_resumes_from_the_trained_part(tmp_path: Path, ema: float) -> None:
    """Through Lightning, strictly, with averaged weights beside the current ones."""
    path, _, _ = save_sam(tmp_path / "sam.pth")
    model = over_sam(path, optim=Optim(ema=ema))
    loader: DataLoader[Batch] = DataLoader([batch_of(model, 2, 1)], batch_size=None)
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False, "default_root_dir": tmp_path,
    }  # fmt: skip
    trainer = Trainer(max_steps=2, plugins=[RISCheckpointIO(model, trained_only=True)], **quiet)
    trainer.fit(model, loader)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    content = torch.load(tmp_path / "half.ckpt", weights_only=True)
    frozen = "vision.image_encoder.pos_embed"
    assert frozen not in content["state_dict"]
    assert frozen not in content.get("current_model_state", {})
    resumed = over_sam(path, optim=Optim(ema=ema))
    trainer = Trainer(max_steps=3, plugins=[RISCheckpointIO(resumed)], **quiet)
    trainer.fit(resumed, loader, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert trainer.global_step == 3
    assert torch.equal(resumed.state_dict()[frozen], model.state_dict()[frozen])


def test_the_recipes_differ_in_the_encoder_alone() -> None:
    from riszoo import recipes

    risam, maris = (recipes.resolve(name, "refcoco", "paper")["model"]["init_args"] for name in ("risam", "maris"))
    assert risam["vision"].pop("options") == {"peft": "adapter", "checkpoint": True}
    assert maris["vision"].pop("options") == {"peft": "none"}
    assert risam == maris
    entry = Entry("risam", recipes.resolve("risam", "scenes", "tiny")["model"])
    assert count(entry.build().vision, trained=True) == count(entry.build().vision)
