"""DETRIS, "Densely Connected Parameter-Efficient Tuning for Referring Image Segmentation" (Huang et al., AAAI 2025).

Two frozen encoders, DINOv2 and CLIP's text transformer, with small trained adapters in some of their blocks
(adapters.py). Those of the image attend to the words, so that language enters early. A neck multiplies the maps of
three depths by the sentence (neck.py); CRIS's decoder and head follow. Section numbers are those of
docs/models/detris.md, which says of each choice whether it is the paper's, its code's or assumed.

    I images   N sentences   L tokens   C channels   D of the decoder   S of the sentence's vector   h x w the grid
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.errors import UserError
from riszoo.losses import bce, dice
from riszoo.model import RISModule
from riszoo.models.cris.decoder import Decoder, DynamicHead, PixelWordDecoder
from riszoo.models.detris.adapters import Adapters, Aligners, DenseAligner, Grid, TextAdapter, TextAdapters
from riszoo.models.detris.neck import Neck
from riszoo.models.detris.stream import BlockSteps, Steps, Update, steps_of


class DETRIS(RISModule):
    """Adapters align two frozen encoders.

    Args:
        adapters: what the adapters of both encoders share
        text_adapters, aligners: sections 3 and 4
        taps: the blocks of a ViT after which the first two maps are taken; the third is that of the last block. Of an
            encoder in stages they are those of the last three stages, resized to the middle one's grid
        width: D
        decoder: section 5
        segment: the mask's loss
    """

    published: ClassVar[str] = "cris035"
    reads_sentence: ClassVar[bool] = True

    def __init__(
        self,
        *,
        adapters: Adapters = Adapters(),  # noqa: B008 - read only, and its fields become options
        text_adapters: TextAdapters = TextAdapters(),  # noqa: B008
        aligners: Aligners = Aligners(),  # noqa: B008
        taps: tuple[int, int] = (4, 8),
        width: int = 512,
        decoder: Decoder = Decoder(hidden=512),  # noqa: B008
        segment: Literal["bce", "bce+dice"] = "bce",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.segment = segment
        steps, words = self.steps, self.text.width
        self.aligned, self.tapped = aligned_steps(steps, aligners), tapped_steps(steps, taps)
        for layer in sorted(set(text_adapters.layers)) if text_adapters.enabled else ():
            self.text.adapt(layer, TextAdapter(words, text_adapters.width, adapters))
        self.aligners = nn.ModuleDict(
            {
                str(step): DenseAligner(steps.channels[step], words, steps.special, aligners, adapters)
                for step in self.aligned
            }
        )
        sentence = self.text.sentence_width or words  # S
        self.neck = Neck([steps.channels[step] for step in self.tapped], sentence, width)
        self.project_words = nn.Identity() if words == width else nn.Linear(words, width, bias=False)
        self.decoder = PixelWordDecoder(width, decoder)
        self.head = DynamicHead(width, sentence)

    @property
    def steps(self) -> Steps:
        return steps_of(self.vision)

    @property
    def first(self) -> int:
        """The first step with an aligner, before which nothing depends on the sentence."""
        return self.aligned[0] if self.aligned else len(self.steps.channels)

    # -- from images and sentences to logits ----------------------------------------------------------------------

    def backbone(self, images: Tensor, valid: Tensor) -> Features:
        """Section 6: the maps taken before the first aligner, and the stream that it reads."""
        steps = self.steps
        maps: list[Tensor] = []
        stream = steps.start(self.normalise(images, valid))
        for step in range(self.first):
            stream = steps.finish(step, steps.attend(step, stream), None)
            maps += [steps.tap(step, stream)] * self.tapped.count(step)
        if self.aligned:
            maps += steps.pack(steps.attend(self.first, stream))
        return Features(maps, valid, self.size)

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        evidence: dict[str, Tensor] = {}
        maps = self.aligned_maps(features.per_sentence(image_index).maps, words, evidence)  # each (N, C, h, w)
        sentence = words.state() if words.sentence is None else words.sentence  # (N, S)
        visual = self.neck(maps, sentence)  # f_q (N, D, h, w)
        visual, attention = self.decoder(visual, self.project_words(words.states), words)  # (N, D, h, w)
        return Output(self.head(visual, sentence), evidence | attention)

    def aligned_maps(self, maps: list[Tensor], words: Words, evidence: dict[str, Tensor]) -> list[Tensor]:
        """The three maps (N, C, h, w) on one grid, from what `backbone` returned of them."""
        steps = self.steps
        before = sum(step < self.first for step in self.tapped)
        taken, rest = maps[:before], maps[before:]
        if self.aligned:
            stream = steps.unpack(rest)
            for step in range(self.first, len(steps.channels)):
                stream = stream if step == self.first else steps.attend(step, stream)
                explained = evidence if step == self.aligned[-1] else None
                stream = steps.finish(step, stream, self.update(step, words, stream.grid, explained))
                taken += [steps.tap(step, stream)] * self.tapped.count(step)
        grid = taken[1].shape[-2:]
        return [one if one.shape[-2:] == grid else F.interpolate(one, grid, mode="bilinear") for one in taken]

    def update(self, step: int, words: Words, grid: Grid, evidence: dict[str, Tensor] | None) -> Update | None:
        """What a step's aligner adds to its tokens; None for a step without an aligner."""
        if step not in self.aligned:
            return None
        valid = None if self.text.raw_pads else words.mask
        return partial(self.aligners[str(step)], words=words.states, valid=valid, grid=grid, evidence=evidence)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 7, on the logits' grid."""
        assert batch.masks is not None
        logits = output.logits[:, 0]
        target = F.interpolate(batch.masks[:, None].to(logits.dtype), logits.shape[-2:])[:, 0]  # nearest
        terms = {"mask": bce(logits, target)}
        return terms | {"dice": dice(logits, target)} if self.segment == "bce+dice" else terms


def aligned_steps(steps: Steps, options: Aligners) -> list[int]:
    """The steps that have an aligner: the given blocks of a ViT, or every stage."""
    if not options.enabled:
        return []
    count = len(steps.channels)
    if not isinstance(steps, BlockSteps):
        return list(range(count))
    if not options.blocks or any(not 0 <= block < count for block in options.blocks):
        raise UserError(f"aligners.blocks {list(options.blocks)} is invalid: the encoder has blocks 0 to {count - 1}")
    return sorted(set(options.blocks))


def tapped_steps(steps: Steps, taps: tuple[int, int]) -> list[int]:
    """The steps after which the three maps are taken, in rising order; one step may give several."""
    last = len(steps.channels) - 1
    if not isinstance(steps, BlockSteps):
        return [max(0, last - 2), max(0, last - 1), last]
    if not 0 <= taps[0] <= taps[1] <= last:
        raise UserError(f"taps {list(taps)} is invalid: give two rising block numbers from 0 to {last}")
    return [*taps, last]
