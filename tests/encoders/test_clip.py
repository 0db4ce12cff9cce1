"""CLIP: OpenAI's archives read as data, its tokenizer, its text transformer, its ResNets."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from riszoo.batch import Tokens
from riszoo.cli.main import main
from riszoo.encoders.base import TextConfig, TextEncoder, VisionConfig
from riszoo.encoders.clip.archive import is_archive, read_archive
from riszoo.encoders.clip.text import translate_text
from riszoo.encoders.clip.tokenizer import MERGES, WordPieces, cleaned, published_pieces, read_merges
from riszoo.encoders.text import build_text, takes_vocabulary
from riszoo.encoders.vision import build_vision
from riszoo.errors import UserError
from tests.support.clip_small import Goldens, goldens, write_merges
from tests.support.official import FIXTURES

WORDS = tuple(f"w{index}" for index in range(196))
SMALL = {"tokens": "words", "width": 64, "layers": 2, "projection": 48}
RESNET, VIT = FIXTURES / "clip_small_rn.pt", FIXTURES / "clip_small_vit.pt"


@pytest.fixture(scope="module")
def source() -> Goldens:
    return goldens()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def clip(weights: str = "none", **options: Any) -> TextEncoder:
    torch.manual_seed(0)
    return build_text(TextConfig("clip", weights, length=8, vocabulary=WORDS, options={**SMALL, **options}))


# -- the tokenizer ----------------------------------------------------------------------------------------------------


def test_sentences_have_the_ids_of_openai(source: Goldens) -> None:
    pieces = WordPieces(source.merges)
    assert (pieces.size, pieces.start, pieces.end) == (49408, 49406, 49407)
    rows = pieces.rows([text for text, _ in source.rows], source.length)
    for (text, expected), (ids, _) in zip(source.rows, rows, strict=True):
        assert ids == expected, text


def test_a_long_sentence_ends_with_the_end_token(source: Goldens) -> None:
    ((ids, spans),) = WordPieces(source.merges).rows(["the white and black dog"], 5)
    assert ids == [49406, 518, 1579, 537, 49407]
    assert [word for word, _, _ in spans] == ["the", "white", "and"]


def test_words_are_found_in_their_pieces(source: Goldens) -> None:
    ((_, spans),) = WordPieces(source.merges).rows(["The  skateboarder &amp; hat"], 17)
    assert spans == [("the", 1, 2), ("skateboarder", 2, 4), ("&", 4, 5), ("hat", 5, 6)]


def test_cleaning_is_that_of_openai() -> None:
    assert cleaned("  Two &amp;amp;  “quotes”\n") == 'two & "quotes"'


def test_merges_are_found_in_the_cache_or_in_a_package(
    source: Goldens, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=rf"install open_clip_torch.* or copy {MERGES} .* to {cache}"):
        build_text(TextConfig("clip"))
    path = write_merges(tmp_path / "packages", source.merges[:100])
    package = tmp_path / "packages" / "open_clip"
    package.mkdir()
    (package / "__init__.py").touch()
    path.replace(package / MERGES)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert published_pieces().size == 512 + 100 + 2
    write_merges(cache, source.merges[:200])
    assert published_pieces().size == 512 + 200 + 2, "the cache comes first"


def test_merges_are_read_from_a_tokenizer_of_the_hub(tmp_path: Path) -> None:
    for merges in ('["a b", "ab c</w>"]', '[["a", "b"], ["ab", "c</w>"]]'):
        (tmp_path / "tokenizer.json").write_text('{"model": {"merges": ' + merges + "}}")
        assert read_merges(tmp_path / "tokenizer.json") == [("a", "b"), ("ab", "c</w>")]


def test_a_damaged_list_of_merges_is_reported(cache: Path, source: Goldens) -> None:
    path = write_merges(cache, source.merges[:10])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=f"{MERGES} is not a list of merges"):
        published_pieces()


def test_only_word_level_clip_takes_a_vocabulary() -> None:
    assert takes_vocabulary(TextConfig("clip", options={"tokens": "words"}))
    assert not takes_vocabulary(TextConfig("clip"))
    (tokens,) = clip().tokenize(["w3 w5 unseen"]).ids.tolist()
    assert tokens == [198, 5, 7, 1, 199]


# -- the text transformer ---------------------------------------------------------------------------------------------


def openai_text(state: dict[str, Tensor], ids: Tensor) -> tuple[Tensor, Tensor]:
    """Word states and sentence vectors, from OpenAI's weights, in plain operations on one sentence after the other."""
    width = state["ln_final.weight"].shape[0]
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    above = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)

    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for block in ("transformer.resblocks.0", "transformer.resblocks.1"):
        y = norm(x, f"{block}.ln_1")
        packed = y @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"]
        query, key, value = packed.chunk(3, -1)
        scores = (query @ key.mT / width**0.5).masked_fill(above, -torch.inf)  # one head of 64 channels
        x = x + linear(scores.softmax(-1) @ value, f"{block}.attn.out_proj")
        hidden = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(hidden * torch.sigmoid(1.702 * hidden), f"{block}.mlp.c_proj")
    x = norm(x, "ln_final")
    return x, x[torch.arange(len(x)), ids.argmax(1)] @ state["text_projection"]


