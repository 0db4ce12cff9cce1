"""EVF-SAM, "Early Vision-Language Fusion for Text-Prompted Segment Anything Model" (Zhang et al., arXiv 2406.20076).

BEiT-3 reads a small square copy of the image together with the sentence, each position attending to all others from the
first layer on. One of its output vectors is the prompt of SAM's mask decoder, in the place of a point. Section numbers
are those of docs/models/evfsam.md, which says of each choice whether it is the paper's, its code's or assumed.

    I images   N sentences   L tokens   P patches of the square   s its side   C BEiT-3's channels
    d the decoder's channels   T prompts of a sentence   h x w the grid of the image's features   H x W the frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, View, Words, valid_cells
from riszoo.encoders.beit3.text import TokenTable
from riszoo.encoders.beit3.transformer import Beit3, Beit3Options, Encoded
from riszoo.encoders.beit3.weights import load_beit3
from riszoo.encoders.sam import SamEncoder
from riszoo.encoders.sam_decoder import CellPositions, PromptMaskDecoder, load_decoder, load_positions
from riszoo.errors import UserError
from riszoo.layers import TextToPixel, mean_valid, to_tokens
from riszoo.losses import Align, alignment, dice, mean_within
from riszoo.model import RISModule

Prompt = Literal["cls", "eos", "mean", "words"]


@dataclass
class Decoder:
    """Section 5, SAM's mask decoder.

    weights  `sam`: starts from the decoder in the weight file of a SAM vision encoder, if it has one
    frozen   the decoder and the embedding of the empty mask prompt are not trained
    start    added to every logit, so that a decoder trained from scratch starts with small masks
    """

    depth: int = 2
    heads: int = 8
    hidden: int = 2048
    iou_hidden: int = 256
    weights: Literal["sam", "none"] = "sam"
    frozen: bool = False
    start: float = 0.0


@dataclass
class Objective:
    """Section 6: the weights of the two loss terms."""

    bce: float = 1.0
    dice: float = 1.0


class EVFSAM(RISModule):
    """A vision-language transformer's output as the prompt of SAM's mask decoder.

    Args:
        width: d, the channels of the image's features, of the prompt and of the decoder
        stride: of the grid on which the maps of an encoder other than SAM's are summed
        beit: section 4, BEiT-3's sizes and the layers that fuse
        prompt: section 5: the image's [CLS], the sentence's end token, the mean of its words, or each token of it
        decoder, objective, align: sections 5 and 6
        gain: the initial weights of the prompt's projection have a deviation of gain / sqrt(inputs); default PyTorch's
    """

    published: ClassVar[str] = "evfsam"

    def __init__(
        self,
        *,
        width: int = 256,
        stride: int = 16,
        beit: Beit3Options = Beit3Options(),  # noqa: B008 - read only, and its fields become options
        prompt: Prompt = "cls",
        decoder: Decoder = Decoder(),  # noqa: B008
        objective: Objective = Objective(),  # noqa: B008
        align: Align = Align(),  # noqa: B008
        gain: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check(width, beit, decoder, self.text.length, gain)
        self.stride, self.prompt, self.start, self.objective = stride, prompt, decoder.start, objective
        self.align = align
        self.views = (View((beit.side, beit.side), "bicubic", antialias=False),)
        channels = self.vision.channels
        self.visual = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels if channels != [width])
        self.words = nn.Identity() if self.text.width == beit.width else nn.Linear(self.text.width, beit.width)
        self.beit3 = Beit3(beit)
        self.unfused = prompt == "cls" and beit.fused == 0
        inputs = 2 * beit.width if self.unfused else beit.width
        self.project = nn.Sequential(nn.Linear(inputs, beit.width), nn.ReLU(), nn.Linear(beit.width, width))
        if gain is not None:
            self._spread_projection(gain)
        self.positions = CellPositions(width)
        self.alignment = TextToPixel(width, align.start) if align.weight else None
        self.decoder = PromptMaskDecoder(width, decoder.depth, decoder.heads, decoder.hidden, decoder.iou_hidden)
        self._load_weights(decoder)
        self._freeze_unused(decoder)

    def _spread_projection(self, gain: float) -> None:
        """Initial weights under which a prompt from scratch is as large as the decoder's own tokens."""
        for layer in (self.project[0], self.project[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=gain * layer.in_features**-0.5)

    def _load_weights(self, decoder: Decoder) -> None:
        """Start from the files that the two encoders were loaded from."""
        if isinstance(self.text, TokenTable) and self.text.weight_file:
            load_beit3(self.beit3, self.text.weight_file)
        if decoder.weights == "sam" and isinstance(self.vision, SamEncoder) and self.vision.weight_file:
            load_decoder(self.decoder, self.vision.weight_file)
            load_positions(self.positions, self.vision.weight_file)

    def _freeze_unused(self, decoder: Decoder) -> None:
        """Exclude from training what the mask does not depend on: published checkpoints contain it."""
        if not self.unfused:
            self.beit3.freeze_unread("image" if self.prompt == "cls" else "text")
        self.decoder.freeze_unused()
        if decoder.frozen:
            self.decoder.requires_grad_(False)

    # -- from images and sentences to logits ----------------------------------------------------------------------

    def enrich(self, raw: Features) -> Features:
        """The image's features (I, d, h, w), and the patches of the square (I, C, s / patch, s / patch)."""
        (square,) = raw.views
        patches = self.beit3.embed_image(square.to(self.pixel_mean.dtype) / 127.5 - 1)
        return Features([self.merged(raw.maps), patches], raw.valid, raw.size)

    def merged(self, maps: list[Tensor]) -> Tensor:
        """SAM's one map as it is; of another encoder the sum of all maps (I, C_i, h_i, w_i), projected and resized."""
        if not self.visual:
            return maps[0]
        grid = self.grid_at(self.stride)
        projected = [project(each) for project, each in zip(self.visual, maps, strict=True)]
        return torch.stack([F.interpolate(each, grid, mode="bilinear") for each in projected]).sum(0)

    def decode(self, images: Features, image_index: Tensor, words: Words) -> Output:
        visual = images.per_sentence(image_index)
        cells, patches = visual.maps
        tokens = self.read_tokens(words.mask)
        encoded = self.beit3(patches, self.words(words.states), words.mask, tokens)
        read, mask = self.read(encoded, words.mask, tokens)
        prompts = self.project(read)  # (N, T, d)
        grid = (cells.shape[-2], cells.shape[-1])
        code = self.positions(*grid).to(cells.dtype)  # (h w, d)
        logits, _ = self.decoder(cells, code, prompts, mask)  # (N, 1, 4 h, 4 w)
        attention = encoded.attention[:, 1 : encoded.image.shape[1]].unflatten(1, patches.shape[-2:])[:, None]
        output = Output(logits + self.start, {"attention": in_frame(attention, visual, grid)})
        if self.alignment is not None:
            similarity = self.alignment(to_tokens(cells) + code, mean_valid(prompts, mask))
            output.aux["align"] = similarity.unflatten(1, grid)  # (N, h, w)
        return output

    def read_tokens(self, mask: Tensor) -> Tensor | None:
        """Which of the sentence's tokens (N, L) become prompts; None where the image's [CLS] does."""
        if self.prompt == "cls":
            return None
        return F.one_hot(mask.sum(1) - 1, mask.shape[1]).bool() if self.prompt == "eos" else mask

    def read(self, encoded: Encoded, mask: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """The vectors (N, T, C) that become prompts, and which of them are valid (N, T)."""
        if self.prompt == "words":
            return encoded.text, mask
        if tokens is not None:
            vector = mean_valid(encoded.text, tokens)
        elif self.unfused:
            vector = torch.cat([encoded.image[:, 0], encoded.text[:, 0]], -1)
        else:
            vector = encoded.image[:, 0]
        return vector[:, None], mask.new_ones(mask.shape[0], 1)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Section 6, at the frame's size, in full precision and without the padding."""
        assert batch.masks is not None
        exact = torch.promote_types(output.logits.dtype, torch.float32)
        logits = F.interpolate(output.logits.to(exact), self.size, mode="bilinear")[:, 0]
        inside = valid_cells(batch.valid, self.size, self.size)[batch.image_index]  # (N, H, W)
        terms = mask_terms(self.objective, logits, batch.masks, inside)
        if self.alignment is not None:
            terms["align"] = self.align.weight * alignment(output.aux["align"].to(exact), batch, self.size)
        return terms


def mask_terms(objective: Objective, logits: Tensor, masks: Tensor, inside: Tensor) -> dict[str, Tensor]:
    """Both terms of each sentence over the pixels where `inside` is true: (N, H, W) three times -> (N,) each."""
    target = (masks & inside).to(logits.dtype)
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    overlap = dice(logits.masked_fill(~inside, -100.0), target, smooth=1e-3)
    return {"mask": objective.bce * mean_within(cross, inside), "dice": objective.dice * overlap}


def in_frame(maps: Tensor, images: Features, grid: tuple[int, int]) -> Tensor:
    """Maps over the whole images (N, 1, h', w') as maps over the frame, where the images fill a box: (N, 1, h, w)."""
    top, left, bottom, right = images.valid.to(maps.dtype)[:, :, None].unbind(1)  # (N, 1) each
    (height, width), (h, w) = images.size, grid
    y = (torch.arange(h, device=maps.device) + 0.5) * (height / h)  # (h,) centres of the cells, in the frame's pixels
    x = (torch.arange(w, device=maps.device) + 0.5) * (width / w)
    y, x = 2 * (y - top) / (bottom - top) - 1, 2 * (x - left) / (right - left) - 1  # (N, h), (N, w)
    points = torch.stack([x[:, None].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)], -1)  # (N, h, w, 2)
    return F.grid_sample(maps, points.to(maps.dtype), padding_mode="border", align_corners=False)


def check(width: int, beit: Beit3Options, decoder: Decoder, length: int, gain: float | None) -> None:
    """Raise a UserError for options that cannot be combined, or values that no network can have."""
    if gain is not None and gain <= 0:
        raise UserError(f"gain {gain} must be above 0")
    if width % 8 or (width // 2) % decoder.heads:
        raise UserError(f"width {width} must be a multiple of 8, and of twice decoder.heads ({decoder.heads})")
    if length > beit.text_positions - 2:
        raise UserError(
            f"text.length {length} needs {length + 2} positions, beit.text_positions is {beit.text_positions}: lower it"
        )
