"""Text encoders: words, the bi-GRU against torch's packed one, transformers encoders from numbers and folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from riszoo.build import instantiate
from riszoo.encoders.base import TextConfig, TextEncoder
from riszoo.encoders.bigru import BiGRU
from riszoo.encoders.text import build_text
from riszoo.encoders.vocabulary import split, split_with_ranges, vocabulary_of
from riszoo.errors import UserError

WORDS = ["the", "red", "shirt", "man", "in", "left", "of", "2nd", ","]
TEXTS = ["the man in the red shirt", "man", "left, of the 2nd man", "", "an unseen zebra"]
SMALL_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SMALL_CLIP = {**SMALL_BERT, "max_position_embeddings": 24}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def bigru(**options: Any) -> TextEncoder:
    return build_text(TextConfig(length=6, vocabulary=WORDS, options={"width": 8, "embedding": 5, **options})).double()


def bert(length: int = 8, **options: Any) -> TextEncoder:
    return build_text(TextConfig("bert", length=length, vocabulary=WORDS, options={**SMALL_BERT, **options})).eval()


# words


def test_words_are_lower_case_with_digits_kept_and_punctuation_split_off() -> None:
    assert split("The 2nd man's T-shirt, #12!") == ["the", "2nd", "man", "'", "s", *"t-", "shirt", *",#", "12", "!"]
    assert split_with_ranges("A Čat") == [("a", 0, 1), ("čat", 2, 5)]


def test_vocabulary_is_sorted_by_count_then_alphabet() -> None:
    texts = ["b a b", "c a", "B d"]
    assert vocabulary_of(texts) == ["b", "a", "c", "d"]
    assert vocabulary_of(reversed(texts), minimum=2) == ["b", "a"]


def test_a_word_listed_twice_is_an_error() -> None:
    with pytest.raises(UserError, match="'red' twice"):
        build_text(TextConfig(vocabulary=["red", "man", "red"], options={"width": 2}))


def test_bigru_and_words_import_no_transformers_or_timm() -> None:
    code = "import sys, riszoo.encoders.text; print({'transformers', 'timm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    code = "import sys, riszoo.encoders.vocabulary; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# the bi-GRU


def test_the_bigru_gives_ids_and_spans() -> None:
    tokens = bigru().tokenize(TEXTS)
    assert tokens.ids[0].tolist() == [2, 5, 6, 2, 3, 4]
    assert tokens.ids[2].tolist() == [7, 10, 8, 2, 9, 5]
    assert tokens.ids[3].tolist() == [1, 0, 0, 0, 0, 0]  # an empty sentence is one unknown word
    assert tokens.ids[4].tolist() == [1, 1, 1, 0, 0, 0]
    assert tokens.mask.sum(1).tolist() == [6, 1, 6, 1, 3]
    assert tokens.spans[2][1] == (",", 1, 2)
    assert tokens.spans[3] == []


def test_the_bigru_cuts_long_sentences_and_pads_to_a_fixed_length() -> None:
    assert bigru().tokenize(["man"]).ids.shape == (1, 1)
    assert bigru(fixed_length=True).tokenize(["man"]).ids.shape == (1, 6)
    cut = bigru().tokenize(["man " * 9])
    assert cut.ids.shape == (1, 6)
    assert len(cut.spans[0]) == 6


def packed(encoder: BiGRU, ids: Tensor, lengths: Tensor) -> Tensor:
    """The states that torch's own packed bidirectional GRU gives."""
    size = encoder.forward_gru.hidden_size
    gru = nn.GRU(encoder.forward_gru.input_size, size, batch_first=True, bidirectional=True).double()
    gru.load_state_dict(
        {
            **encoder.forward_gru.state_dict(),
            **{f"{name}_reverse": v for name, v in encoder.backward_gru.state_dict().items()},
        }
    )
    sequence = nn.utils.rnn.pack_padded_sequence(encoder.embedding(ids), lengths, True, enforce_sorted=False)
    return nn.utils.rnn.pad_packed_sequence(gru(sequence)[0], batch_first=True, total_length=ids.shape[1])[0]


@pytest.mark.parametrize("combine", ["sum", "concat"])
def test_bigru_equals_the_packed_one(combine: str) -> None:
    encoder = bigru(combine=combine)
    tokens = encoder.tokenize(TEXTS)
    words = encoder(tokens)
    assert isinstance(encoder, BiGRU)
    states = packed(encoder, tokens.ids, tokens.mask.sum(1))
    expected = states if combine == "concat" else states[..., :8] + states[..., 8:]
    torch.testing.assert_close(words.states, expected, rtol=0, atol=1e-12)
    assert words.states.shape[-1] == encoder.width
    assert words.global_index is None
    assert words.states[~tokens.mask].abs().max() == 0


