"""Readers with perfect masks that skip what makes a sentence referring: how well do they do on `scenes`?

    python tests/scene_oracles.py [pictures]

blind          sees the picture, not the sentence: of all unions of things, the one of the greatest expected IoU over
               the sentences that may be asked about the picture (so many are drawn to know them)
colour+shape   reads only the colour and shape words of what the sentence is about, and takes the thing having them, or
               the union of such things, that is best when each is as likely as the other
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scene_reader import head_words

from riszoo.data.scenes import PLANS, ScenesSplit
from riszoo.data.scenes.dice import Dice
from riszoo.data.scenes.render import Rendering
from riszoo.data.scenes.speaker import Speaker
from riszoo.data.scenes.world import Scene

POSSIBLE = 240
Table = np.ndarray  # (unions, unions): IoU of one set of things, as bits, with another


def overlaps(scene: Scene, size: tuple[int, int] = (96, 96)) -> Table:
    """Visible parts never overlap, so areas tell the IoU of any two unions; two empty ones agree."""
    count = len(scene.things)
    areas = np.bincount(Rendering(scene, size).owner.ravel(), minlength=count + 1)[1:].astype(float)
    sets = np.arange(1 << count)
    total = ((sets[:, None] >> np.arange(count) & 1) * areas).sum(1)  # (unions,)
    both = total[sets[:, None] & sets[None, :]]
    either = total[:, None] + total[None, :] - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def blind(split: ScenesSplit, picture: int, table: Table) -> float:
    """Expected IoU of the best answer to a sentence that was not heard."""
    scene, _ = split.scene(picture)
    asked = [possible.things for possible in _possible(split, scene, picture)]
    return float(table[:, asked].mean(1).max())


def _possible(split: ScenesSplit, scene: Scene, picture: int) -> list:
    dice = Dice(f"possible {picture}")
    sayings: list = []
    while len(sayings) < POSSIBLE:
        sayings += Speaker(scene, dice).say(split.plan.sentences, split.plan.mix) or []
    return sayings


def colour_and_shape(scene: Scene, text: str, things: int, table: Table) -> float:
    """IoU of the best answer to a sentence of which only the colour and the shape were heard."""
    words = head_words(text)
    fitting = [k for k, thing in enumerate(scene.things) if {*words} <= {thing.colour, thing.shape}]
    if not fitting:
        return float(table[0, things])
    all_of_them = sum(1 << k for k in fitting)
    guesses = [1 << k for k in fitting] + [all_of_them] * (len(fitting) > 1)
    best = max(guesses, key=lambda guess: table[guess, [1 << k for k in fitting]].mean())
    return float(table[best, things])


def measure(name: str, pictures: Sequence[int]) -> dict[str, float | dict[str, float]]:
    split = ScenesSplit(name)
    blinds, heard = [], defaultdict(list)
    for picture in pictures:
        scene, sayings = split.scene(picture)
        table = overlaps(scene)
        blinds.append(blind(split, picture, table))
        for saying in sayings:
            heard[saying.type].append(colour_and_shape(scene, saying.text, saying.things, table))
    everything = [score for scores in heard.values() for score in scores]
    return {
        "blind": statistics.mean(blinds),
        "colour+shape": statistics.mean(everything),
        "by type": {kind: round(statistics.mean(scores), 3) for kind, scores in sorted(heard.items())},
    }


if __name__ == "__main__":
    for name in PLANS:
        print(name, measure(name, range(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)))
