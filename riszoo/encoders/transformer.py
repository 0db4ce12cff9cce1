"""Any text encoder of transformers: from the hub or a folder with its own tokenizer, or built from numbers over words.

N sentences   L tokens   C width of a state
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from riszoo.batch import Span, TokenRow, Tokens, Words
from riszoo.encoders.base import TextConfig, TextEncoder, check_options, checked_length, required_vocabulary
from riszoo.encoders.vocabulary import PAD, UNKNOWN, Vocabulary, split, split_with_ranges
from riszoo.encoders.weights import first_line, hub_source, may_download
from riszoo.errors import UserError

TAKES_FULL_MASK = frozenset(
    {"albert", "bert", "clip_text_model", "distilbert", "electra", "mobilebert", "roberta", "t5", "xlm-roberta"}
)
"""Model types that accept a full attention mask. Given the padding mask alone, transformers first reads from the device
whether anything is padded, in order to drop the mask, and every step waits for that value."""


class Tokenizer(Protocol):
    """Sentences as rows of ids with special tokens, and the tokens of each word."""

    pad: int
    global_first: bool

    def rows(self, texts: list[str], length: int, keep_sep: bool) -> list[TokenRow]: ...


class WordTokenizer:
    """[CLS] word word ... [SEP], over a vocabulary of words."""

    RESERVED = (PAD, UNKNOWN, "[CLS]", "[SEP]")
    pad = 0
    global_first = True

    def __init__(self, words: list[str]) -> None:
        self.vocabulary = Vocabulary(self.RESERVED, words)

    def rows(self, texts: list[str], length: int, keep_sep: bool) -> list[TokenRow]:
        return [self._row(split(text)[: length - 1 - keep_sep], length) for text in texts]

    def _row(self, words: list[str], length: int) -> TokenRow:
        ids = [self.vocabulary[word] for word in ("[CLS]", *words, "[SEP]")][:length]
        return ids, [(word, index, index + 1) for index, word in enumerate(words, 1)]


class HubTokenizer:
    """The tokenizer that belongs to a hub model; words are matched to its tokens by their character ranges."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.pad: int = tokenizer.pad_token_id or 0
        self.global_first = tokenizer.cls_token_id is not None

    def rows(self, texts: list[str], length: int, keep_sep: bool) -> list[TokenRow]:
        encoded = self.tokenizer(
            texts,
            truncation=keep_sep,
            max_length=length if keep_sep else None,
            return_offsets_mapping=True,
            verbose=False,
        )
        triples = zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [(ids[:length], word_spans(text, offsets[:length])) for text, ids, offsets in triples]


def word_spans(text: str, offsets: list[tuple[int, int]]) -> list[Span]:
    """Each word with the half-open range of the tokens that cover any of its characters."""
    spans = []
    for word, start, end in split_with_ranges(text):
        covering = [token for token, (low, high) in enumerate(offsets) if low < end and start < high]
        if covering:
            spans.append((word, covering[0], covering[-1] + 1))
    return spans


class TransformerText(TextEncoder):
    """The last hidden states of a transformers text encoder, without its pooler.

    The global token is the first ([CLS]) of a bidirectional model, and the last valid one (end of text) of CLIP, whose
    attention is causal. `keep_sep=False` cuts long sentences on the right, [SEP] included, as LAVT did.
    """

    def __init__(
        self, model: Any, tokenizer: Tokenizer, *, length: int = 20, fixed_length: bool = False, keep_sep: bool = True
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.length, self.fixed_length, self.keep_sep = length, fixed_length, keep_sep
        self.width = model.config.hidden_size
        self.causal = model.config.model_type == "clip_text_model"
        self.full_mask = model.config.model_type in TAKES_FULL_MASK and model.config._attn_implementation == "sdpa"
        layers = getattr(getattr(model, "encoder", None), "layer", None)  # BERT and models built like it
        self.num_layers = len(layers) if isinstance(layers, nn.ModuleList) else 0
        self.later_layers = nn.ModuleList()

    def tokenize(self, texts: list[str]) -> Tokens:
        rows = self.tokenizer.rows(texts, self.length, self.keep_sep)
        return Tokens.from_rows(rows, self.length if self.fixed_length else None, self.tokenizer.pad)

    def forward(self, tokens: Tokens) -> Words:
        mask = self.attention_mask(tokens.mask) if self.full_mask else tokens.mask.long()
        states = self.model(input_ids=tokens.ids, attention_mask=mask).last_hidden_state
        return Words.from_states(states, tokens, self.global_index(tokens.mask))

    def attention_mask(self, mask: Tensor) -> Tensor:
        """(N, L) valid tokens -> (N, 1, L, L) bool: the tokens that each token attends to."""
        full = mask[:, None, None].expand(-1, -1, mask.shape[1], -1)
        return full.tril() if self.causal else full

    def global_index(self, mask: Tensor) -> Tensor | None:
        lengths = mask.sum(1)
        if self.causal:
            return lengths - 1
        return torch.zeros_like(lengths) if self.tokenizer.global_first else None

    def freeze_embeddings(self) -> None:
        if not isinstance(getattr(self.model, "embeddings", None), nn.Module):
            super().freeze_embeddings()
        self.model.embeddings.requires_grad_(False)

    def freeze_layers(self, first: int) -> None:
        if not self.num_layers:
            super().freeze_layers(first)
        if not 0 <= first <= self.num_layers:
            raise UserError(f"the text encoder has {self.num_layers} layers; train 0 to {self.num_layers}, not {first}")
        self.model.encoder.layer[first:].requires_grad_(False)

    def split_layers(self, first: int, later: int) -> None:
        layers = self.model.encoder.layer
        self.model.encoder.layer, self.later_layers = layers[:first], layers[first : first + later]

    def run_layer(self, index: int, states: Tensor, mask: Tensor) -> Tensor:
        added = torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, torch.finfo(states.dtype).min)
        updated: Tensor = self.later_layers[index](states, added[:, None, None])  # (N, L, C)
        return updated