def test_the_bigru_exports_as_one_graph() -> None:
    encoder = bigru(fixed_length=True).eval()  # float64
    tokens = encoder.tokenize(TEXTS)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            from riszoo.batch import Tokens

            return self.encoder(Tokens(ids, mask, [])).states

    program = torch.export.export(Plain(), (tokens.ids, tokens.mask), strict=False)
    states = program.module()(tokens.ids, tokens.mask)
    torch.testing.assert_close(states, encoder(tokens).states, rtol=1e-9, atol=1e-9)


def test_bigru_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        encoder = BiGRU([], 1024, embedding=300)
    assert sum(p.numel() for gru in (encoder.forward_gru, encoder.backward_gru) for p in gru.parameters()) == 8_146_944


def test_word_vectors_come_from_a_file_and_can_be_frozen(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("3 5\nred 1 2 3 4 5\nzebra 0 0 0 0 0\nman .1 .2 .3 .4 .5\n")
    encoder = bigru(embedding_file=str(file), embedding_frozen=True)
    assert isinstance(encoder, BiGRU)
    assert encoder.embedding.weight[3].tolist() == [1, 2, 3, 4, 5]
    assert not encoder.embedding.weight.requires_grad
    assert all(p.requires_grad for p in encoder.forward_gru.parameters())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("red 1 2\n", "txt:1 has 2 numbers"),
        ("red a b c d e\n", "not a word followed by numbers"),
        ("x 1\ny 1\n", "contains no word"),
    ],
)
def test_an_invalid_vector_file_is_a_user_error(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        bigru(embedding_file=str(file))


# transformers, from numbers


def test_bert_from_numbers_puts_words_between_its_special_tokens() -> None:
    encoder = bert(length=6)
    tokens = encoder.tokenize(TEXTS)
    assert tokens.ids[1].tolist() == [2, 7, 3, 0, 0, 0]
    assert tokens.ids[0].tolist() == [2, 4, 7, 8, 4, 3]  # cut, [SEP] kept
    assert tokens.ids[3].tolist() == [2, 3, 0, 0, 0, 0]
    assert tokens.spans[1] == [("man", 1, 2)]
    assert bert(length=6, keep_sep=False).tokenize(TEXTS).ids[0].tolist() == [2, 4, 7, 8, 4, 5]
    assert bert(length=6, keep_sep=False).tokenize(TEXTS).ids[1].tolist() == [2, 7, 3, 0, 0, 0]


def test_bert_has_no_pooler_and_every_parameter_gets_a_gradient() -> None:
    encoder = bert()
    words = encoder(encoder.tokenize(TEXTS))
    words.states.square().sum().backward()
    assert words.states.shape == (5, 8, encoder.width)
    assert words.global_index is not None
    assert words.global_index.tolist() == [0] * 5
    assert not [name for name, p in encoder.named_parameters() if p.grad is None]


def assert_pads_change_nothing(encoder: TextEncoder) -> None:
    encoder = encoder.double().eval()
    alone = encoder(encoder.tokenize(["man"]))
    encoder.fixed_length = True
    tokens = encoder.tokenize(["man"])
    noisy = tokens.to("cpu")
    noisy.ids = torch.where(tokens.mask, tokens.ids, 3)
    length = alone.states.shape[1]
    assert tokens.ids.shape[1] > length
    for padded in (encoder(tokens), encoder(noisy)):
        torch.testing.assert_close(padded.states[:, :length], alone.states, rtol=0, atol=1e-12)
        assert padded.states[:, length:].abs().max() == 0


def test_pads_change_no_state_from_numbers() -> None:
    assert_pads_change_nothing(bert())
    assert_pads_change_nothing(bigru())


def test_frozen_text_stays_frozen_under_train() -> None:
    encoder = build_text(TextConfig("bert", vocabulary=WORDS, frozen=True, options=SMALL_BERT))
    model = nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in model.parameters())
    tokens = encoder.tokenize(TEXTS)
    assert torch.equal(encoder(tokens).states, encoder(tokens).states)


def test_layers_run_one_by_one_give_the_states_of_the_whole_encoder() -> None:
    encoder = bert().double()
    tokens = encoder.tokenize(TEXTS)
    whole = encoder(tokens).states
    assert encoder.num_layers == 2
    encoder.split_layers(1, 1)
    states = encoder.run_layer(0, encoder(tokens).states, tokens.mask)
    torch.testing.assert_close(states[tokens.mask], whole[tokens.mask], rtol=1e-9, atol=1e-9)


