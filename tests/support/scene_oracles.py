"""Readers with perfect masks that skip what makes a sentence referring: how well do they do on `scenes`?

    python -m tests.support.scene_oracles [images]

blind          sees the image, not the sentence: of all unions of things, the one of the greatest expected IoU over
               the sentences that may be asked about the image (so many are drawn to know them)
colour+shape   reads only the colour and shape words of what the sentence is about, and takes the thing having them, or
               the union of such things, that is best when each is as likely as the other
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from riszoo.data.generated.rng import RandomStream
from riszoo.data.scenes import PLANS, ScenesSplit
from riszoo.data.scenes.layout import Scene
from riszoo.data.scenes.render import ShapeRendering
from riszoo.data.scenes.sentences import SentenceSampler
from tests.support.scene_reader import head_words

POSSIBLE = 240
Table = np.ndarray  # (unions, unions): IoU of one set of things, as bits, with another


def overlaps(scene: Scene, size: tuple[int, int] = (96, 96)) -> Table:
    """Visible parts never overlap, so areas tell the IoU of any two unions; two empty ones agree."""
    count = len(scene.things)
    areas = np.bincount(ShapeRendering(scene, size).owner.ravel(), minlength=count + 1)[1:].astype(float)
    sets = np.arange(1 << count)
    total = ((sets[:, None] >> np.arange(count) & 1) * areas).sum(1)  # (unions,)
    both = total[sets[:, None] & sets[None, :]]
    either = total[:, None] + total[None, :] - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def blind(name: str, images: Iterable[int]) -> float:
    """mIoU of the best prediction without the sentence."""
    split = ScenesSplit(name)
    scores = []
    for image in images:
        scene, _ = split.scene(image)
        scores.append(overlaps(scene)[:, _possible(split, scene, image)].mean(1).max())
    return statistics.mean(scores)


def _possible(split: ScenesSplit, scene: Scene, image: int) -> list[int]:
    """What sentences about the image name, in the shares in which they are asked."""
    rng = RandomStream(f"possible {image}")
    named: list[int] = []
    while len(named) < POSSIBLE:
        sentences = SentenceSampler(scene, rng).sample(split.plan.sentences, split.plan.mix) or []
        named += [sentence.things for sentence in sentences]
    return named


def colour_and_shape(name: str, images: Iterable[int]) -> dict[str, list[float]]:
    """IoU of the best predictions from colour and shape words only, by sentence type."""
    split = ScenesSplit(name)
    scores: dict[str, list[float]] = defaultdict(list)
    for image in images:
        scene, sentences = split.scene(image)
        table = overlaps(scene)
        for sentence in sentences:
            scores[sentence.sentence_type].append(float(table[_guess(scene, sentence.text, table), sentence.things]))
    return scores


def _guess(scene: Scene, text: str, table: Table) -> int:
    words = {*head_words(text)}
    fitting = [1 << k for k, thing in enumerate(scene.things) if words <= {thing.colour, thing.shape}]
    return max([*fitting, sum(fitting)], key=lambda guess: table[guess, fitting].mean() if fitting else 0)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for name in PLANS:
        by_type = colour_and_shape(name, range(count))
        every = [score for scores in by_type.values() for score in scores]
        print(f"{name:14} blind {blind(name, range(count)):.3f}  colour+shape {statistics.mean(every):.3f}")
        print("   ", {kind: round(statistics.mean(scores), 2) for kind, scores in sorted(by_type.items())})
