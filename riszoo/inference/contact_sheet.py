"""Contact sheets of a split: images, sentences and outlines of their targets."""

from __future__ import annotations

import numpy as np
from PIL import Image

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.inference.drawing import contact_sheet, panel


def sheet(split: Split, count: int = 8, start: int = 0, seed: int | None = None, columns: int = 2) -> Image.Image:
    """Sentences with their image and the outline of their target.

    Without a seed, `count` sentences in the split's order from `start` on; with one, a random choice of all.
    """
    total = len(split.sentence_target)
    if count < 1 or not 0 <= start < total:
        raise UserError(f"{split.dataset} {split.name} has {total} sentences: give --start 0 to {total - 1}.")
    indices = list(range(start, min(start + count, total)))
    if seed is not None:
        indices = sorted(np.random.default_rng(seed).choice(total, min(count, total), replace=False).tolist())
    return contact_sheet([_sentence_panel(split, index) for index in indices], columns)


def _sentence_panel(split: Split, index: int) -> Image.Image:
    image = int(split.sentence_image[index])
    record = split[image]
    first = int(np.searchsorted(split.sentence_image, image))
    target, sentence = record.sentences()[index - first]
    mask = record.targets[target].segmentation.draw(GroundTruth())
    return panel(record.load(), f"{index}: {sentence.text}", ground_truth=mask)
