"""The interface of vision and text encoders, and the options that choose one."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import Self

from riszoo.batch import Tokens, Words
from riszoo.errors import UserError


@dataclass
class VisionConfig:
    """Options of the vision encoder.

    name      a timm model, `sam_vit_b|l|h|tiny`, or a dotted class of your own
    weights   `none` (random), `pretrained` (by name, from the local cache), `package:NAME` (from an installed Python
              package), or a file
    frozen    no gradients, BatchNorm and dropout in evaluation mode
    stages    number of stages kept, counted from the finest; default all
    options   keyword arguments of the encoder's constructor (timm's, or your class's); for timm models also
              `grad_checkpointing`, `negative_slope` (LeakyReLU), `pad_before_shift` (Swin as in detection),
              `position_offset` (DINOv2 with registers: its position table resized as in its own code), and `layers` and
              `width` of CLIP's ResNets
    """

    name: str = "resnet18"
    weights: str = "none"
    frozen: bool = False
    stages: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.options = with_none(self.options)


@dataclass
class TextConfig:
    """Options of the text encoder.

    name        `bigru`, `clip`, BEiT-3's token table (`beit3`, or the file of a sentencepiece model), or a transformers
                encoder: a model type (`bert`, built from `options`), a hub name, a folder or `package:NAME`
    weights     `none` (random), `pretrained` (by name, from the local cache, or from the folder `name`), or a file of
                OpenAI's (`clip`) or of BEiT-3
    length      tokens a sentence is truncated to, special tokens included
    vocabulary  words of a word-level encoder; default those of the training split
    frozen      no gradients, no dropout
    options     keyword arguments of the encoder
    """

    name: str = "bigru"
    weights: str = "none"
    length: int = 20
    vocabulary: tuple[str, ...] | None = None  # a tuple: a list of ten thousand takes the parser minutes
    frozen: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.options = with_none(self.options)


def with_none(options: dict[str, Any]) -> dict[str, Any]:
    """`null` on the command line as None: in a class inside a class the parser makes it the text 'None'."""
    return {key: None if value == "None" else value for key, value in options.items()}


class Encoder(nn.Module):
    """A module that can be frozen: no gradients, and evaluation mode even when its parent is set to training.

    weight_file  the file its weights were loaded from; None where they were drawn at random
    """

    frozen: bool = False
    weight_file: Path | None = None

    def freeze(self) -> Self:
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)


class VisionEncoder(Encoder, ABC):
    """An image encoder in stages, so that a model can add language between them.

    `forward` runs `stem` and then, for each stage, `down` and `blocks`. Every step takes and returns NCHW.

    channels, strides  of the map that each stage returns
    freeze_option      the command-line option that stops its training, for error messages
    """

    channels: list[int]
    strides: list[int]
    freeze_option: ClassVar[str] = "--model.vision.frozen true"

    @abstractmethod
    def stem(self, x: Tensor) -> Tensor:
        """(I, 3, H, W) normalised image -> the first grid."""

    @abstractmethod
    def down(self, stage: int, x: Tensor) -> Tensor:
        """The downsampling before a stage; the identity where the stage's blocks downsample."""

    @abstractmethod
    def blocks(self, stage: int, x: Tensor) -> Tensor:
        """The stage; returns map `stage`, (I, channels[stage], H / strides[stage], W / strides[stage])."""

    def keep(self, stages: int) -> None:
        """Remove all but the first `stages` stages."""
        raise UserError(f"{type(self).__name__} cannot be cut after {stages} stages; remove vision.stages")

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = self.stem(x)
        for stage in range(len(self.channels)):
            x = self.blocks(stage, self.down(stage, x))
            maps.append(x)
        return maps


class TextEncoder(Encoder, ABC):
    """A text encoder. `tokenize` runs on the CPU; padding in a batch never changes the state of a real token.

    sentence_width  of `Words.sentence`; None where the encoder has no such vector
    num_layers      how many layers `run_layer` can run one by one; 0 where the encoder has none
    raw_pads        a model reads pads like words: their states are kept, every sentence is `length` tokens wide, and
                    another `length` gives other states
    """

    width: int
    length: int
    fixed_length: bool
    sentence_width: int | None = None
    num_layers: int = 0
    raw_pads: bool = False

    @abstractmethod
    def tokenize(self, texts: list[str]) -> Tokens:
        """Token ids, `length` wide when `fixed_length` is set, otherwise as wide as the longest sentence."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Words: ...

    def freeze_embeddings(self) -> None:
        """Exclude the embeddings from training."""
        raise UserError(f"{type(self).__name__} has no embeddings that can be frozen: leave frozen_embeddings out")

    def freeze_sentence(self) -> None:
        """Exclude from training what only `Words.sentence` depends on."""

    def freeze_layers(self, first: int) -> None:
        """Exclude all layers from index `first` on from training."""
        raise UserError(f"{type(self).__name__} has no layers that can be frozen: leave trained_text_layers out")

    def adapt(self, layer: int, adapter: nn.Module) -> None:
        """Put an adapter, which trains even where the encoder is frozen, beside a layer's feed-forward part.

        `adapter(states, valid)` reads the layer's stream (N, L, C); `valid` (N, L) is None where pads count like words.
        """
        raise UserError(f"{type(self).__name__} has no layers that can be adapted: take the text encoder `clip`")

    def split_layers(self, first: int, later: int) -> None:
        """End `forward` after the `first` layers, keep the `later` ones that follow for `run_layer`, drop the rest."""
        raise UserError(f"{type(self).__name__} has no layers that can be run one by one: take a BERT")

    def run_layer(self, index: int, states: Tensor, mask: Tensor) -> Tensor:
        """Run one of the later layers on states (N, L, C) with the valid tokens `mask` (N, L)."""
        raise UserError(f"{type(self).__name__} has no layers that can be run one by one: take a BERT")


# -- checks of a TextConfig that every text encoder shares -------------------------------------------------------------


def required_vocabulary(text: TextConfig) -> list[str]:
    """The words of a word-level encoder."""
    if text.vocabulary is None:
        raise UserError(f"{text.name} is a word-level encoder and needs text.vocabulary, a list of words")
    return list(text.vocabulary)


def checked_length(text: TextConfig, minimum: int) -> int:
    """`text.length`, at least `minimum`."""
    if text.length < minimum:
        raise UserError(f"text.length is {text.length}; {text.name} needs at least {minimum}")
    return text.length


def check_options(options: dict[str, Any], known: Collection[str], name: str) -> None:
    """Raise for the first option that the encoder `name` does not have."""
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"its options are {', '.join(sorted(known)[:12])}"
            raise UserError(f"{name} has no option {option!r} (text.options); {hint}")
