"""The data structures that are passed between data, model and metrics.

Letters used in every shape comment of the package:

    I images   N sentences (N >= I)   L tokens   C channels
    H x W the network's frame   h x w a coarser grid over it   H0 x W0 the original image
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from riszoo.errors import UserError

GeometryKind = Literal["squeeze", "letterbox", "pad"]
Span = tuple[str, int, int]
"""A word of the sentence and the half-open range of its tokens."""
TokenRow = tuple[list[int], list[Span]]
"""The token ids of one sentence, without padding, and its words."""


class Movable:
    """Base of dataclasses whose tensors, nested ones included, move to a device together."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """A copy with `Tensor.to` applied to every tensor."""
        return self._apply(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        """A copy with every tensor in pinned memory."""
        return self._apply(lambda tensor: tensor.pin_memory())

    def _apply(self, function: Callable[[Tensor], Tensor]) -> Self:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return type(self)(**{f.name: apply_to_tensors(getattr(self, f.name), function) for f in fields})


def apply_to_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with the function applied to the tensors in it: in dictionaries, lists and Movable dataclasses."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Movable):
        return value._apply(function)
    if isinstance(value, dict):
        return {key: apply_to_tensors(item, function) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], Tensor | Movable):
        return [apply_to_tensors(item, function) for item in value]
    return value


@dataclass(frozen=True)
class Geometry:
    """How an image is fitted into the network's frame, as an affine map that can be inverted.

    A point (y, x) of the image, in pixel-edge coordinates (the first pixel spans 0..1), is mapped to
    `scale * point + offset` in the frame. `scale` is computed after rounding, so that the image covers the integer box
    `valid` exactly.
    """

    kind: GeometryKind
    original: tuple[int, int]
    frame: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[int, int]

    @classmethod
    def fit(cls, kind: GeometryKind, original: tuple[int, int], frame: tuple[int, int]) -> Geometry:
        """squeeze: scales each side. letterbox: keeps the aspect ratio, centred. pad: keeps it, top left, as SAM."""
        (h0, w0), (h, w) = original, frame
        if min(h0, w0, h, w) < 1:
            raise ValueError(f"an image of {w0} x {h0} pixels does not fit a frame of {w} x {h}")
        inside = frame
        if kind != "squeeze":
            ratio = min(h / h0, w / w0)
            whole = _half_up if kind == "pad" else round
            inside = (min(h, max(1, whole(h0 * ratio))), min(w, max(1, whole(w0 * ratio))))
        offset = ((h - inside[0]) // 2, (w - inside[1]) // 2) if kind == "letterbox" else (0, 0)
        return cls(kind, original, frame, (inside[0] / h0, inside[1] / w0), offset)

    @property
    def inside(self) -> tuple[int, int]:
        """Height and width of the image's box in the frame."""
        return round(self.original[0] * self.scale[0]), round(self.original[1] * self.scale[1])

    @property
    def valid(self) -> tuple[int, int, int, int]:
        """The image's box in the frame: top, left, bottom, right (half-open)."""
        (top, left), (height, width) = self.offset, self.inside
        return top, left, top + height, left + width


def _half_up(length: float) -> int:
    return math.floor(length + 0.5)


@dataclass(frozen=True)
class View:
    """A further input that a model makes of each original image beside the frame: squeezed to `size`, in float.

    Bicubic values may leave the range of the pixels a little.
    """

    size: tuple[int, int]
    kernel: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True


@dataclass(frozen=True)
class Sample:
    """One sentence about one image. `index` is its position in the split, the same on every process."""

    sentence_id: str
    index: int
    dataset: str
    split: str
    image_id: str
    target_id: str
    text: str
    tags: tuple[str, ...] = ()
    no_target: bool = False


@dataclass
class Tokens(Movable):
    """Sentences as token ids. `mask` is true for real tokens; every sentence has at least one."""

    ids: Tensor  # (N, L) int64
    mask: Tensor  # (N, L) bool
    spans: list[list[Span]]

    @classmethod
    def from_rows(cls, rows: list[TokenRow], width: int | None, pad: int) -> Tokens:
        """Rows padded to `width` tokens, or to the longest row."""
        lengths = torch.tensor([len(ids) for ids, _ in rows])
        width = width or int(lengths.max())
        ids = torch.full((len(rows), width), pad, dtype=torch.int64)
        for index, (row, _) in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        mask = torch.arange(width) < lengths[:, None]  # (N, L)
        return cls(ids, mask, [spans for _, spans in rows])

    def resized(self, width: int, pad: int) -> Tokens:
        """The same sentences, `width` tokens wide, with the id `pad` at every pad token."""
        missing = width - self.ids.shape[1]  # a negative number cuts
        ids, mask = F.pad(self.ids, (0, missing)), F.pad(self.mask, (0, missing))
        return Tokens(ids.masked_fill(~mask, pad), mask, self.spans)


