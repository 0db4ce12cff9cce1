"""Changes to an image that keep its sentences true. Off by default; the same generator gives the same change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.random import Generator

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.images import resize
from riszoo.data.masks import Bitmap, Mask, shrink
from riszoo.data.record import Pixels, Record, Sentence
from riszoo.errors import UserError

Change = tuple[Pixels, list[Mask], list[str]]

MIRROR = {"left": "right", "lefthand": "righthand", "leftmost": "rightmost", "leftside": "rightside", "lt": "rt"}
MIRROR |= {other: word for word, other in MIRROR.items()}
UNSURE = re.compile(
    r"\b(?:l|r|lhs|rhs|lft|rght|rgt|rigt|rigth|rihgt|clock|east|west|rights|right-handed|left-handed)\b"
    r"|clockwise|(?<![a-z])o['\u2019]? ?clock|\b\d+:\d+\b"
    r"|\b(?:is|are|only|one|was|what's|any|nothing) left\b(?! of)|\ball right\b"
    r"|\bright (?:next|behind|beside|above|below|under|before|after|there|here|now|at|by|near|up|down|over|in)\b",
    re.IGNORECASE,
)
"""Words whose meaning under mirroring is not a swap of words, or that may not refer to a side at all."""

HARMLESS = re.compile(
    r"\A(?:bright|fright|sprightly|upright|outright|forthright|birthright|alright|copyright|(?:un)?righteous|rightful|"
    r"rightly|(?:play|ship|wheel|cart|mill)?wright|cleft|leftover)",
    re.IGNORECASE,
)
"""The beginnings of words that contain `left` or `right` and name no side."""

PLACED = re.compile(
    r"\b(?:(?:left|right|top|bottom|upper|lower|middle|cent(?:er|re)|corner|edge|side|far|near|half|clock)\w*|"
    r"lt|rt|l|r|further|furthest|first|second|third|fourth|last|\d+(?:st|nd|rd|th)|one|two|three|four|both|all)\b",
    re.IGNORECASE,
)
"""Words of location, order and number: they may be wrong for a crop of the image."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Augment:
    """Which changes, and how much.

    flip     share of images mirrored, with their sentences reworded; skipped where a sentence cannot be reworded
    jitter   brightness, contrast and saturation are each scaled by a factor in 1 - jitter .. 1 + jitter
    crop     share of images cropped; targets stay whole; skipped where a sentence names a location
    smallest the least share of the image's area that a crop keeps
    """

    flip: float = 0.0
    jitter: float = 0.0
    crop: float = 0.0
    smallest: float = 0.5

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if not 0 <= share <= 1:
                raise UserError(f"--data.augment.{name} {share:g}: give a number from 0 to 1")

    @property
    def active(self) -> bool:
        return max(self.flip, self.jitter, self.crop) > 0

    def __call__(self, pixels: Pixels, masks: Sequence[Mask], texts: Sequence[str], generator: Generator) -> Change:
        change = (pixels, list(masks), list(texts))
        chances = generator.random(2)
        if chances[0] < self.flip:
            change = flipped(*change) or change
        if chances[1] < self.crop:
            change = cropped(*change, generator, self.smallest) or change
        return (jittered(change[0], self.jitter, generator), *change[1:]) if self.jitter else change


def augmented(record: Record, positions: Sequence[tuple[int, int]], change: Augment, seed: int) -> Record:
    """The record with its image changed, and with it some of its targets and sentences.

    `positions` are the indices of the target and of the sentence within the record.
    """
    sentences = record.sentences()
    indices = sorted({target for target, _ in positions})
    pixels, masks, texts = change(
        record.load(),
        [record.targets[index].segmentation.draw(GroundTruth()) for index in indices],
        [sentences[within][1].text for _, within in positions],
        np.random.default_rng(seed),
    )
    reworded = {within: text for (_, within), text in zip(positions, texts, strict=True)}
    words: list[list[Sentence]] = [[] for _ in record.targets]
    for within, (index, sentence) in enumerate(sentences):
        words[index].append(replace(sentence, text=reworded.get(within, sentence.text)))
    targets = list(record.targets)
    for index, mask in zip(indices, masks, strict=True):
        targets[index] = replace(targets[index], segmentation=Bitmap(mask), sentences=tuple(words[index]))
    return replace(record, targets=tuple(targets), load=lambda: pixels)


def mirrored(text: str) -> str | None:
    """The sentence as it is true of the mirrored image, or None where that is not certain."""
    if UNSURE.search(text) or any(_may_name_a_side(word) for word in re.findall(r"[A-Za-z]+", text)):
        return None
    return re.sub(r"[A-Za-z]+", lambda word: _as(word[0], MIRROR.get(word[0].lower(), word[0])), text)


def _may_name_a_side(word: str) -> bool:
    """Whether a word that is not one of MIRROR contains `left` or `right`, as in "topleft" and "leftish"."""
    word = word.lower()
    return word not in MIRROR and re.search("left|right", HARMLESS.sub("", word)) is not None


def _as(model: str, word: str) -> str:
    """The word in the model's capitals."""
    return word.upper() if model.isupper() else word.capitalize() if model[0].isupper() else word


def flipped(pixels: Pixels, masks: Sequence[Mask], texts: Sequence[str]) -> Change | None:
    """Left and right exchanged in the image, its masks and its sentences; None where a sentence cannot follow."""
    reworded = [mirrored(text) for text in texts]
    if None in reworded:
        return None
    turned = [np.ascontiguousarray(mask[:, ::-1]) for mask in masks]
    return np.ascontiguousarray(pixels[:, ::-1]), turned, [text for text in reworded if text is not None]


def cropped(
    pixels: Pixels, masks: Sequence[Mask], texts: Sequence[str], generator: Generator, smallest: float = 0.5
) -> Change | None:
    """A part of the image around every target, back at the image's size; None where a sentence names a place."""
    if any(PLACED.search(text) for text in texts):
        return None
    size = pixels.shape[0], pixels.shape[1]
    scale = np.sqrt(generator.uniform(smallest, 1.0))
    rows, cols = (
        _window(np.logical_or.reduce([mask.any(axis=1 - axis) for mask in masks]), scale, generator) for axis in (0, 1)
    )
    if (rows.stop - rows.start, cols.stop - cols.start) == size:
        return pixels, list(masks), list(texts)
    part = resize(np.ascontiguousarray(pixels[rows, cols]), size)
    return part, [shrink(mask[rows, cols], size) for mask in masks], list(texts)


def _window(covered: Mask, scale: float, generator: Generator) -> slice:
    """A range along one side, of the scaled length or longer where the targets need it."""
    length = len(covered)
    positions = np.flatnonzero(covered)
    first, last = (int(positions[0]), int(positions[-1]) + 1) if len(positions) else (0, 0)
    window = max(round(length * scale), last - first, 1)
    lowest, highest = (max(0, last - window), min(first, length - window)) if len(positions) else (0, length - window)
    start = int(generator.integers(lowest, highest + 1))
    return slice(start, start + window)


def jittered(pixels: Pixels, amount: float, generator: Generator) -> Pixels:
    """Brightness, contrast and saturation changed a little. Colours keep their hue, so that "red" stays true."""
    bright, contrast, colour = generator.uniform(1 - amount, 1 + amount, 3).astype(np.float32)
    values = pixels.astype(np.float32) * bright
    grey = values @ LUMA  # (H0, W0)
    values = grey[..., None] + colour * (values - grey[..., None])
    values = grey.mean() + contrast * (values - grey.mean())
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)
