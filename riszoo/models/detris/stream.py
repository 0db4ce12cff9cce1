"""A vision encoder as steps, after whose first half a model adds language: a ViT's blocks, or the stages of any other.

N images or sentences   p special tokens   h x w the grid   C channels
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from riszoo.encoders.base import VisionEncoder
from riszoo.encoders.vision import ViTEncoder
from riszoo.layers import to_grid, to_tokens

Update = Callable[[Tensor], Tensor]


@dataclass
class Stream:
    """What travels from step to step: special tokens, then the cells of a grid, row by row."""

    tokens: Tensor  # (N, p + hw, C)
    grid: tuple[int, int]


class Steps(ABC):
    """The steps of an encoder. The encoder is not a part of this object, which has no weights.

    channels  of the stream at each step
    special   p
    """

    channels: list[int]
    special: int = 0

    @abstractmethod
    def start(self, images: Tensor) -> Stream:
        """(N, 3, H, W) -> the stream before the first step."""

    @abstractmethod
    def attend(self, step: int, stream: Stream) -> Stream:
        """The part of a step before language can enter."""

    @abstractmethod
    def finish(self, step: int, stream: Stream, update: Update | None) -> Stream:
        """The rest of a step; the result of `update` is added inside."""

    @abstractmethod
    def tap(self, step: int, stream: Stream) -> Tensor:
        """The map (N, C, h, w) after a step."""

    def pack(self, stream: Stream) -> list[Tensor]:
        """The stream as maps: the special tokens, if there are any, as (N, C, p, 1), and the cells as (N, C, h, w)."""
        special, cells = stream.tokens[:, : self.special], stream.tokens[:, self.special :]
        maps = [to_grid(cells, stream.grid)]
        return [special.mT[..., None], *maps] if self.special else maps

    def unpack(self, maps: list[Tensor]) -> Stream:
        tokens = torch.cat([to_tokens(one) for one in maps], 1)
        return Stream(tokens, (maps[-1].shape[-2], maps[-1].shape[-1]))


class BlockSteps(Steps):
    """The blocks of a ViT: an update is added to the MLP's result, from the same normalised tokens."""

    def __init__(self, vision: ViTEncoder) -> None:
        self.vision = vision
        self.channels = vision.channels * len(vision.vit.blocks)
        self.special = vision.vit.num_prefix_tokens

    def start(self, images: Tensor) -> Stream:
        cells = self.vision.stem(images)  # (N, C, h, w)
        tokens = torch.cat([self.vision.prefix(cells), to_tokens(cells)], 1)
        return Stream(tokens, (cells.shape[-2], cells.shape[-1]))

    def attend(self, step: int, stream: Stream) -> Stream:
        return Stream(self.vision.attend(step, stream.tokens), stream.grid)

    def finish(self, step: int, stream: Stream, update: Update | None) -> Stream:
        return Stream(self.vision.feed_forward(step, stream.tokens, update), stream.grid)

    def tap(self, step: int, stream: Stream) -> Tensor:
        last = step == len(self.channels) - 1
        tokens = self.vision.vit.norm(stream.tokens) if last else stream.tokens
        return to_grid(tokens[:, self.special :], stream.grid)


class StageSteps(Steps):
    """The stages of any encoder: an update is added to a stage's map."""

    def __init__(self, vision: VisionEncoder) -> None:
        self.vision = vision
        self.channels = vision.channels

    def start(self, images: Tensor) -> Stream:
        return self.unpack([self.vision.stem(images)])

    def attend(self, step: int, stream: Stream) -> Stream:
        (x,) = self.pack(stream)
        return self.unpack([self.vision.blocks(step, self.vision.down(step, x))])

    def finish(self, step: int, stream: Stream, update: Update | None) -> Stream:
        return stream if update is None else Stream(stream.tokens + update(stream.tokens), stream.grid)

    def tap(self, step: int, stream: Stream) -> Tensor:
        (x,) = self.pack(stream)
        return x


def steps_of(vision: VisionEncoder) -> Steps:
    return BlockSteps(vision) if isinstance(vision, ViTEncoder) else StageSteps(vision)
