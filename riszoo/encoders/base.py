"""What a model may ask of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from riszoo.batch import Tokens, Words
from riszoo.errors import UserError


@dataclass
class VisionConfig:
    """Which vision encoder, as plain values.

    name      a timm model, `sam_vit_b|l|h|tiny`, or a dotted class of your own
    weights   `none` (random), `pretrained` (by name, from the local cache), or a file
    frozen    no gradients, and BatchNorm statistics and dropout stay as in evaluation
    stages    how many stages are kept, from the finest; left out, all
    options   keyword arguments of the encoder's constructor (timm's, or the class's)
    """

    name: str = "resnet18"
    weights: str = "none"
    frozen: bool = False
    stages: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TextConfig:
    """Which text encoder, as plain values.

    name        `bigru`, or any transformers encoder: a type (`bert`: built from `options`), a hub name or a folder
    weights     `none` (random), `pretrained` (by name, from the local cache, or from the folder `name`)
    length      tokens a sentence is cut to, special ones included
    vocabulary  the words of a word-level encoder; left out, it is made of the training split before the model is built
    frozen      no gradients, dropout off
    options     keyword arguments of the encoder
    """

    name: str = "bigru"
    weights: str = "none"
    length: int = 20
    vocabulary: tuple[str, ...] | None = None  # a tuple: a list of ten thousand takes the parser minutes
    frozen: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class Encoder(nn.Module):
    """A module that can be frozen for good: no gradients, and evaluation mode however often `train` is called."""

    frozen: bool = False

    def freeze(self) -> Self:
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)


class VisionEncoder(Encoder, ABC):
    """An image as maps, in steps that language can enter between.

    `forward` is the loop of `stem` and, per stage, `down` and `blocks`. Every step takes and gives NCHW.
    """

    channels: list[int]
    strides: list[int]

    @abstractmethod
    def stem(self, x: Tensor) -> Tensor:
        """(I, 3, H, W) normalised image -> the first grid."""

    @abstractmethod
    def down(self, stage: int, x: Tensor) -> Tensor:
        """The step from the last grid to this stage's; the identity where the stage's blocks do it."""

    @abstractmethod
    def blocks(self, stage: int, x: Tensor) -> Tensor:
        """The stage itself; its output is map `stage`, (I, channels[stage], H / strides[stage], W / strides[stage])."""

    def keep(self, stages: int) -> None:
        """Leave out what comes after the first so many stages."""
        raise UserError(f"{type(self).__name__} cannot be cut after {stages} stages: leave vision.stages out")

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = self.stem(x)
        for stage in range(len(self.channels)):
            x = self.blocks(stage, self.down(stage, x))
            maps.append(x)
        return maps


class TextEncoder(Encoder, ABC):
    """Sentences as word states. `tokenize` runs on the CPU; a pad token never changes a valid state."""

    width: int
    length: int
    fixed_length: bool

    @abstractmethod
    def tokenize(self, texts: list[str]) -> Tokens:
        """Always `length` tokens wide when `fixed_length` is set, otherwise as wide as the longest sentence."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Words: ...
