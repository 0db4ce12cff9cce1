"""CLIP's text transformer: causal, over word pieces or words, with a projection of the sentence's last state.

The layers are those of transformers. Attention is causal and pads come last, so no pad mask is needed.

    N sentences   L tokens   C width of a state   E width of CLIP's joint space of images and sentences
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from riszoo.batch import Tokens, Words
from riszoo.encoders.adapters import AdaptedTextLayer
from riszoo.encoders.base import TextConfig, TextEncoder, check_options, checked_length, required_vocabulary
from riszoo.encoders.clip.archive import State
from riszoo.encoders.clip.tokenizer import ClipTokenizer, WordTokens, published_pieces
from riszoo.encoders.weights import existing, fill, read_state
from riszoo.errors import UserError
from riszoo.translation import Names, Translation

PAD_ID = 0
OPTION = "--model.text.weights PATH"


@dataclass
class ClipTextOptions:
    """`text.options` of the encoder `clip`; the defaults are those of RN101 and ViT-B.

    tokens        OpenAI's word pieces, or words of `text.vocabulary`
    heads         default: one for each 64 channels
    projection    width of the joint space: 512, or 1024 of RN50
    positions     rows of the position table
    fixed_length  pad every sentence to `text.length`
    raw_pads      the same, and pads count like words: their states are not set to zero, and adapters read them
    """

    tokens: Literal["pieces", "words"] = "pieces"
    width: int = 512
    layers: int = 12
    heads: int | None = None
    projection: int = 512
    positions: int = 77
    dropout: float = 0.0
    fixed_length: bool = False
    raw_pads: bool = False


class ClipText(TextEncoder):
    """The states after the last norm, not projected, and the projected state of the end token."""

    def __init__(self, options: ClipTextOptions, tokenizer: ClipTokenizer, length: int) -> None:
        super().__init__()
        self.tokenizer, self.length = tokenizer, length
        self.raw_pads, self.fixed_length = options.raw_pads, options.fixed_length or options.raw_pads
        self.width, self.sentence_width = options.width, options.projection
        self.model = transformer(options, tokenizer.size)
        self.projection = nn.Linear(options.width, options.projection, bias=False)
        nn.init.normal_(self.projection.weight, std=options.width**-0.5)

    def tokenize(self, texts: list[str]) -> Tokens:
        rows = self.tokenizer.rows(texts, self.length)
        return Tokens.from_rows(rows, self.length if self.fixed_length else None, PAD_ID)

    def forward(self, tokens: Tokens) -> Words:
        if self.raw_pads:
            tokens = tokens.resized(self.length, PAD_ID)
        attended = self.attention_mask(tokens.mask)
        states: Tensor = self.model(input_ids=tokens.ids, attention_mask=attended).last_hidden_state  # (N, L, C)
        end = tokens.mask.sum(1) - 1
        sentence = self.projection(states[torch.arange(states.shape[0], device=end.device), end])  # (N, E)
        if self.raw_pads:
            return Words(states, tokens.mask, end, tokens.spans, sentence)
        return Words.from_states(states, tokens, end, sentence)

    def freeze_sentence(self) -> None:
        self.projection.requires_grad_(False)

    def attention_mask(self, mask: Tensor) -> Tensor | None:
        """(N, L) valid tokens -> (N, 1, L, L), which adapters read; None where it follows from causality alone."""
        if self.raw_pads or not self.adapted:
            return None
        return mask[:, None, None].expand(-1, -1, mask.shape[1], -1).tril()

    @property
    def adapted(self) -> list[AdaptedTextLayer]:
        return [layer for layer in self.model.encoder.layers if isinstance(layer, AdaptedTextLayer)]

    def adapt(self, layer: int, adapter: nn.Module) -> None:
        layers = self.model.encoder.layers
        if not 0 <= layer < len(layers):
            raise UserError(f"the text encoder has layers 0 to {len(layers) - 1}: layer {layer} cannot be adapted")
        layers[layer] = AdaptedTextLayer(layers[layer], adapter)

    def train(self, mode: bool = True) -> Self:
        """Adapters train in a frozen encoder, too."""
        super().train(mode)
        for layer in self.adapted:
            layer.adapter.train(mode)
        return self

    def freeze_embeddings(self) -> None:
        self.model.embeddings.requires_grad_(False)


def transformer(options: ClipTextOptions, vocabulary: int) -> Any:
    """transformers' layers with random weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads or max(1, options.width // 64),
        max_position_embeddings=options.positions,
        attention_dropout=options.dropout,
        hidden_act="quick_gelu",
        pad_token_id=0,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )
    model = CLIPTextModel._from_config(config)
    return getattr(model, "text_model", model)  # older versions wrap the layers once more


def build_clip_text(text: TextConfig) -> ClipText:
    """The encoder of a configuration, with OpenAI's weights where `text.weights` is a file."""
    check_options(text.options, ClipTextOptions.__dataclass_fields__.keys(), text.name)
    options = ClipTextOptions(**text.options)
    if options.width % (options.heads or max(1, options.width // 64)):
        raise UserError(f"text.options: {options.heads} heads do not divide the width {options.width} of clip")
    if text.length > options.positions:
        raise UserError(f"text.length is {text.length}, but clip has {options.positions} positions; reduce text.length")
    tokenizer = WordTokens(required_vocabulary(text)) if options.tokens == "words" else published_pieces()
    encoder = ClipText(options, tokenizer, checked_length(text, 3))
    if text.weights != "none":
        load_text(encoder, text.weights)
    return encoder


def load_text(encoder: ClipText, weights: str) -> None:
    """Fill the encoder with the text half of one of OpenAI's files."""
    if weights == "pretrained":
        raise UserError(f"clip has no weights by name: give OpenAI's archive, such as RN101.pt, as {OPTION}")
    path = existing(weights, OPTION)
    state = {name: tensor for name, tensor in read_state(path, OPTION).items() if not name.startswith("visual.")}
    fill(encoder, translate_text(state).state, path).check(encoder)
    encoder.weight_file = path


# -- OpenAI's names ---------------------------------------------------------------------------------------------------

LAYER = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
NAMES = Names(
    rules=(
        (r"token_embedding\.", "model.embeddings.token_embedding."),
        (r"positional_embedding\Z", "model.embeddings.position_embedding.weight"),
        (
            rf"transformer\.resblocks\.(\d+)\.({'|'.join(LAYER)})\.",
            lambda m: f"model.encoder.layers.{m[1]}.{LAYER[m[2]]}.",
        ),
        (r"ln_final\.", "model.final_layer_norm."),
        (r"text_projection\Z", "projection.weight"),
    ),
    ignored=(r"\Alogit_scale\Z", r"\A(input_resolution|context_length|vocab_size)\Z"),
)


def translate_text(state: State) -> Translation:
    """The text half of a state dict in OpenAI's names under those of `ClipText`; other names are unknown."""
    separate: State = {}
    for name, tensor in state.items():
        if ".attn.in_proj_" in name:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            separate |= {name.replace("in_proj_", f"{part}_proj."): each.contiguous() for part, each in parts}
        else:
            separate[name] = tensor.T.contiguous() if name == "text_projection" else tensor
    return NAMES.translate(separate)
