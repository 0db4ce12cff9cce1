"""A reader with perfect masks who skips what makes a sentence referring: what appearance and a guess reach.

It takes the things that the words of the sentence's subject are true of, and guesses among them: one of them or all,
whichever has the greatest expected IoU where each is as likely as the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riszoo.data.generated.logic import Form, subject
from riszoo.data.generated.split import GeneratedSplit

Overlaps = NDArray[np.float64]  # (unions, unions): IoU of one set of things, as bits, with another
SIDE = 96


def guesses(split: GeneratedSplit[Any], images: Iterable[int]) -> dict[str, list[float]]:
    """IoU of the guesses for the sentences of these images, by sentence type."""
    scores: dict[str, list[float]] = defaultdict(list)
    for image in images:
        scene, sentences = split.scene(image)
        table = overlaps(split, scene)
        for sentence in sentences:
            fitting = _fitting(split, scene, sentence.form)
            scores[sentence.sentence_type].append(float(table[_best(fitting, table), sentence.things]))
    return scores


def overlaps(split: GeneratedSplit[Any], scene: Any) -> Overlaps:
    """Visible parts never overlap, so areas tell the IoU of any two unions; two empty ones agree."""
    count = len(scene.things)
    owner = split.rendering(scene, (SIDE, SIDE)).owner
    areas = np.bincount(owner.ravel(), minlength=count + 1)[1:].astype(float)
    sets = np.arange(1 << count)
    total = ((sets[:, None] >> np.arange(count) & 1) * areas).sum(1)  # (unions,)
    both = total[sets[:, None] & sets[None, :]]
    either = total[:, None] + total[None, :] - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def _fitting(split: GeneratedSplit[Any], scene: Any, form: Form) -> list[int]:
    """The things, one bit each, that the words of the subject are true of, as far as the reader knows them."""
    words = {value for value in subject(form).values if split.appearance is None or value in split.appearance}
    return [1 << k for k, thing in enumerate(scene.things) if words <= set(thing.values)]


def _best(fitting: list[int], table: Overlaps) -> int:
    """One of the fitting things or all of them."""
    return max([*fitting, sum(fitting)], key=lambda guess: table[guess, fitting].mean() if fitting else 0)
