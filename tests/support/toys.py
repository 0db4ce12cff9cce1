"""Small models for the contract tests: early fusion, a view beside the frame, two taps with a no-target head.

Each is an ordinary model class: `--model tests.support.toys.Early` works on the command line.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, View, Words
from riszoo.layers import to_tokens
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

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        x, sentence = features.per_sentence(image_index).maps[0], sentence_vector(words)
        for stage, gate in enumerate(self.gates, 1):
            x = x * (1 + torch.tanh(gate(sentence)))[:, :, None, None]
            x = self.vision.blocks(stage, self.vision.down(stage, x))
        logits = nn.functional.pixel_shuffle(self.head(x), 4)
        return Output(logits, {"salience": logits.detach()})

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.masks is not None
        return {"mask": bce(output.logits[:, 0], shrink_mask(batch.masks, output.logits.shape[-2:]))}


class Views(Early):
    """Early, with a small second view of the image as a part of its sentence vector."""

    views = (View((24, 32), "bicubic", antialias=False),)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.view = nn.Conv2d(3, self.text.width, 8, stride=8)

    def enrich(self, raw: Features) -> Features:
        (view,) = raw.views
        patches = self.view(view.to(self.pixel_mean.dtype) / 255)
        return Features([*raw.maps, patches.mean((-2, -1), keepdim=True)], raw.valid, raw.size)

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        image = features.maps[1][image_index].flatten(1)[:, None]  # (N, 1, C)
        return super().decode(features, image_index, words.with_states(words.states + image))


class Taps(RISModule):
    """Two taps of different depth, padded cells masked as keys, evidence for each word, and a no-target head."""

    def __init__(self, *, taps: tuple[int, int] = (1, 2), width: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.taps = taps
        self.lateral = nn.ModuleList(nn.Conv2d(self.vision.channels[t], width, 1) for t in taps)
        self.word, self.query = nn.Linear(self.text.width, width), nn.Parameter(torch.randn(width))
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.no_target = nn.Linear(width, 1)

    def enrich(self, raw: Features) -> Features:
        fine, deep = (conv(raw.maps[tap]) for conv, tap in zip(self.lateral, self.taps, strict=True))
        return Features([fine + nn.functional.interpolate(deep, fine.shape[-2:])], raw.valid, raw.size)

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        visual = features.per_sentence(image_index)
        grid, cells = visual.maps[0], visual.cells().flatten(1)  # (N, C, h, w), (N, hw)
        pixels, tokens = to_tokens(grid), self.word(words.states) + self.query  # (N, hw, C), (N, L, C)
        attended, weights = self.attend(tokens, pixels, pixels, key_padding_mask=~cells)
        query = (attended * words.mask[..., None]).sum(1) / words.mask.sum(1, keepdim=True)  # (N, C)
        logits = torch.einsum("nc,nchw->nhw", query, grid)[:, None]
        return Output(logits, {"regions": weights.unflatten(-1, grid.shape[-2:])}, self.no_target(query)[:, 0])

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.masks is not None
        assert output.no_target is not None
        target = shrink_mask(batch.masks, output.logits.shape[-2:])
        no_target = nn.functional.binary_cross_entropy_with_logits(
            output.no_target, batch.no_target.to(output.no_target.dtype), reduction="none"
        )
        mask = bce(output.logits[:, 0], target) + dice(output.logits[:, 0], target)
        return {"mask": mask, "no_target": 0.1 * no_target}