def test_frozen_embeddings_do_not_train() -> None:
    for encoder in (bert(), bigru()):
        encoder.freeze_embeddings()
        frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
        assert frozen == {name for name, _ in encoder.named_parameters() if "embedding" in name}
    t5 = {"d_model": 32, "num_layers": 1, "num_heads": 2, "d_kv": 16, "d_ff": 32}
    with pytest.raises(UserError, match="no embeddings that can be frozen"):
        build_text(TextConfig("t5", vocabulary=WORDS, options=t5)).freeze_embeddings()


# transformers, from a folder


def bert_folder(folder: Path) -> Path:
    """A random tiny BERT with a WordPiece tokenizer, as the hub files one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "man", "red", "shirt", "zeb", "##ra", "##s", ",", "in"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(_made(folder) / "tokenizer.json"))
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    _describe(folder, {"tokenizer_class": "BertTokenizer", **marks})
    BertModel(BertConfig(vocab_size=len(pieces), **SMALL_BERT)).save_pretrained(folder)
    return folder


def clip_folder(folder: Path) -> Path:
    """A random tiny CLIP, both towers, whose pad token is its end of text, as OpenAI's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel

    letters = list("acdehimnrst,")
    pieces = [*letters, *(f"{x}</w>" for x in letters), "th", "the</w>", "ma", "man</w>", "<s>", "<e>"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    merges = [("t", "h"), ("th", "e</w>"), ("m", "a"), ("ma", "n</w>")]
    suffixes = {"continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "unk_token": "<e>"}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, **suffixes))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    start, end = ("<s>", vocabulary["<s>"]), ("<e>", vocabulary["<e>"])
    tokenizer.post_processor = processors.RobertaProcessing(end, start, trim_offsets=False, add_prefix_space=False)
    tokenizer.save(str(_made(folder) / "tokenizer.json"))
    marks = {"pad_token": "<e>", "unk_token": "<e>", "bos_token": "<s>", "eos_token": "<e>"}
    _describe(folder, {"tokenizer_class": "PreTrainedTokenizerFast", **marks})
    text = {**SMALL_CLIP, "vocab_size": len(pieces), "bos_token_id": start[1], "eos_token_id": end[1]}
    sight = {**SMALL_BERT, "image_size": 8, "patch_size": 4}
    CLIPModel(CLIPConfig(text_config=text, vision_config=sight, projection_dim=8)).save_pretrained(folder)
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _describe(folder: Path, tokenizer: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 24, **tokenizer}))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(1)
    top = tmp_path_factory.mktemp("hub")
    return {"bert": bert_folder(top / "tiny-bert"), "clip": clip_folder(top / "tiny-clip")}


def test_a_bert_folder_gives_its_ids_and_words_of_several_pieces(folders: dict[str, Path]) -> None:
    encoder = build_text(TextConfig(str(folders["bert"]), "pretrained", length=8)).eval()
    tokens = encoder.tokenize(["The zebras, red", "q", "", "man " * 20])
    assert tokens.ids[0].tolist() == [2, 4, 8, 9, 10, 11, 6, 3]
    assert tokens.spans[0] == [("the", 1, 2), ("zebras", 2, 5), (",", 5, 6), ("red", 6, 7)]
    assert tokens.ids[1].tolist() == [2, 1, 3, 0, 0, 0, 0, 0]
    assert tokens.ids[2].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]
    assert tokens.ids[3].tolist() == [2, 5, 5, 5, 5, 5, 5, 3]
    right = build_text(TextConfig(str(folders["bert"]), length=8, options={"keep_sep": False}))
    assert right.tokenize(["man " * 20]).ids[0].tolist() == [2, 5, 5, 5, 5, 5, 5, 5]


