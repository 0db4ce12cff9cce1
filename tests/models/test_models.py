"""The contract of riszoo/model.py, tested on every recipe and three toy models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from riszoo import recipes
from riszoo.batch import Batch, Output, Tokens
from riszoo.data.dataset import RISDataset
from riszoo.errors import UserError
from riszoo.model import RISModule, next_of_same_image
from riszoo.training.checkpoints import from_checkpoint
from riszoo.training.optim import make_optimizer
from tests.support.zoo import (
    Entry,
    ablations,
    assert_trains_what_it_declares,
    batch_of,
    entries,
    tiny,
    total_loss,
    train,
    trained_names,
)

ENTRIES = entries()
RECIPES = [entry for entry in ENTRIES if not entry.name.startswith("toy")]
PADDED = {"image": (64, 96)}


def named(some: list[Entry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", some, ids=[entry.name for entry in some])


def same(one: Output, two: Output) -> None:
    torch.testing.assert_close(one.logits, two.logits, rtol=1e-9, atol=1e-9)
    if one.no_target is not None:
        torch.testing.assert_close(one.no_target, two.no_target, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def predict(model: RISModule, batch: Batch) -> Output:
    return model.eval()(batch)


def train_at_most(model: RISModule, batch: Batch, steps: int, done: Callable[[], bool] = lambda: False) -> None:
    """At most `steps` of training on one batch; stops earlier when `done`, which is called every 50 steps."""
    optimizer, _ = make_optimizer(model, model.optim, 10 * steps)
    for step in range(steps):
        if step and step % 50 == 0 and done():
            return
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = model.optim.lr * (1 - step / steps)
        optimizer.zero_grad()
        total_loss(model, batch).backward()
        optimizer.step()


@torch.no_grad()
def evaluated_loss(model: RISModule, batch: Batch) -> Tensor:
    return total_loss(model.eval(), batch)


SPARE: list[tuple[str, dict[str, Any]]] = [
    ("risam", {"ma": {"vga": False, "lga": False}}),
    *((name, {}) for name in ("lts", "risam", "lavt", "cgformer", "evfsam", "cris")),
    ("vipa", {"fusion": {"kind": "late"}}),
]


@pytest.mark.parametrize(("name", "options"), SPARE, ids=str)
def test_with_clips_text_every_model_trains_all_that_it_declares(name: str, options: dict[str, Any]) -> None:
    """Few models read the sentence vector, whose projection would never get a gradient."""
    recipe, other = (recipes.resolve(each, "scenes", "tiny")["model"] for each in (name, "cris"))
    with_clip = {**recipe, "init_args": {**recipe["init_args"], "text": other["init_args"]["text"]}}
    assert_trains_what_it_declares(Entry(name, with_clip).build(size=64, **options))


@named(RECIPES)
def test_sentences_have_one_length_where_it_is_fixed(entry: Entry) -> None:
    model = entry.build()
    model.text.fixed_length = True
    assert len({model.tokenize([text]).ids.shape for text in ("star", "the large red star on the left")}) == 1


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("vipa", {"decoder": {"layers": 0}}, "decoder.layers is 0: give at least 1"),
    ("vipa", {"decoder": {"levels": 0}}, "decoder.levels is 0: give at least 1"),
    ("vipa", {"heads": 5}, "width 96 and decoder.width 48 must be divisible by heads 5"),
    ("vipa", {"veg": {"sampling": "hard"}, "contrast": {"weight": 0.0}}, "nothing trains the retrieval"),
    ("lts", {"prior": {"detach": True, "weight": 0.0}}, "nothing trains the prior"),
    ("risam", {"ma": {"lga_norm": "literal_transpose", "prune": "mean"}}, "ma.prune is of the scores"),
    ("lavt", {"vision": {"stages": 1}, "decoder_input": "visual"}, "change decoder_input 'visual'"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED, ids=str)
def test_options_that_leave_something_untrained_or_unread_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        tiny(name, size=64, **options)


@pytest.mark.parametrize("model", ["vipa", "lavt"])
@pytest.mark.parametrize(
    ("loss", "terms"), [("ce", {"mask"}), ("dice", {"dice"}), ("ce+dice", {"mask", "dice"})], ids=["ce", "dice", "both"]
)
def test_the_masks_loss_has_the_terms_that_its_name_says(model: str, loss: str, terms: set[str]) -> None:
    built = tiny(model, size=64, segment={"loss": loss})
    batch = batch_of(built, 1, 1)
    assert built.loss(predict(built, batch), batch).keys() & {"mask", "dice"} == terms


@named(ENTRIES)
@pytest.mark.parametrize("size", [64, (96, 128)])
def test_shapes(entry: Entry, size: int | tuple[int, int]) -> None:
    model = entry.build(size=size)
    batch = batch_of(model, 2, 2, **PADDED)
    output = predict(model, batch)
    n, one, h, w = output.logits.shape
    assert (n, one) == (4, 1)
    assert model.size[0] % h == 0
    assert model.size[0] // h == model.size[1] // w, "the logits cover the whole frame"
    terms = model.loss(output, batch)
    assert terms
    assert all(value.shape == (4,) for value in terms.values()), "a loss term has one value for each sentence"
    for name, maps in output.evidence.items():
        assert maps.ndim == 4, name
        assert maps.shape[:2] in {(4, 1), (4, batch.tokens.ids.shape[1])}, name
        assert torch.isfinite(maps).all(), name


@named(ENTRIES)
def test_everything_trainable_is_trained(entry: Entry) -> None:
    model = entry.build()
    batch = batch_of(model, 4, 2)
    optimizer, _ = make_optimizer(model, model.optim, 30)
    seen = train(model, batch, optimizer, 3)
    assert trained_names(model) == seen


@named(ENTRIES)
def test_sentences_with_no_target_or_several_targets_train(entry: Entry) -> None:
    """An empty ground truth has a finite loss, whose gradient lowers the mask logits."""
    model = entry.build().train()
    batch = batch_of(model, 3, 4, split="general-train")
    empty = batch.no_target
    assert batch.masks is not None
    assert torch.equal(empty, ~batch.masks.flatten(1).any(1))
    assert 0 < empty.sum() < len(batch)
    output = model(batch)
    output.logits.retain_grad()
    terms = model.loss(output, batch)
    assert all(torch.isfinite(term).all() for term in terms.values())
    torch.stack([term[empty].sum() for term in terms.values()]).sum().backward()
    assert output.logits.grad is not None
    assert (output.logits.grad[empty].flatten(1).sum(1) > 0).all()
    assert not output.logits.grad[~empty].any(), "a loss depends on its own sentence only"
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    train_at_most(model, batch, 1)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def mean_iou(model: RISModule, batch: Batch) -> Tensor:
    """Mean IoU over the sentences, at the frame's size."""
    logits = F.interpolate(predict(model, batch).logits, size=model.size, mode="bilinear")[:, 0]
    predicted, target = logits > 0, batch.masks
    return ((predicted & target).sum((1, 2)) / (predicted | target).sum((1, 2))).mean()


