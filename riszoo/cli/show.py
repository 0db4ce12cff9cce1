"""What is in a split, to look at."""

from __future__ import annotations

import numpy as np
from PIL import Image

from riszoo.data.masks import GroundTruth
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.inference.drawing import contact_sheet, panel


def sheet(split: Split, count: int = 8, start: int = 0, seed: int | None = None, columns: int = 2) -> Image.Image:
    """Sentences with their image and the outline of what they name.

    Without a seed they are `count` sentences in the split's order from `start` on; with one, drawn from all.
    """
    total = len(split.sentence_target)
    if count < 1 or not 0 <= start < total:
        raise UserError(
            f"{split.dataset} {split.name} has {total} sentences: ask for at least one, starting from 0 to {total - 1}."
        )
    places = range(start, min(start + count, total))
    if seed is not None:
        drawn = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
        places = sorted(int(place) for place in drawn)  # type: ignore[assignment]
    return contact_sheet([_sentence(split, place) for place in places], columns)


def _sentence(split: Split, place: int) -> Image.Image:
    """One sentence's panel, by its place in the split."""
    image = int(split.sentence_image[place])
    record = split[image]
    first = int(np.searchsorted(split.sentence_image, image))
    target, sentence = record.sentences()[place - first]
    mask = record.targets[target].segmentation.draw(GroundTruth())
    return panel(record.load(), f"{place}: {sentence.text}", ground_truth=mask)