def test_nothing_is_printed_of_a_pooler_that_is_left_out(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    build_text(TextConfig(str(folders["bert"]), "pretrained", length=8))
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == verbosity
    assert logging.is_progress_bar_enabled()


def test_a_bert_folder_gives_the_states_of_transformers(folders: dict[str, Path]) -> None:
    from transformers import BertModel

    encoder = build_text(TextConfig(str(folders["bert"]), "pretrained", length=8)).double().eval()
    tokens = encoder.tokenize(TEXTS)
    model = BertModel.from_pretrained(folders["bert"]).double().eval()
    expected = model(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
    torch.testing.assert_close(encoder(tokens).states[tokens.mask], expected[tokens.mask], rtol=1e-9, atol=1e-9)
    assert encoder.weight_file == folders["bert"] / "model.safetensors"
    random = build_text(TextConfig(str(folders["bert"]), "none", length=8)).double().eval()
    assert random.weight_file is None
    assert not torch.allclose(random(tokens).states[tokens.mask], expected[tokens.mask])
    assert_pads_change_nothing(encoder)


def test_clip_finds_its_end_of_text_although_its_pad_token_has_the_same_id(folders: dict[str, Path]) -> None:
    from transformers import CLIPModel

    encoder = build_text(TextConfig(str(folders["clip"]), "pretrained", length=8)).double().eval()
    tokens = encoder.tokenize(["the man", "", "the man in the red shirt"])
    start, end = tokens.ids[1, 0].item(), tokens.ids[1, 1].item()
    assert tokens.ids[0].tolist() == [start, 25, 27, end, end, end, end, end]
    assert tokens.spans[0] == [("the", 1, 2), ("man", 2, 3)]
    assert tokens.mask.sum(1).tolist() == [4, 2, 8]
    words = encoder(tokens)
    assert words.global_index is not None
    assert words.global_index.tolist() == [3, 1, 7]
    assert tokens.ids[2, 7] == end
    model = CLIPModel.from_pretrained(folders["clip"]).double().eval()
    text = model.text_model(input_ids=tokens.ids, attention_mask=tokens.mask.long())
    expected = text.last_hidden_state
    torch.testing.assert_close(words.states[tokens.mask], expected[tokens.mask], rtol=1e-9, atol=1e-9)
    assert_pads_change_nothing(encoder)


def test_clip_text_tower_has_the_published_number_of_parameters() -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        assert sum(p.numel() for p in CLIPTextModel(CLIPTextConfig()).parameters()) == 63_165_952


def test_incomplete_weights_are_an_error_not_a_warning(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(folders["bert"], tmp_path / "bert"))
    with pytest.raises(UserError, match=r"do not fit its config.json and text.options") as caught:
        build_text(TextConfig(str(folder), "pretrained", options={"hidden_size": 64}))
    assert "\n" not in str(caught.value)
    state = load_file(folder / "model.safetensors")
    state.pop("encoder.layer.1.output.dense.weight")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lack 1 tensors"):
        build_text(TextConfig(str(folder), "pretrained"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"download .* or set RISZOO_DOWNLOAD=1"):
        build_text(TextConfig(str(folder), "pretrained"))
    assert build_text(TextConfig(str(folder), "none")).width == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TextConfig("nobody/no-such-model"),
            "nobody/no-such-model is neither a complete folder nor in the local cache",
        ),
        (TextConfig("bert-base-uncased", "pretrained"), "of the Hugging Face repository bert-base-uncased"),
        (TextConfig("/no/such/folder"), "neither a complete folder"),
        (TextConfig("bigru"), "text.vocabulary"),
        (TextConfig("bert"), "text.vocabulary"),
        (TextConfig("bigru", "pretrained", vocabulary=[]), "embedding_file"),
        (TextConfig("bert", "pretrained", vocabulary=[]), "no pretrained weights"),
        (TextConfig("bigru", "glove.txt", vocabulary=[]), "`none` or `pretrained`"),
        (TextConfig("bigru", vocabulary=[], options={"widht": 3}), "did you mean width"),
        (TextConfig("bigru", vocabulary=[], options={"combine": "mean"}), "combine"),
        (TextConfig("bigru", vocabulary=[], length=0), "text.length is 0"),
        (TextConfig("bert", vocabulary=[], options={"hiden_size": 8}), "did you mean hidden_size"),
        (
            TextConfig("bert", vocabulary=[], length=40, options={**SMALL_BERT, "max_position_embeddings": 20}),
            "20 positions",
        ),
        (TextConfig("vit", vocabulary=[]), "not a text encoder"),
    ],
)
def test_an_invalid_configuration_is_one_sentence(text: TextConfig, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_text(text)
    assert "\n" not in str(caught.value)


def test_a_long_vocabulary_is_parsed_quickly() -> None:
    """The parser needs many minutes for a list of twenty thousand words, and no time for a tuple."""
    words = tuple(f"word{i}" for i in range(20_000))
    section = {"class_path": "tests.encoders.test_text.Holder", "init_args": {"text": {"vocabulary": words}}}
    assert instantiate(Holder, section).text.vocabulary == words


class Holder:
    def __init__(self, text: TextConfig) -> None:
        self.text = text
