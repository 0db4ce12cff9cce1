"""Readers with perfect masks that skip what makes a sentence referring: how well do they do on generated data sets?

    python -m tests.support.scene_oracles [images]

blind          sees the image, not the sentence: of all unions of things, the one of the greatest expected IoU over
               the sentences that may be asked about the image (so many are drawn to know them)
appearance     reads only words of the subject: colour and shape (scenes), the noun or the kind (collage); the rest is a
               guess (riszoo/data/generated/guessing.py)
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from typing import Any

from riszoo.data.collage import PLANS as COLLAGE_PLANS
from riszoo.data.collage import CollageSplit
from riszoo.data.generated.guessing import guesses, overlaps
from riszoo.data.generated.rng import RandomStream
from riszoo.data.generated.split import GeneratedSplit
from riszoo.data.scenes import PLANS, ScenesSplit

POSSIBLE = 240


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


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    splits: list[GeneratedSplit[Any]] = [ScenesSplit(name) for name in PLANS]
    splits += [CollageSplit(name) for name in COLLAGE_PLANS]
    for split in splits:
        by_type = guesses(split, range(count))
        every = [score for scores in by_type.values() for score in scores]
        low = blind(split, range(count))
        print(f"{split.dataset} {split.name:14} blind {low:.3f}  appearance {statistics.mean(every):.3f}")
        print("   ", {kind: round(statistics.mean(scores), 2) for kind, scores in sorted(by_type.items())})