@pytest.mark.parametrize("path", [RESNET, VIT], ids=["resnet", "vit"])
def test_the_text_half_of_an_archive_gives_the_states_of_openai(path: Path) -> None:
    encoder = clip(str(path)).double().eval()
    assert encoder.weight_file == path
    ids = torch.tensor([[198, 3, 190, 17, 5, 199, 0, 0], [198, 60, 61, 62, 63, 64, 65, 199]])
    mask = torch.tensor([[True] * 6 + [False] * 2, [True] * 8])
    state = {name: tensor.double() for name, tensor in read_archive(path).items()}
    states, sentence = openai_text(state, ids)
    words = encoder(Tokens(ids, mask, [[], []]))
    torch.testing.assert_close(words.states[mask], states[mask], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(words.sentence, sentence, rtol=1e-9, atol=1e-9)
    assert not words.states[~mask].any()
    torch.testing.assert_close(encoder.model(input_ids=ids).last_hidden_state, states, rtol=1e-9, atol=1e-9)


class Recorder(nn.Module):
    """An adapter that adds a constant, and records which positions count."""

    def __init__(self, added: float = 0.0) -> None:
        super().__init__()
        self.added = nn.Parameter(torch.full((SMALL["width"],), added))
        self.valid: Tensor | None = None

    def forward(self, states: Tensor, valid: Tensor | None) -> Tensor:
        self.valid = valid
        return self.added.expand_as(states)


@pytest.mark.parametrize("raw_pads", [False, True])
def test_an_adapter_that_adds_nothing_changes_nothing(raw_pads: bool) -> None:
    encoder, adapter = clip(raw_pads=raw_pads).double().eval(), Recorder().double()
    tokens = encoder.tokenize(["w1 w2 w3", "w4"])
    before = encoder(tokens)
    encoder.adapt(1, adapter)
    torch.testing.assert_close(encoder(tokens).states, before.states, rtol=1e-9, atol=1e-9)
    assert adapter.valid is None if raw_pads else torch.equal(adapter.valid, tokens.mask)
    nn.init.normal_(adapter.added)
    assert (encoder(tokens).states - before.states).abs().max() > 0.1


def test_adapters_of_a_frozen_encoder_train() -> None:
    encoder = clip().freeze()
    encoder.adapt(0, nn.Sequential(nn.Linear(64, 64), nn.Dropout()))
    encoder.train()
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == {
        "model.encoder.layers.0.adapter.0.weight",
        "model.encoder.layers.0.adapter.0.bias",
    }
    assert encoder.model.encoder.layers[0].adapter.training
    assert not encoder.model.encoder.layers[0].mlp.training
    assert not encoder.model.encoder.layers[1].training


def test_raw_pads_have_states_at_a_fixed_length() -> None:
    """Other pads of a batch change nothing: equal sentences have equal states at every position."""
    raw = clip(raw_pads=True).double().eval()
    tokens = raw.tokenize(["w1 w2", "w4"])
    words = raw(tokens)
    assert words.states.shape[1] == raw.length
    assert words.states.abs().amin(-1).max(1).values.min() > 0, "no state of a pad is zero"
    short = Tokens(tokens.ids[:1, :4], tokens.mask[:1, :4], [[]])
    torch.testing.assert_close(raw(short).states, words.states[:1], rtol=1e-9, atol=1e-9)
    plain = clip().double().eval()(tokens)
    assert not plain.states[~tokens.mask].any()
    torch.testing.assert_close(words.states[tokens.mask], plain.states[tokens.mask], rtol=1e-9, atol=1e-9)


def test_an_encoder_without_adaptable_layers_is_reported() -> None:
    with pytest.raises(UserError, match="has layers 0 to 1: layer 2 cannot be adapted"):
        clip().adapt(2, Recorder())
    with pytest.raises(UserError, match="has no layers that can be adapted: take the text encoder `clip`"):
        build_text(TextConfig("bigru", vocabulary=WORDS, options={"width": 8})).adapt(0, Recorder())


def test_every_name_of_an_archive_is_used_or_ignored() -> None:
    for path in (RESNET, VIT):
        state = {name: tensor for name, tensor in read_archive(path).items() if not name.startswith("visual.")}
        translation = translate_text(state)
        assert translation.state.keys() == clip().state_dict().keys()
        assert set(translation.ignored) == {"logit_scale", "input_resolution", "context_length", "vocab_size"}
        assert not translation.unknown


def test_a_plain_state_dict_with_the_same_names_is_read(tmp_path: Path) -> None:
    torch.save({"state_dict": read_archive(RESNET)}, tmp_path / "clip.pt")
    one, other = clip(str(RESNET)).state_dict(), clip(str(tmp_path / "clip.pt")).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ("pretrained", {}, "give OpenAI's archive, such as RN101.pt, as --model.text.weights"),
        ("RN101.pt", {}, r"no CLIP weights at .*: download https://.*RN101.pt to there, .* as --model.text.weights"),
        ("/no/such.pt", {}, "no weight file at /no/such.pt; --model.text.weights"),
        (str(RESNET), {"width": 32}, "does not fit this encoder"),
        (str(RESNET), {"layers": 1}, r"contains model.encoder.layers.1.*, unknown to this encoder"),
        (str(RESNET), {"layers": 3}, r"lacks model.encoder.layers.2"),
        ("none", {"widht": 3}, "did you mean width"),
        ("none", {"heads": 5}, "5 heads do not divide the width 64"),
        ("none", {"positions": 4}, "clip has 4 positions"),
    ],
)
def test_a_wrong_configuration_is_reported(weights: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        clip(weights, **options)
    assert len(str(error.value)) < 400


# -- archives ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [RESNET, VIT], ids=["resnet", "vit"])
@pytest.mark.filterwarnings("ignore")
def test_an_archive_has_the_tensors_that_torch_reads(path: Path) -> None:
    expected = torch.jit.load(str(path)).state_dict()
    state = read_archive(path)
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor.float() if tensor.is_floating_point() else tensor), name


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04")
    assert not is_archive(tmp_path / "a.pt")
    assert not is_archive(tmp_path / "b.pt")
    assert not is_archive(tmp_path / "missing.pt")
    assert is_archive(RESNET)