def build_transformer(text: TextConfig) -> TransformerText:
    """The encoder that `text.name` names: a model type (built from numbers), a hub model or a folder."""
    from transformers import CONFIG_MAPPING

    options = dict(text.options)
    own = {name: options.pop(name) for name in ("fixed_length", "keep_sep") if name in options}
    is_type = text.name in CONFIG_MAPPING and not Path(text.name).is_dir()
    model, tokenizer = _from_numbers(text, options) if is_type else _from_hub(text, options)
    positions = getattr(model.config, "max_position_embeddings", text.length)
    if text.length > positions:
        raise UserError(f"text.length is {text.length}, but {text.name} has {positions} positions; reduce text.length")
    encoder = TransformerText(model, tokenizer, length=checked_length(text, 3), **own)
    encoder.weight_file = weight_file(text.name) if text.weights == "pretrained" else None
    return encoder


def _from_numbers(text: TextConfig, options: dict[str, Any]) -> tuple[Any, Tokenizer]:
    """A small encoder of a known type over a vocabulary of words, with random weights."""
    from transformers import AutoConfig

    if text.weights != "none":
        raise UserError(
            f"{text.name} is built from text.options and has no pretrained weights; "
            "give a hub model or a folder as text.name"
        )
    tokenizer = WordTokenizer(required_vocabulary(text))
    check_options(options, AutoConfig.for_model(text.name).to_dict().keys() - {"vocab_size"}, text.name)
    ids = {"vocab_size": len(tokenizer.vocabulary), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = AutoConfig.for_model(text.name, **ids, **options)
    model_class = text_model_class(config, text.name)
    return model_class._from_config(config, **_without_pooler(model_class)), tokenizer


def _from_hub(text: TextConfig, options: dict[str, Any]) -> tuple[Any, Tokenizer]:
    """A model from the local cache or a folder with its tokenizer, and with its weights if they are asked for."""
    from transformers import AutoConfig, AutoTokenizer

    source = {"pretrained_model_name_or_path": hub_source(text.name), "local_files_only": not may_download()}
    try:
        config = AutoConfig.from_pretrained(**source)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except (OSError, ValueError) as error:
        raise _not_found(text.name) from error
    if not tokenizer.is_fast:
        raise UserError(f"{text.name} has no tokenizer.json; save its tokenizer there with a current transformers")
    config = getattr(config, "text_config", config)
    check_options(options, config.to_dict().keys(), text.name)
    config.update(options)
    model_class = text_model_class(config, text.name)
    if text.weights == "none":
        return model_class._from_config(config, **_without_pooler(model_class)), HubTokenizer(tokenizer)
    return _pretrained(model_class, config, source), HubTokenizer(tokenizer)


def _pretrained(model_class: Any, config: Any, source: dict[str, Any]) -> Any:
    """The model with its stored weights; missing tensors, of which transformers only warns, are an error."""
    name = source["pretrained_model_name_or_path"]
    pooler = _without_pooler(model_class)
    try:
        if may_download():
            weight_file(name)  # downloads it with a progress bar
        with _quiet():
            model, report = model_class.from_pretrained(**source, config=config, output_loading_info=True, **pooler)
    except OSError as error:
        raise _not_found(name) from error
    except RuntimeError as error:
        raise UserError(
            f"the weights of {name} do not fit its config.json and text.options: {first_line(error)}"
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(
            f"the weights of {name} lack {len(missing)} tensors of the encoder ({missing[0]}); give complete weights"
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and its table of tensors, such as a pooler's, that the model leaves out."""
    from transformers.utils import logging

    verbosity, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()


def weight_file(name: str) -> Path | None:
    """The file that a folder's or a hub model's weights are read from; None where they are split over several."""
    from transformers.utils import cached_file

    for file in ("model.safetensors", "pytorch_model.bin"):
        path = cached_file(
            hub_source(name), file, local_files_only=not may_download(), _raise_exceptions_for_missing_entries=False
        )
        if path is not None:
            return Path(path)
    return None


def text_model_class(config: Any, name: str) -> Any:
    """The transformers class of a text encoder with this configuration."""
    from transformers import AutoModelForTextEncoding

    mapping = AutoModelForTextEncoding._model_mapping
    if type(config) not in mapping:
        raise UserError(
            f"{name} ({config.model_type}) is not a text encoder of transformers; use a BERT, CLIP or T5, for example"
        )
    return mapping[type(config)]


def _without_pooler(model_class: Any) -> dict[str, bool]:
    """An unused pooler gets no gradient, which breaks data-parallel training."""
    has_pooler = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if has_pooler else {}


def _not_found(name: str) -> UserError:
    return UserError(
        f"{name} is neither a complete folder nor in the local cache: download config.json, tokenizer.json and "
        f"model.safetensors of the Hugging Face repository {name} and give --model.text.name FOLDER, or set RISZOO_HUB "
        "to the folder that contains it under this name, or set RISZOO_DOWNLOAD=1"
    )
