"""CRIS, "CLIP-Driven Referring Image Segmentation" (Wang et al., CVPR 2022).

CLIP's two encoders are carried over to pixels: a neck multiplies the sentence into the coarsest map and fuses three
maps, a decoder lets the pixels read the words, and a head convolves them with a kernel made from the sentence. Section
numbers are those of docs/models/cris.md, which says of each choice whether it is the paper's, its code's or assumed.

    I images   N sentences   L tokens   C channels   E width of the sentence vector   h x w a grid over the frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.errors import UserError
from riszoo.losses import bce, dice, shrink_mask
from riszoo.model import RISModule
from riszoo.models.cris.clip_weights import load_pooling
from riszoo.models.cris.decoder import Decoder, DynamicHead, PixelWordDecoder, PlainHead
from riszoo.models.cris.neck import FusionNeck, Neck, SpatialAttentionPool


@dataclass
class Segment:
    """Section 6: the mask's loss. A cell's target is the mask at one of its pixels, or the share of its pixels."""

    loss: Literal["bce", "bce+dice"] = "bce"
    target: Literal["pixel", "share"] = "pixel"


class CRIS(RISModule):
    """Text-to-pixel contrast on CLIP's features.

    Args:
        neck, decoder, segment: sections 3, 4 and 6
        head: `dynamic`, a convolution made from the sentence, or `plain`, one for all sentences
        sentence_width: of the sentence vector, for a text encoder without one; default: its own width
    """

    published: ClassVar[str] = "cris035"
    reads_sentence: ClassVar[bool] = True

    def __init__(
        self,
        *,
        neck: Neck = Neck(),  # noqa: B008 - read only, and its fields become options
        decoder: Decoder = Decoder(),  # noqa: B008
        segment: Segment = Segment(),  # noqa: B008
        head: Literal["dynamic", "plain"] = "dynamic",
        sentence_width: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        neck.check(self.size)
        self.strides, self.segment = neck.strides, segment
        if self.text.sentence_width and sentence_width:
            raise UserError("sentence_width is that of the text encoder, which has a sentence vector: leave it out")
        sentence = self.text.sentence_width or sentence_width or self.text.width  # E
        channels = [self.channels_at(stride) for stride in neck.strides]
        width = neck.widths[1]
        self.project_sentence = projection(self.text.width, sentence, self.text.sentence_width is not None)
        reads_words = decoder.words and decoder.layers > 0
        self.project_words = projection(self.text.width, width, self.text.width == width or not reads_words)
        self.pool = SpatialAttentionPool(channels[-1], sentence, neck)
        self.neck = FusionNeck([*channels[:-1], sentence], sentence, neck.widths)
        self.decoder = PixelWordDecoder(width, decoder)
        self.head = DynamicHead(width, sentence) if head == "dynamic" else PlainHead(width)
        if self.vision.weight_file is not None:
            load_pooling(self.pool, self.vision.weight_file)

    def learning_rate_group(self, name: str) -> str:
        """The pooling trains as CLIP, of which it is a part; the published code leaves out both position tables."""
        if name.endswith(("pool.pos_embed", "position_embedding.weight")):
            return "new"
        return "vision" if name.startswith("pool.") else super().learning_rate_group(name)

    # -- from images and sentences to logits ----------------------------------------------------------------------

    def enrich(self, raw: Features) -> Features:
        """Attention pooling and the neck's projections: all that comes before the sentence."""
        maps = [self.map_at(raw.maps, stride) for stride in self.strides]
        maps[-1] = self.pool(maps[-1])
        return Features(self.neck.project(maps), raw.valid, raw.size)

    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        sentence = self.sentence_vector(words)  # (N, E)
        fused = self.neck(features.per_sentence(image_index).maps, sentence)  # (N, C, h, w)
        decoded, evidence = self.decoder(fused, self.project_words(words.states), words)
        return Output(self.head(decoded, sentence), evidence)

    def sentence_vector(self, words: Words) -> Tensor:
        """The encoder's own vector, or a projection of its global token, or of the mean word where it has none."""
        if words.sentence is not None:
            return words.sentence
        projected: Tensor = self.project_sentence(words.state())
        return projected

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 6, on the logits' grid."""
        assert batch.masks is not None
        logits = output.logits[:, 0]
        grid = (logits.shape[1], logits.shape[2])
        if self.segment.target == "share":
            target = shrink_mask(batch.masks, grid)
        else:
            target = F.interpolate(batch.masks[:, None].to(logits.dtype), grid)[:, 0]
        terms = {"mask": bce(logits, target)}
        return terms | {"dice": dice(logits, target)} if self.segment.loss == "bce+dice" else terms


def projection(inside: int, outside: int, unused: bool) -> nn.Module:
    """A linear layer without bias, or the identity."""
    return nn.Identity() if unused else nn.Linear(inside, outside, bias=False)