class Call:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def altered(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The small archive with changed members, None for those that are left out."""
    with zipfile.ZipFile(RESNET) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            content = change(member.filename.partition("/")[2], old.read(member))
            if content is not None:
                new.writestr(member, content)
    return path


def with_pickle(value: object) -> Callable[[str, bytes], bytes]:
    stream = io.BytesIO()
    pickle.Pickler(stream, protocol=2).dump(value)
    return lambda name, content: stream.getvalue() if name == "data.pkl" else content


def test_nothing_of_an_archive_is_executed(tmp_path: Path) -> None:
    path = altered(tmp_path / "evil.pt", with_pickle(Call(Path.touch, tmp_path / "executed")))
    with pytest.raises(UserError, match=r"contains \S*, which is never loaded"):
        read_archive(path)
    path = altered(tmp_path / "code.pt", lambda name, content: None if name.endswith("__torch__.py") else content)
    assert read_archive(path).keys() == read_archive(RESNET).keys(), "the code is not needed"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: None if name == "data/7" else content,
        lambda name, content: content[:-2] if name == "data/7" else content,
        lambda name, content: content[:1000] if name == "data.pkl" else content,
        lambda name, content: b"" if name == "data.pkl" else content,
        lambda name, content: b"\x80\x02]r\x00\x00\x00\x7f." if name == "data.pkl" else content,
    ],
    ids=["lost", "short", "cut", "empty", "large memo"],
)
def test_a_damaged_archive_is_reported(change: Callable[[str, bytes], bytes | None], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a damaged TorchScript archive") as error:
        clip(str(altered(tmp_path / "RN50.pt", change)))
    assert "\n" not in str(error.value)


def test_an_archive_without_tensors_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without named tensors"):
        read_archive(altered(tmp_path / "a.pt", with_pickle({"weight": 1})))


# -- images -----------------------------------------------------------------------------------------------------------


def test_the_image_half_of_an_archive_loads_into_timm() -> None:
    options = {"layers": [1, 1, 2, 1], "width": 8}
    encoder = build_vision(VisionConfig("resnet50_clip_gap", str(RESNET), options=options), (64, 96)).eval()
    state = read_archive(RESNET)
    assert (encoder.channels, encoder.strides) == ([32, 64, 128, 256], [4, 8, 16, 32])
    assert torch.equal(encoder.get_parameter("first.0.conv1.conv.weight"), state["visual.conv1.weight"])
    counted = sum(t.numel() for n, t in state.items() if n.startswith("visual.") and "attnpool" not in n)
    assert sum(t.numel() for t in encoder.state_dict().values()) == counted, "every tensor has been loaded"


def test_the_vit_of_an_archive_loads_into_timm() -> None:
    options = {"embed_dim": 64, "depth": 2, "num_heads": 1}
    encoder = build_vision(VisionConfig("vit_base_patch16_clip_quickgelu_224", str(VIT), options=options), (64, 64))
    expected = read_archive(VIT)["visual.conv1.weight"]
    assert any(torch.equal(p, expected) for p in encoder.parameters() if p.shape == expected.shape)


def test_sizes_of_a_resnet_that_do_not_exist_are_reported() -> None:
    for options in ({"layers": [1, 2]}, {"width": 7}):
        with pytest.raises(UserError, match="takes layers, four numbers, and width"):
            build_vision(VisionConfig("resnet50_clip_gap", options=options), (64, 64))


def test_info_describes_an_archive(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(RESNET)]) == 0
    assert "weights without a model, 174 tensors" in capsys.readouterr().out
