"""RISAM's mutual-aware attention and mask decoders: masks, branches, options, and SAM's own decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from riszoo.errors import UserError
from riszoo.models.risam.attention import Context, MutualAwareBlock, over_cells, prune
from riszoo.models.risam.options import Decoder, MutualAware
from tests.support.risam_small import CELL_MASK, WORD_MASK, block, changed, inputs, over_sam, toy
from tests.support.sam_reference import official, save_sam

# ---- section 5: mutual-aware attention


def test_padded_words_change_nothing() -> None:
    part, given = block(), inputs()
    cells, words, _ = part(**given)
    cells2, words2, _ = part(**changed(given, "words", ~WORD_MASK))
    assert torch.equal(cells, cells2)
    assert torch.equal(words, words2)
    assert not words[~WORD_MASK].any()


def test_padded_cells_do_not_change_the_words() -> None:
    part, given = block(), inputs()
    _, words, _ = part(**given)
    assert torch.equal(words, part(**changed(given, "cells", ~CELL_MASK))[1])
    assert not torch.allclose(words, part(**changed(given, "cells", CELL_MASK))[1])


@pytest.mark.parametrize("norm", ["pixel_softmax", "literal_transpose"])
def test_what_the_attentions_sum_to(norm: str) -> None:
    _, _, attention = block(lga_norm=norm)(**inputs())
    by_cell, by_word = attention["word_attention"], attention["region_attention"]  # (N, H, n, L), (N, H, L, n)
    torch.testing.assert_close(by_cell.sum(-1), torch.ones_like(by_cell.sum(-1)))
    assert not by_cell[..., 3:].any()
    assert not by_word[..., 32:].any()
    sums = by_word.sum(-1)[:, :, :3]
    assert torch.allclose(sums, torch.ones_like(sums)) is (norm == "pixel_softmax")
    if norm == "literal_transpose":
        assert torch.equal(by_word[..., :32], by_cell.mT[..., :32])


def test_a_cells_update_is_the_words_weighted_by_its_attention() -> None:
    part, given = block(), inputs()
    words, context = given["words"], given["context"]
    assert part.vision_guided is not None
    scores = part.affinities[0](given["cells"], words)
    update, attention = part.vision_guided(scores, words, context)
    values = part.vision_guided.value(words).unflatten(-1, (4, 8)).transpose(1, 2)
    expected = part.vision_guided.out((attention @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(update, expected)


def test_without_lga_each_word_is_updated_on_its_own() -> None:
    part, given = block(lga=False), inputs()
    _, words, attention = part(**given)
    assert set(attention) == {"word_attention"}
    second = torch.tensor([[False, True, False, False, False]] * 2)
    _, words2, _ = part(**changed(changed(given, "words", second), "cells", CELL_MASK))
    assert torch.equal(words[:, [0, 2]], words2[:, [0, 2]])
    assert not torch.equal(words[:, 1], words2[:, 1])


def test_without_vga_the_words_do_not_change_the_cells() -> None:
    part, given = block(vga=False), inputs()
    assert torch.equal(part(**given)[0], part(**changed(given, "words", WORD_MASK))[0])


def test_the_branches_are_parallel() -> None:
    """Both read the block's inputs, so the words do not depend on what the cells became."""
    part, given = block(), inputs()
    _, words, _ = part(**given)
    torch.nn.init.normal_(part.vision_guided.out.weight)  # type: ignore[union-attr, arg-type]
    assert torch.equal(words, part(**given)[1])


def test_separate_affinities_are_independent() -> None:
    part, given = block(shared_affinity=False), inputs()
    _, _, before = part(**given)
    torch.nn.init.normal_(part.affinities[1].cell.weight)  # type: ignore[union-attr, arg-type]
    _, _, after = part(**given)
    assert torch.equal(before["word_attention"], after["word_attention"])
    assert not torch.equal(before["region_attention"], after["region_attention"])


def test_pruning_drops_scores_below_the_mean_and_keeps_at_least_one() -> None:
    scores = torch.tensor([[[[1.0, 2.0, 6.0, 100.0], [0.1, 0.1, 0.1, 0.1]]]])
    mask = torch.tensor([[True, True, True, False]])
    pruned = over_cells(prune(scores, mask), mask)[0, 0]
    assert pruned[0].tolist() == [0, 0, 1, 0]
    torch.testing.assert_close(pruned.sum(-1), torch.ones(2))


