"""Any transformers encoder of text: of the hub or a folder with its own tokenizer, or built from numbers over words."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from riszoo.batch import Span, Tokens, Words
from riszoo.encoders.base import TextConfig, TextEncoder
from riszoo.encoders.text import PAD, UNKNOWN, Row, at_least, check_options, padded, valid_only, words_of
from riszoo.encoders.vocabulary import Vocabulary, located, split
from riszoo.encoders.weights import first_line, may_download
from riszoo.errors import UserError

READY = frozenset(
    {"albert", "bert", "clip_text_model", "distilbert", "electra", "mobilebert", "roberta", "t5", "xlm-roberta"}
)
"""Types that take the mask of who sees whom ready made. Given the padding alone, transformers first asks the device
whether there is any, so as to leave the mask out, and every step waits for the answer."""


class Tokenizer(Protocol):
    """Sentences as rows of ids with special tokens, and which tokens each word became."""

    pad: int
    global_first: bool

    def rows(self, texts: list[str], length: int, keep_sep: bool) -> list[Row]: ...


class WordTokenizer:
    """[CLS] word word ... [SEP], over a vocabulary of words."""

    RESERVED = (PAD, UNKNOWN, "[CLS]", "[SEP]")
    pad = 0
    global_first = True

    def __init__(self, words: list[str]) -> None:
        self.vocabulary = Vocabulary(self.RESERVED, words)

    def rows(self, texts: list[str], length: int, keep_sep: bool) -> list[Row]:
        return [self._row(split(text)[: length - 1 - keep_sep], length) for text in texts]

    def _row(self, words: list[str], length: int) -> Row:
        ids = [self.vocabulary[word] for word in ("[CLS]", *words, "[SEP]")][:length]
        return ids, [(word, place, place + 1) for place, word in enumerate(words, 1)]


class OwnTokenizer:
    """A hub model's own tokenizer; the words are found again by where they stand in the sentence."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.pad: int = tokenizer.pad_token_id or 0
        self.global_first = tokenizer.cls_token_id is not None

    def rows(self, texts: list[str], length: int, keep_sep: bool) -> list[Row]:
        encoded = self.tokenizer(
            texts,
            truncation=keep_sep,
            max_length=length if keep_sep else None,
            return_offsets_mapping=True,
            verbose=False,
        )
        pairs = zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [(ids[:length], _spans(text, places[:length])) for text, ids, places in pairs]


def _spans(text: str, places: list[tuple[int, int]]) -> list[Span]:
    """Each word with the half-open range of the tokens that cover any of its characters."""
    spans = []
    for word, start, end in located(text):
        covering = [token for token, (low, high) in enumerate(places) if low < end and start < high]
        if covering:
            spans.append((word, covering[0], covering[-1] + 1))
    return spans