@named(RECIPES)
def test_one_batch_can_be_memorised(entry: Entry) -> None:
    model = entry.build()
    batch = batch_of(model, 3, 2, image=model.size)
    before = evaluated_loss(model, batch)

    def memorised() -> bool:
        return bool(evaluated_loss(model, batch) < 0.5 * before and mean_iou(model, batch) > 0.75)

    train_at_most(model, batch, 250, memorised)
    assert evaluated_loss(model, batch) < 0.5 * before
    assert mean_iou(model, batch) > 0.75


@named(ENTRIES)
def test_evaluation_is_deterministic(entry: Entry) -> None:
    model = entry.build()
    batch = batch_of(model)
    assert torch.equal(predict(model, batch).logits, predict(model, batch).logits)


@named(ENTRIES)
def test_noise_in_the_padding_changes_nothing(entry: Entry) -> None:
    model = entry.build(geometry="letterbox").double()
    batch = batch_of(model, 2, 2, **PADDED)
    noisy = copy.deepcopy(batch)
    top, _, bottom, _ = batch.valid[0].tolist()
    assert top > 0
    noisy.images[:, :, :top] = 255
    noisy.images[:, :, bottom:] = 77
    same(predict(model, batch), predict(model, noisy))


@named(ENTRIES)
def test_pad_words_change_nothing(entry: Entry) -> None:
    """Where a model reads pads like words, the encoder pads every sentence to one length, whatever the batch does."""
    model = entry.build().double()
    batch = batch_of(model)
    longer = copy.deepcopy(batch)
    assert batch.tokens is not None
    assert not model.text.raw_pads or batch.tokens.ids.shape[1] == model.text.length
    n = len(batch)
    longer.tokens = Tokens(
        torch.cat([batch.tokens.ids, torch.full((n, 3), 5)], 1).where(
            F.pad(batch.tokens.mask, (0, 3)), torch.tensor(7)
        ),
        F.pad(batch.tokens.mask, (0, 3)),
        batch.tokens.spans,
    )
    same(predict(model, batch), predict(model, longer))


