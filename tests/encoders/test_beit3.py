"""BEiT-3's tokenizer, token table and weight files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from riszoo.encoders.base import TextConfig
from riszoo.encoders.beit3.pieces import PieceTokenizer
from riszoo.encoders.beit3.transformer import Beit3, Beit3Options
from riszoo.encoders.beit3.weights import load_beit3, resize_positions
from riszoo.encoders.text import build_text, takes_vocabulary
from riszoo.errors import UserError
from tests.support import evfsam_small
from tests.support.evfsam_small import Reference

SIZES = {"width": 48, "layers": 3, "heads": 4, "side": 64}


@pytest.fixture(scope="module")
def source() -> Reference:
    return evfsam_small.reference()


@pytest.fixture
def pieces(source: Reference, tmp_path: Path) -> Path:
    path = tmp_path / "toy.spm"
    path.write_bytes(source.pieces)
    return path


@pytest.fixture
def weights(source: Reference, tmp_path: Path) -> Path:
    """A file as BEiT-3's own, with a head."""
    prefix = "mm_extractor."
    state = {n.removeprefix(prefix): value for n, value in source.state.items() if n.startswith(prefix)}
    torch.save({"model": state | {"mlm_head.weight": torch.zeros(3, 48)}}, tmp_path / "beit3.pth")
    return tmp_path / "beit3.pth"


def test_ids_are_those_of_the_official_tokenizer(source: Reference, pieces: Path) -> None:
    expected = source.about["tokens"]
    tokenizer = PieceTokenizer(pieces, semantic=True)
    assert tokenizer.semantic == expected["semantic_id"]
    assert tokenizer.pad == expected["pad"]
    rows = tokenizer.rows(list(expected["ids"]), 64)
    assert [ids for ids, _ in rows] == list(expected["ids"].values()), "without lower-casing"


def test_words_are_found_in_the_pieces(pieces: Path) -> None:
    ((ids, spans),) = PieceTokenizer(pieces).rows(["zebra top left"], 64)
    assert spans == [("zebra", 2, 6), ("top", 6, 8), ("left", 8, 9)]
    assert len(ids) == 10


def test_a_long_sentence_keeps_its_end_token(pieces: Path) -> None:
    ((ids, spans),) = PieceTokenizer(pieces).rows(["zebra top left"], 5)
    assert ids == [0, 4, 21, 5, 2]
    assert spans == [("ze", 2, 4)]
    ((empty, none),) = PieceTokenizer(pieces).rows([""], 5)
    assert (empty, none) == ([0, 2], [])


def test_sentences_are_put_in_lower_case(pieces: Path) -> None:
    encoder = build_text(TextConfig(name=str(pieces), length=32, options={"width": 8, "rows": 70}))
    assert torch.equal(encoder.tokenize([" A Man "]).ids, encoder.tokenize(["a man"]).ids)
    assert encoder.tokenize(["a man", "zebra top left"]).mask.sum(1).tolist() == [4, 10]
    assert not takes_vocabulary(TextConfig(name=str(pieces)))
    assert takes_vocabulary(TextConfig(name="beit3"))


def test_a_missing_sentencepiece_is_reported(pieces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"install it with `pip install 'riszoo\[evfsam\]'`"):
        PieceTokenizer(pieces)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 20}, "has 65 tokens, more than the 20 rows"),
        ({"lower": True}, "has no option 'lower'"),
    ],
    ids=str,
)
def test_wrong_options_of_the_table_are_reported(options: dict[str, object], message: str, pieces: Path) -> None:
    with pytest.raises(UserError, match=message):
        build_text(TextConfig(name=str(pieces), options=options))


# -- weights ----------------------------------------------------------------------------------------------------------


def test_an_own_file_of_beit3_starts_table_and_transformer(source: Reference, pieces: Path, weights: Path) -> None:
    options = {"width": 48, "rows": 120}
    table = build_text(TextConfig(name=str(pieces), weights=str(weights), options=options))
    expected = evfsam_small.build(source)
    assert torch.equal(table.get_parameter("table.weight"), expected.text.get_parameter("table.weight"))
    beit3 = Beit3(Beit3Options(**SIZES))
    assert table.weight_file is not None
    load_beit3(beit3, table.weight_file)
    state = expected.beit3.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in beit3.state_dict().items())


def test_positions_of_another_square_are_resized_and_keep_their_first_rows() -> None:
    table = torch.randn(3 + 16, 8)
    assert torch.equal(resize_positions(table, 19), table)
    larger = resize_positions(table, 3 + 36)
    assert larger.shape == (39, 8)
    assert torch.equal(larger[:3], table[:3])
    flat = torch.cat([table[:3], torch.ones(16, 8)])
    torch.testing.assert_close(resize_positions(flat, 39)[3:], torch.ones(36, 8))


def test_a_file_starts_a_model_with_a_larger_square(weights: Path) -> None:
    beit3 = Beit3(Beit3Options(**SIZES | {"side": 96}))
    load_beit3(beit3, weights)
    assert beit3.image_position_embeddings.shape == (3 + 36, 48)


@pytest.mark.parametrize("kind", ["another size", "incomplete", "no weights", "missing", "damaged"])
def test_a_wrong_file_of_beit3_is_reported(kind: str, weights: Path, pieces: Path) -> None:
    text = {"name": str(pieces), "options": {"width": 48, "rows": 120}}
    if kind == "another size":
        with pytest.raises(UserError, match=r"does not fit this BEiT-3: .* tensors are missing or of another shape"):
            load_beit3(Beit3(Beit3Options(**SIZES | {"layers": 2})), weights)
        return
    content = torch.load(weights, weights_only=True)
    if kind == "incomplete":
        del content["model"]["beit3.text_embed.weight"]
        torch.save(content, weights)
    if kind == "no weights":
        torch.save({"model": {"head.weight": torch.zeros(2)}}, weights)
    if kind == "missing":
        weights.unlink()
    if kind == "damaged":
        weights.write_bytes(weights.read_bytes()[:1000])
    messages = {
        "incomplete": "does not fit this BEiT-3",
        "no weights": r"contains no beit3\.\* weights",
        "missing": "no BEiT-3 weights at",
        "damaged": "cannot be read",
    }
    with pytest.raises(UserError, match=messages[kind]):
        build_text(TextConfig(weights=str(weights), **text))