class TransformerText(TextEncoder):
    """The last states of a transformers text encoder without pooler.

    The global token is the first ([CLS]) of a model that reads both ways, and the last valid one (end of text) of
    CLIP, which reads forward only. `keep_sep=False` cuts long sentences as LAVT did, at the right, [SEP] included.
    """

    def __init__(
        self, model: Any, tokenizer: Tokenizer, *, length: int = 20, fixed_length: bool = False, keep_sep: bool = True
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.length, self.fixed_length, self.keep_sep = length, fixed_length, keep_sep
        self.width = model.config.hidden_size
        self.reads_forward = model.config.model_type == "clip_text_model"
        self.ready = model.config.model_type in READY and model.config._attn_implementation == "sdpa"

    def tokenize(self, texts: list[str]) -> Tokens:
        rows = self.tokenizer.rows(texts, self.length, self.keep_sep)
        return padded(rows, self.length if self.fixed_length else None, self.tokenizer.pad)

    def forward(self, tokens: Tokens) -> Words:
        mask = self.sight(tokens.mask) if self.ready else tokens.mask.long()
        states = self.model(input_ids=tokens.ids, attention_mask=mask).last_hidden_state
        return Words(valid_only(states, tokens.mask), tokens.mask, self.global_index(tokens.mask), tokens.spans)

    def sight(self, mask: Tensor) -> Tensor:
        """(N, L) -> (N, 1, L, L) bool: which tokens each token sees."""
        seen = mask[:, None, None].expand(-1, -1, mask.shape[1], -1)
        return seen.tril() if self.reads_forward else seen

    def global_index(self, mask: Tensor) -> Tensor | None:
        lengths = mask.sum(1)
        if self.reads_forward:
            return lengths - 1
        return torch.zeros_like(lengths) if self.tokenizer.global_first else None


def build_transformer(text: TextConfig) -> TransformerText:
    from transformers import CONFIG_MAPPING

    options = dict(text.options)
    own = {name: options.pop(name) for name in ("fixed_length", "keep_sep") if name in options}
    of_type = text.name in CONFIG_MAPPING and not Path(text.name).is_dir()
    model, tokenizer = _from_numbers(text, options) if of_type else _from_hub(text, options)
    places = getattr(model.config, "max_position_embeddings", text.length)
    if text.length > places:
        raise UserError(f"text.length is {text.length}, {text.name} has {places} places; shorten it to that")
    encoder = TransformerText(model, tokenizer, length=at_least(text, 3), **own)
    if text.weights == "pretrained":
        encoder.weight_file = weight_file(text.name)
    return encoder


def weight_file(name: str) -> Path:
    """The weight file of a folder or of a hub model in the local cache."""
    from transformers.utils import cached_file

    for file in ("model.safetensors", "pytorch_model.bin"):
        path = cached_file(name, file, local_files_only=not may_download(), _raise_exceptions_for_missing_entries=False)
        if path is not None:
            return Path(path)
    raise UserError(f"{name} has no weight file: it needs model.safetensors in its folder or in the local cache")


def _from_numbers(text: TextConfig, options: dict[str, Any]) -> tuple[Any, Tokenizer]:
    """A small encoder of a known type over a vocabulary of words, its weights random."""
    from transformers import AutoConfig

    if text.weights != "none":
        raise UserError(f"{text.name} built from text.options has no pretrained weights; name a hub model or a folder")
    tokenizer = WordTokenizer(words_of(text))
    check_options(options, AutoConfig.for_model(text.name).to_dict().keys() - {"vocab_size"}, text.name)
    ids = {"vocab_size": len(tokenizer.vocabulary), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = AutoConfig.for_model(text.name, **ids, **options)
    model_class = _model_class(config, text.name)
    return model_class._from_config(config, **_without_pooler(model_class)), tokenizer


def _from_hub(text: TextConfig, options: dict[str, Any]) -> tuple[Any, Tokenizer]:
    """A model from the local cache or a folder: its own tokenizer, and its weights where they are wanted."""
    from transformers import AutoConfig, AutoTokenizer

    source = {"pretrained_model_name_or_path": text.name, "local_files_only": not may_download()}
    try:
        config = AutoConfig.from_pretrained(**source)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except (OSError, ValueError) as error:
        raise _absent(text.name) from error
    if not tokenizer.is_fast:
        raise UserError(f"{text.name} has no tokenizer.json; save its tokenizer there with a current transformers")
    config = getattr(config, "text_config", config)
    check_options(options, config.to_dict().keys(), text.name)
    config.update(options)
    model_class = _model_class(config, text.name)
    if text.weights == "none":
        return model_class._from_config(config, **_without_pooler(model_class)), OwnTokenizer(tokenizer)
    return _pretrained(model_class, config, source), OwnTokenizer(tokenizer)


def _pretrained(model_class: Any, config: Any, source: dict[str, Any]) -> Any:
    """Weights as filed, complete: transformers itself only warns of what it had to draw at random."""
    name = source["pretrained_model_name_or_path"]
    pooler = _without_pooler(model_class)
    try:
        model, report = model_class.from_pretrained(**source, config=config, output_loading_info=True, **pooler)
    except OSError as error:
        raise _absent(name) from error
    except RuntimeError as error:
        raise UserError(
            f"the weights of {name} do not fit its config.json and text.options: {first_line(error)}"
        ) from error
    if report["missing_keys"]:
        lacking = sorted(report["missing_keys"])
        raise UserError(
            f"the weights of {name} lack {len(lacking)} tensors of the encoder ({lacking[0]}); give complete ones"
        )
    return model


def _model_class(config: Any, name: str) -> Any:
    from transformers import AutoModelForTextEncoding

    mapping = AutoModelForTextEncoding._model_mapping
    if type(config) not in mapping:
        raise UserError(f"{name} ({config.model_type}) is no text encoder of transformers; take a BERT, CLIP or T5")
    return mapping[type(config)]


def _without_pooler(model_class: Any) -> dict[str, bool]:
    """A pooler nobody reads gets no gradient, which breaks data-parallel training."""
    has_pooler = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if has_pooler else {}


def _absent(name: str) -> UserError:
    return UserError(
        f"{name} is neither a complete folder nor in the local cache: download config.json, tokenizer.json and "
        f"model.safetensors of the Hugging Face repository {name} and give --model.text.name FOLDER, "
        "or set RISZOO_DOWNLOAD=1"
    )
