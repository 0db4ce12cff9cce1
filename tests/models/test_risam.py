"""The whole RISAM: what trains, options, parameter counts, losses, evidence and checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from riszoo.batch import Batch, Features, Geometry, Output, Words
from riszoo.encoders.adapters import added_names
from riszoo.encoders.base import TextConfig, VisionConfig
from riszoo.encoders.sam import SamEncoder
from riszoo.errors import UserError
from riszoo.losses import Align, focal
from riszoo.metrics.protocols import PROTOCOLS
from riszoo.metrics.resample import foreground
from riszoo.models.risam.attention import over_cells, over_words
from riszoo.models.risam.model import RISAM, informative_words
from riszoo.models.risam.options import Decoder, Enhancement, MutualAware, NoTarget, Objective
from riszoo.training.checkpoints import RISCheckpointIO, from_checkpoint, read_checkpoint
from riszoo.training.optim import Optim, make_optimizer
from tests.support.fake_batches import values_of
from tests.support.risam_small import SMALL, WORDS, over_sam, toy
from tests.support.sam_reference import TOY, official_decoder, save_sam
from tests.support.zoo import Entry, assert_trains_what_it_declares, batch_of, train

# ---- the whole model


def test_feature_enhancement_starts_as_the_deep_map() -> None:
    adapted, plain = toy(), toy({"peft": "none"}, fe=Enhancement(enabled=False, stride=8))
    plain.load_state_dict(adapted.state_dict(), strict=False)
    images, valid = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8), torch.tensor([[0, 0, 64, 64]])
    maps = plain.vision(plain.normalise(images, valid))
    assert torch.equal(adapted.encode_image(images, valid).maps[0], maps[-1])
    assert torch.equal(plain.encode_image(images, valid).maps[0], maps[-1])


def train_steps(model: RISAM, steps: int) -> set[str]:
    """Train, and return the names of the parameters that had a gradient."""
    return train(model, batch_of(model, 2, 2), make_optimizer(model, Optim(lr=1e-3), 10)[0], steps)


@pytest.mark.parametrize("peft", ["adapter", "none", "lora", "full"])
def test_frozen_parameters_stay_and_the_others_train(peft: str) -> None:
    model = toy({"peft": peft})
    before = {name: p.clone() for name, p in model.named_parameters()}
    added = {f"vision.{name}" for name in added_names(model.vision)}
    assert bool(added) is (peft in ("adapter", "lora"))
    frozen = {n for n in before if n.startswith("text.") or (n.startswith("vision.") and n not in added)}
    frozen = {n for n in frozen if not (peft == "full" and n.startswith("vision."))}
    assert train_steps(model, 3) == before.keys() - frozen
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - frozen


@pytest.mark.parametrize(("places", "left"), [("attention", "mlp.adapter"), ("mlp", "attn.adapter")])
def test_a_block_can_have_one_adapter(places: str, left: str) -> None:
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
    "query sentence": {"decoder": Decoder(heads=4, hidden=64, query="sentence")},
    "query none": {"decoder": Decoder(heads=4, hidden=64, query="none")},
    "decoder.words": {"decoder": Decoder(heads=4, hidden=64, words=False)},
    "decoder.pos_l": {"decoder": Decoder(heads=4, hidden=64, pos_l=False)},
    "fe": {"fe": Enhancement(enabled=False, stride=8)},
    "fe.taps": {"fe": Enhancement(taps=(0, 0, 2), stride=8)},
    "fe.norm": {"fe": Enhancement(norm="bn", stride=8)},
    "fe.stride": {"fe": Enhancement(stride=16)},
    "bce+dice": {"objective": Objective(kind="bce+dice")},
    "ce": {"objective": Objective(kind="ce")},
    "align": {"align": Align(weight=1.0)},
    "no_target head": {"no_target": NoTarget(kind="head")},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_trains_all_its_parameters(name: str) -> None:
    assert_trains_what_it_declares(toy(**OPTIONS[name]))


def test_other_encoders_can_be_used() -> None:
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
    "sentence does not reach the mask": {"ma": MutualAware(heads=4, depth=0), "decoder": Decoder(heads=4, words=False)},
    "leaves the decoder no token": {"decoder": Decoder(heads=4, query="none", words=False)},
    "leave them out with sam_sparse": {"decoder": Decoder(heads=4, kind="sam_sparse", query="sentence")},
    "fe.taps 7": {"fe": Enhancement(taps=(0, 1, 7)), "decoder": Decoder(heads=4), "ma": MutualAware(heads=4)},
    "width 30": {"width": 30},
}


@pytest.mark.parametrize("words", WRONG)
def test_options_that_cannot_be_combined_are_refused(words: str) -> None:
    with pytest.raises(UserError, match=words):
        toy(**WRONG[words])


def paper(size: int = 1024, **options: Any) -> RISAM:
    """The recipe at the paper's scale on the meta device, for shapes and counts."""
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


def test_trainable_parameters_are_the_specified_number() -> None:
    model = paper()
    assert count(model.text, trained=True) == 0
    assert count(model.vision, trained=True) == 2_379_264
    assert count(model.enhance) == 2_820_864
    assert count(model.decoder) == 3_505_280
    projection = 512 * 256 + 256 + 2 * 256
    assert count(model, trained=True) == 2_379_264 + 2_820_864 + projection + 2 * 1_447_936 + 3_505_280
    assert count(paper(peft="none"), trained=True) == count(model, trained=True) - 2_379_264