def one_sentence(batch: Batch, i: int) -> Batch:
    p = int(batch.image_index[i])
    assert batch.tokens is not None
    keep = int(batch.tokens.mask[i].sum())
    some = slice(i, i + 1)
    tokens = Tokens(batch.tokens.ids[some, :keep], batch.tokens.mask[some, :keep], batch.tokens.spans[some])
    return Batch(batch.images[p : p + 1], batch.valid[p : p + 1], [batch.image_ids[p]], [batch.geometry[p]],
                 [batch.texts[i]], torch.zeros(1, dtype=torch.long), [batch.samples[i]], batch.no_target[i : i + 1],
                 None if batch.masks is None else batch.masks[i : i + 1], tokens=tokens,
                 views=[view[p : p + 1] for view in batch.views])  # fmt: skip


def row(output: Output, i: int) -> Output:
    return Output(output.logits[i : i + 1], no_target=None if output.no_target is None else output.no_target[i : i + 1])


@named(ENTRIES)
def test_output_does_not_depend_on_the_rest_of_the_batch(entry: Entry) -> None:
    """A sentence alone has the output and loss it has in a batch with others about the same and other images."""
    model = entry.build().double()
    batch = batch_of(model, 2, 3)
    together = predict(model, batch)
    losses = model.loss(together, batch)
    for i in range(len(batch)):
        alone = one_sentence(batch, i)
        output = predict(model, alone)
        same(row(together, i), output)
        for name, value in model.loss(output, alone).items():
            torch.testing.assert_close(value, losses[name][i : i + 1], rtol=1e-9, atol=1e-9)


@named(ENTRIES)
def test_two_sentences_on_one_image_give_two_masks(entry: Entry) -> None:
    model = entry.build()
    output = predict(model, batch_of(model, 1, 2))
    assert (output.logits[0] - output.logits[1]).abs().max() > 1e-6


@named(ENTRIES)
def test_the_image_is_encoded_once(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    model = entry.build()
    seen: list[int] = []
    stem = model.vision.stem

    def counted(x: Tensor) -> Tensor:
        seen.append(len(x))
        return stem(x)

    monkeypatch.setattr(model.vision, "stem", counted)
    predict(model, batch_of(model, 2, 3))
    assert seen == [2]


@named(ENTRIES)
def test_bf16_runs(entry: Entry) -> None:
    model = entry.build()
    batch = batch_of(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.train()
        output = model(batch)
        torch.stack([term.mean() for term in model.loss(output, batch).values()]).sum().backward()
    assert torch.isfinite(output.logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@named(ENTRIES)
def test_channels_last_gives_equal_results(entry: Entry) -> None:
    one, two = entry.build().double(), entry.build(channels_last=True).double()
    batch = batch_of(one)
    same(predict(one, batch), predict(two, batch))


@named(ENTRIES)
def test_save_and_load(entry: Entry, tmp_path: Path) -> None:
    model = entry.build()
    batch = batch_of(model)
    train_at_most(model, batch, 2)
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "it.ckpt")
    again = from_checkpoint(tmp_path / "it.ckpt", entry.section["class_path"])
    assert type(again) is type(model)
    assert torch.equal(predict(model, batch).logits, predict(again, batch).logits)


def test_the_zoo_is_not_empty() -> None:
    assert {"lts", "toy-early", "toy-taps"} <= {entry.name for entry in ENTRIES}
    assert issubclass(RISDataset, torch.utils.data.Dataset)


@pytest.mark.parametrize(("name", "options"), ablations())
def test_every_row_of_the_ablations_is_a_configuration(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        assert tiny(name, **options).size


def test_the_next_sentence_of_an_image_is_found_in_any_order() -> None:
    assert next_of_same_image(torch.tensor([0, 0, 0, 1, 2, 2])).tolist() == [1, 2, 0, 3, 5, 4]
    assert next_of_same_image(torch.tensor([1, 0, 1, 0, 1])).tolist() == [2, 3, 4, 1, 0]
    assert next_of_same_image(torch.tensor([3])).tolist() == [0]