@dataclass
class Words(Movable):
    """Sentences as word states.

    global_index  position of [CLS] or the end-of-text token, where one exists
    sentence      one vector for each sentence, where the encoder has learned one
    """

    states: Tensor  # (N, L, C)
    mask: Tensor  # (N, L) bool
    global_index: Tensor | None  # (N,) int64
    spans: list[list[Span]]
    sentence: Tensor | None = None  # (N, E)

    @classmethod
    def from_states(
        cls, states: Tensor, tokens: Tokens, global_index: Tensor | None, sentence: Tensor | None = None
    ) -> Words:
        """The states of `tokens`, zero at pad tokens."""
        states = states.masked_fill(~tokens.mask[..., None], 0)
        return cls(states, tokens.mask, global_index, tokens.spans, sentence)

    def state(self) -> Tensor:
        """(N, C): the state of the global token, or the mean of the words where there is none."""
        if self.global_index is None:
            return (self.states * self.mask[..., None]).sum(1) / self.mask.sum(1, keepdim=True)
        return self.states.gather(1, self.global_index[:, None, None].expand(-1, 1, self.states.shape[-1]))[:, 0]

    def with_states(self, states: Tensor) -> Words:
        """The same words with other states, zero at pad tokens."""
        states = states.masked_fill(~self.mask[..., None], 0)
        return replace(self, states=states)


@dataclass
class Features(Movable):
    """Images as maps from fine to coarse, independent of any sentence, and their boxes in the frame.

    `views` are the batch's; a model's `enrich` or `decode` reads them.
    """

    maps: list[Tensor]  # each (I, C, h, w)
    valid: Tensor  # (I, 4) int64: top, left, bottom, right in the frame
    size: tuple[int, int]  # the frame, H and W
    views: list[Tensor] = field(default_factory=list)  # each (I, 3, h, w)

    def cells(self, level: int = -1) -> Tensor:
        """(I, h, w) bool: the cells of one map whose centre is on the image, at least one for each image."""
        return valid_cells(self.valid, self.size, (self.maps[level].shape[-2], self.maps[level].shape[-1]))

    def per_sentence(self, image_index: Tensor) -> Features:
        """The same features, repeated for each sentence."""
        maps, views = ([one[image_index] for one in each] for each in (self.maps, self.views))
        return Features(maps, self.valid[image_index], self.size, views)


@dataclass
class Output(Movable):
    """A model's output: mask logits, maps that explain them, and no-target logits where the model has such a head.

    An evidence map is (N, 1, h, w) for the whole sentence or (N, L, h, w) for each token.
    """

    logits: Tensor  # (N, 1, h, w), covering the whole frame
    evidence: dict[str, Tensor] = field(default_factory=dict)
    no_target: Tensor | None = None  # (N,) logit > 0: the sentence has no target in the image
    aux: dict[str, Tensor] = field(default_factory=dict)  # read by the model's own loss only

    def check_finite(self, batch: Batch) -> None:
        """Raise UserError that names the first sentence whose logits are NaN or infinite."""
        logits = (
            self.logits.flatten(1)
            if self.no_target is None
            else torch.cat([self.logits.flatten(1), self.no_target[:, None]], 1)
        )
        broken = (~logits.isfinite().all(1)).nonzero().flatten().tolist()
        if broken:
            sample = batch.samples[broken[0]]
            raise UserError(
                f"the model's output is NaN or infinite for {len(broken)} of {len(batch)} sentences, such as "
                f"'{sample.text:.80}' (id {sample.sentence_id:.80}): try --trainer.precision 32 or another checkpoint"
            )


@dataclass
class Batch(Movable):
    """I images and the N sentences that refer to them."""

    images: Tensor  # (I, 3, H, W) uint8, RGB; (0, 3, H, W) where `raw` is used instead
    valid: Tensor  # (I, 4) int64
    image_ids: list[str]
    geometry: list[Geometry]
    texts: list[str]
    image_index: Tensor  # (N,) int64: the image of each sentence
    samples: list[Sample]
    no_target: Tensor  # (N,) bool
    masks: Tensor | None = None  # (N, H, W) bool: the union at network size
    ground_truths: dict[str, list[Tensor]] = field(default_factory=dict)  # variant -> a bool mask for each target
    target_index: Tensor | None = None  # (N,) int64 into each list of `ground_truths`
    tokens: Tokens | None = None  # set by the model, on the CPU
    raw: Features | None = None  # cached backbone features, from an earlier run
    views: list[Tensor] = field(default_factory=list)  # each (I, 3, h, w) float, 0..255: those the model declares

    def __len__(self) -> int:
        return len(self.texts)


def valid_cells(valid: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """(I, h, w) bool: cells of a grid over the frame whose centre is inside the image's box.

    An image too thin to cover any centre keeps the row or column nearest to its middle.
    """
    top, left, bottom, right = valid.unbind(-1)
    rows = _covered(top, bottom, size[0], grid[0])
    cols = _covered(left, right, size[1], grid[1])
    return rows[:, :, None] & cols[:, None, :]


def _covered(low: Tensor, high: Tensor, length: int, cells: int) -> Tensor:
    """(I, cells) bool: the cells of one axis, `length` pixels long, whose centre is in low..high."""
    step = length / cells
    centre = (torch.arange(cells, device=low.device) + 0.5) * step  # (cells,)
    inside = (centre >= low[:, None]) & (centre < high[:, None])
    middle = ((low + high) / 2 / step).long().clamp(0, cells - 1)
    nearest = torch.arange(cells, device=low.device) == middle[:, None]
    return inside | (nearest & ~inside.any(-1, keepdim=True))