def test_sam_has_the_published_number_of_parameters() -> None:
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
    assert {name: tuple(one.shape) for name, one in output.evidence.items()} == {
        "word_attention": (2, 17, 64, 64), "region_attention": (2, 17, 64, 64)
    }  # fmt: skip


@pytest.mark.parametrize("original", [(333, 500), (500, 333), (7, 640), (481, 479)])
def test_masks_come_back_at_the_images_size(original: tuple[int, int]) -> None:
    """Logits at a quarter of the frame that are positive on the image's left half give the mask of its left half."""
    geometry = Geometry.fit("pad", original, (1024, 1024))
    split = geometry.inside[1] / 2 / 4
    logits = torch.where(torch.arange(256) + 0.5 < split, 4.0, -4.0).expand(1, 256, 256)
    mask = foreground(logits, [geometry], [original], PROTOCOLS["original"])[0]
    assert mask.shape == original
    assert abs(mask.float().mean().item() - 0.5) < 0.02


def test_no_target_sentences_are_scored_as_in_the_benchmark() -> None:
    got = values_of("rela", (0, 0, 0, True, -1), (0, 5, 0, True, -1), (2, 4, 4, False, -1), (9, 9, 9, False, -1))
    assert got["gIoU"] == pytest.approx(100 * (1 + 0 + 2 / 6 + 1) / 4)
    assert got["cIoU"] == pytest.approx(100 * 11 / (5 + 6 + 9))
    assert got["N-acc"] == 50


# ---- section 7: losses


def loss_batch(model: RISAM) -> tuple[Output, Batch]:
    batch = batch_of(model, 2, 2, image=(64, 128))  # the lower half is padding
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(4, 1, 32, 32, generator=generator)
    return Output(logits, no_target=torch.randn(4, generator=generator)), batch


@pytest.mark.parametrize("kind", ["focal+dice", "bce+dice", "ce"])
def test_padding_does_not_change_the_loss(kind: Any) -> None:
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
    model = toy(no_target=NoTarget(kind="head"))
    output, batch = loss_batch(model)
    batch.no_target = torch.tensor([True, False, True, False])
    terms = model.loss(output, batch)
    assert set(terms) == {"focal", "dice", "no_target"}
    assert output.no_target is not None
    expected = 0.1 * torch.tensor([1.1, 0.9, 1.1, 0.9]) * F.softplus(output.no_target * torch.tensor([-1, 1, -1, 1]))
    torch.testing.assert_close(terms["no_target"], expected)
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[:32] = True
    at_frame = F.interpolate(output.logits, (64, 64), mode="bilinear")[:, 0]
    assert batch.masks is not None
    by_hand = 20 * focal(at_frame, batch.masks, 0.25, 2)[:, inside].mean(-1)
    torch.testing.assert_close(terms["focal"], by_hand)


# ---- evidence


def test_informative_words_of_a_region() -> None:
    attention = torch.zeros(5, 2, 2)
    attention[1], attention[2], attention[3], attention[4] = 0.1, 0.2, 0.3, 0.4
    attention[:, 1, 1] = torch.tensor([0, 0.9, 0.1, 0, 0])
    spans = [("the", 1, 2), ("motorbike", 2, 4), ("left", 4, 5)]
    region = torch.tensor([[True, True], [False, False]])
    words = informative_words(attention, spans, region, most=2)
    assert [word for word, _ in words] == ["motorbike", "left"]
    assert [share for _, share in words] == pytest.approx([0.5, 0.4])
    assert informative_words(attention, spans, ~region & torch.tensor([False, True]))[0][0] == "the"
    with pytest.raises(UserError, match="the region is empty"):
        informative_words(attention, spans, torch.zeros(2, 2, dtype=torch.bool))


def test_evidence_is_the_attention_of_the_last_block() -> None:
    model = toy().eval()
    batch = batch_of(model, 1, 2)
    evidence = model(batch).evidence
    mask = batch.tokens.mask  # type: ignore[union-attr]
    torch.testing.assert_close(evidence["region_attention"].sum((-2, -1))[mask], torch.ones(int(mask.sum())))
    torch.testing.assert_close(evidence["word_attention"].sum(1), torch.ones(2, 8, 8))
    a = torch.randn(1, 2, 3, 4)
    assert torch.equal(over_words(a, torch.ones(1, 4, dtype=torch.bool)), a.softmax(-1))
    assert math.isclose(over_cells(a.mT, torch.ones(1, 3, dtype=torch.bool)).sum().item(), 8, rel_tol=1e-5)


def test_under_the_control_exchanged_the_mask_decoder_has_the_words_of_the_next_sentence() -> None:
    model = toy()
    batch = batch_of(model.double().eval(), 1, 2)
    model.controls, model.protocols = ["none", "constant", "exchanged"], []
    model.create_metrics(3)
    own, constant, exchanged = (model.validation_step(batch, 0, control).logits for control in range(3))
    assert (own - exchanged).abs().max() > 1e-6
    assert (constant - exchanged).abs().max() > 1e-6
    assert torch.equal(model(batch).logits, own)


# ---- checkpoints of the trained part


def save(model: RISAM, path: Path, trained_only: bool) -> None:
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    RISCheckpointIO(model, trained_only).save_checkpoint(checkpoint, path)


def test_a_checkpoint_can_contain_the_trained_part_alone(tmp_path: Path) -> None:
    path, _, _ = save_sam(tmp_path / "sam.pth")
    model = over_sam(path)
    train_steps(model, 2)
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
    with pytest.raises(UserError, match=r"no SAM weights at .*sam\.pth"):
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