def test_a_block_has_the_specified_number_of_parameters() -> None:
    part = MutualAwareBlock(MutualAware(), 256)
    assert sum(p.numel() for p in part.parameters()) == 1_447_936


# ---- section 6: the mask decoder


@torch.no_grad()
def test_the_decoder_equals_segment_anything(tmp_path: Path) -> None:
    """Without padding and with one sparse prompt, the same weights give the same logits and position codes."""
    path, decoder, prompts = save_sam(tmp_path / "sam.pth")
    model = over_sam(path, decoder=Decoder(kind="sam_sparse"))
    positions = prompts.get_dense_pe()
    torch.testing.assert_close(model.positions(8, 8), positions[0].flatten(1).mT)
    cells, sentence = torch.randn(1, 256, 8, 8), torch.randn(3, 1, 256)
    dense = prompts.no_mask_embed.weight.view(1, -1, 1, 1).expand(3, -1, 8, 8)
    expected, _ = decoder.predict_masks(cells, positions, sentence, dense)
    whole = torch.ones(3, 64, dtype=torch.bool)
    context = Context(model.positions(8, 8), torch.zeros(1, 256), whole, whole[:, :1])
    logits, _ = model.decoder(cells.flatten(2).mT.expand(3, -1, -1), sentence, context, (8, 8))
    assert ((logits[:, 0] - expected[:, 0]).abs().max() / expected[:, 0].abs().max()) < 1e-4


def test_the_decoder_starts_from_sam(tmp_path: Path) -> None:
    path, decoder, _ = save_sam(tmp_path / "sam.pth")
    own, state = over_sam(path).decoder.state_dict(), decoder.state_dict()
    left = {name for name, value in own.items() if name not in state or not torch.equal(value, state[name])}
    assert left == {"query"}
    fresh = over_sam(path, decoder=Decoder(weights="none")).decoder.state_dict()
    assert not torch.equal(fresh["output_upscaling.0.weight"], state["output_upscaling.0.weight"])


def test_a_file_without_a_decoder_is_refused(tmp_path: Path) -> None:
    state = {f"image_encoder.{name}": value for name, value in official((128, 128)).state_dict().items()}
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"half\.pth contains no mask_decoder"):
        over_sam(str(tmp_path / "half.pth"))


def test_padded_words_do_not_change_the_mask() -> None:
    for options in ({}, {"query": "sentence"}, {"query": "none"}, {"kind": "sam_sparse"}):
        model = toy(decoder=Decoder(heads=4, hidden=64, **options)).double()  # type: ignore[arg-type]
        given = inputs()
        logits, _ = model.decoder(**given, grid=(8, 8))
        again, _ = model.decoder(**changed(given, "words", ~WORD_MASK), grid=(8, 8))
        torch.testing.assert_close(logits, again, rtol=1e-12, atol=1e-12)
        moved, _ = model.decoder(**changed(given, "words", WORD_MASK), grid=(8, 8))
        assert not torch.allclose(logits, moved), options


@pytest.mark.parametrize("pos_l", [True, False])
def test_the_order_of_the_words_matters_with_their_position_code(pos_l: bool) -> None:
    given = inputs()
    order = torch.tensor([2, 0, 1, 3, 4])
    decoder = toy(decoder=Decoder(heads=4, hidden=64, pos_l=pos_l)).double().decoder
    one, two = (decoder(**i, grid=(8, 8))[0] for i in (given, given | {"words": given["words"][:, order]}))
    assert torch.allclose(one, two) is not pos_l


def test_the_decoder_can_do_without_words() -> None:
    given = inputs()
    decoder = toy(decoder=Decoder(heads=4, hidden=64, words=False)).double().decoder
    one, two = (decoder(**i, grid=(8, 8))[0] for i in (given, changed(given, "words", WORD_MASK)))
    assert torch.equal(one, two)


def test_start_is_added_to_every_logit() -> None:
    decoders = (toy(decoder=Decoder(heads=4, hidden=64, start=s)).double().decoder for s in (0, -3))
    zero, low = (decoder(**inputs(), grid=(8, 8))[0] for decoder in decoders)
    torch.testing.assert_close(zero - 3, low)
