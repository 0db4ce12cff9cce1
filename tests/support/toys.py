"""Two small models that are unlike LTS, to hold the contract against: one fuses early, one taps, pads and says nothing.

Each is an ordinary recipe class: `--model tests.support.toys.Early` runs through the real command line.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.losses import bce, dice, shrink_mask
from riszoo.model import RISModule


def sentence_vector(words: Words) -> Tensor:
    return (words.states * words.mask[..., None]).sum(1) / words.mask.sum(1, keepdim=True)


class Early(RISModule):
    """Language enters between encoder stages: the image is language-free up to the first one only."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gates = nn.ModuleList(nn.Linear(self.text.width, c) for c in self.vision.channels[:-1])
        self.head = nn.Conv2d(self.vision.channels[-1], 16, 1)

    def backbone(self, images: Tensor, valid: Tensor) -> Features:
        x = self.vision.stem(self.normalise(images, valid))
        return Features([self.vision.blocks(0, self.vision.down(0, x))], valid, self.size)

    def decode(self, images: Features, image_index: Tensor, words: Words) -> Output:
        x, sentence = images.per_sentence(image_index).maps[0], sentence_vector(words)
        for stage, gate in enumerate(self.gates, 1):
            x = x * (1 + torch.tanh(gate(sentence)))[:, :, None, None]
            x = self.vision.blocks(stage, self.vision.down(stage, x))
        logits = nn.functional.pixel_shuffle(self.head(x), 4)
        return Output(logits, {"salience": logits.detach()})

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.masks is not None
        return {"mask": bce(output.logits[:, 0], shrink_mask(batch.masks, output.logits.shape[-2:]))}


class Taps(RISModule):
    """Two taps of different depth, padded cells masked as keys, evidence for each word, and a no-target head."""

    def __init__(self, *, taps: tuple[int, int] = (1, 2), width: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.taps = taps
        self.lateral = nn.ModuleList(nn.Conv2d(self.vision.channels[t], width, 1) for t in taps)
        self.word, self.query = nn.Linear(self.text.width, width), nn.Parameter(torch.randn(width))
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.nothing = nn.Linear(width, 1)

    def enrich(self, raw: Features) -> Features:
        fine, deep = (conv(raw.maps[tap]) for conv, tap in zip(self.lateral, self.taps, strict=True))
        return Features([fine + nn.functional.interpolate(deep, fine.shape[-2:])], raw.valid, raw.size)

    def decode(self, images: Features, image_index: Tensor, words: Words) -> Output:
        seen = images.per_sentence(image_index)
        grid, cells = seen.maps[0], seen.cells().flatten(1)  # (N, C, h, w), (N, hw)
        tokens = self.word(words.states) + self.query
        found, weight = self.attend(tokens, grid.flatten(2).mT, grid.flatten(2).mT, key_padding_mask=~cells)
        query = (found * words.mask[..., None]).sum(1) / words.mask.sum(1, keepdim=True)  # (N, C)
        logits = torch.einsum("nc,nchw->nhw", query, grid)[:, None]
        return Output(logits, {"regions": weight.unflatten(-1, grid.shape[-2:])}, self.nothing(query)[:, 0])

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.masks is not None
        assert output.no_target is not None
        target = shrink_mask(batch.masks, output.logits.shape[-2:])
        says = nn.functional.binary_cross_entropy_with_logits(
            output.no_target, batch.no_target.to(output.no_target.dtype), reduction="none"
        )
        return {"mask": bce(output.logits[:, 0], target) + dice(output.logits[:, 0], target), "nothing": 0.1 * says}
