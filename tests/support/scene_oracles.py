"""Readers with perfect masks that skip what makes a sentence referring: how well do they do on generated data sets?

    python -m tests.support.scene_oracles [images]

blind          sees the image, not the sentence: of all unions of things, the one of the greatest expected IoU over
               the sentences that may be asked about the image (so many are drawn to know them)
colour+shape   (scenes) reads only the colour and shape words of what the sentence is about, and takes the thing having
               them, or the union of such things, that is best when each is as likely as the other
noun           (collage) the same with the noun or the kind of what the sentence is about
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from riszoo.data.collage import PLANS as COLLAGE_PLANS
from riszoo.data.collage import CollageSplit
from riszoo.data.generated.logic import Both, Form, Kind
from riszoo.data.generated.rng import RandomStream
from riszoo.data.generated.split import GeneratedSplit
from riszoo.data.scenes import PLANS, ScenesSplit
from riszoo.data.scenes.layout import Scene
from tests.support.scene_reader import head_words

POSSIBLE = 240
Table = np.ndarray  # (unions, unions): IoU of one set of things, as bits, with another


def overlaps(split: GeneratedSplit[Any], scene: Any) -> Table:
    """Visible parts never overlap, so areas tell the IoU of any two unions; two empty ones agree."""
    count = len(scene.things)
    owner = split.rendering(scene, (96, 96)).owner
    areas = np.bincount(owner.ravel(), minlength=count + 1)[1:].astype(float)
    sets = np.arange(1 << count)
    total = ((sets[:, None] >> np.arange(count) & 1) * areas).sum(1)  # (unions,)
    both = total[sets[:, None] & sets[None, :]]
    either = total[:, None] + total[None, :] - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def blind(split: GeneratedSplit[Any], images: Iterable[int], possible: int = POSSIBLE) -> float:
    """mIoU of the best prediction without the sentence."""
    scores = []
    for image in images:
        scene, _ = split.scene(image)
        scores.append(overlaps(split, scene)[:, _possible(split, scene, image, possible)].mean(1).max())
    return statistics.mean(scores)


def _possible(split: GeneratedSplit[Any], scene: Any, image: int, possible: int) -> list[int]:
    """What sentences about the image name, in the shares in which they are asked."""
    rng = RandomStream(f"possible {image}")
    named: list[int] = []
    while len(named) < possible:
        sentences = split.sampler(scene, rng).sample(split.plan.sentences, split.plan.mix) or []
        named += [sentence.things for sentence in sentences]
    return named


def noun_only(split: CollageSplit, images: Iterable[int]) -> dict[str, list[float]]:
    """IoU of the best predictions from the noun or the kind of what the sentence is about, by sentence type."""
    scores: dict[str, list[float]] = defaultdict(list)
    for image in images:
        scene, sentences = split.scene(image)
        table = overlaps(split, scene)
        for sentence in sentences:
            words = set(_head(sentence.form).values)
            fitting = [1 << k for k, thing in enumerate(scene.things) if words <= set(thing.values)]
            scores[sentence.sentence_type].append(float(table[_best(fitting, table), sentence.things]))
    return scores


def _head(form: Form) -> Kind:
    while not isinstance(form, Kind):
        form = form.first if isinstance(form, Both) else form.of  # type: ignore[attr-defined]
    return form


def colour_and_shape(name: str, images: Iterable[int]) -> dict[str, list[float]]:
    """IoU of the best predictions from colour and shape words only, by sentence type."""
    split = ScenesSplit(name)
    scores: dict[str, list[float]] = defaultdict(list)
    for image in images:
        scene, sentences = split.scene(image)
        table = overlaps(split, scene)
        for sentence in sentences:
            scores[sentence.sentence_type].append(float(table[_guess(scene, sentence.text, table), sentence.things]))
    return scores


def _guess(scene: Scene, text: str, table: Table) -> int:
    words = {*head_words(text)}
    return _best([1 << k for k, thing in enumerate(scene.things) if words <= {thing.colour, thing.shape}], table)


def _best(fitting: list[int], table: Table) -> int:
    """One of the fitting things or all of them: the best where each is as likely as the other."""
    return max([*fitting, sum(fitting)], key=lambda guess: table[guess, fitting].mean() if fitting else 0)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for name in PLANS:
        by_type = colour_and_shape(name, range(count))
        every = [score for scores in by_type.values() for score in scores]
        low = blind(ScenesSplit(name), range(count))
        print(f"scenes {name:14} blind {low:.3f}  colour+shape {statistics.mean(every):.3f}")
        print("   ", {kind: round(statistics.mean(scores), 2) for kind, scores in sorted(by_type.items())})
    for name in COLLAGE_PLANS:
        collage = CollageSplit(name)
        by_type = noun_only(collage, range(count))
        every = [score for scores in by_type.values() for score in scores]
        print(f"collage {name:14} blind {blind(collage, range(count)):.3f}  noun {statistics.mean(every):.3f}")
        print("   ", {kind: round(statistics.mean(scores), 2) for kind, scores in sorted(by_type.items())})
