"""What the choice of a protocol alone changes: the same logits, measured as different papers' code does.

Ellipses stand for objects and displaced ellipses for answers, over images of COCO's sizes and of widely mixed sizes;
then `scenes` at mixed sizes, where an answer is the target itself, displaced. An answer errs by so many of the
image's own pixels, so that small images are answered worse; every eighth misses. No model is involved: the table
shows directions, not a paper's numbers. `ms` is the time that one pair costs one core under a protocol.

    python benchmarks/protocols.py [--protocol lavt480,original,...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from riszoo.batch import Batch, Geometry, Output, Sample
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.masks import Bitmap, Segmentation
from riszoo.data.scenes.split import ScenesSplit
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.metrics.suite import RISMetrics
from riszoo.metrics.summary import Values

FRAME, GRID = (480, 480), (120, 120)
COCO_SIZES = [(480, 640)] * 7 + [(640, 480)] * 4 + [(427, 640), (375, 500), (333, 500)]
COLUMNS = ("oIoU", "mIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9", "ms")


@dataclass(frozen=True)
class Ellipse:
    """In image pixels; `depth` is 1 at its centre, 0 on its outline and negative outside."""

    centre: tuple[float, float]
    radii: tuple[float, float]

    def depth(self, ys: NDArray[np.float64], xs: NDArray[np.float64]) -> NDArray[np.float64]:
        y, x = ((at - c) / r for at, c, r in zip((ys[:, None], xs[None]), self.centre, self.radii, strict=True))
        depth: NDArray[np.float64] = 1 - np.sqrt(y**2 + x**2)
        return depth


class Pair(NamedTuple):
    """A ground truth at the image's size and an answer's logits on the network's grid."""

    ground_truth: Segmentation
    logits: NDArray[np.float32]


def ellipses(sizes: list[tuple[int, int]], seed: int) -> Iterator[Pair]:
    rng = np.random.default_rng(seed)
    return (ellipse(rng, size) for size in sizes)


def ellipse(rng: np.random.Generator, size: tuple[int, int]) -> Pair:
    radii = rng.uniform(0.06, 0.3, 2) * size
    centre = rng.uniform(radii, np.array(size) - radii)
    true = Ellipse(tuple(centre), tuple(radii)).depth(*(np.arange(side) + 0.5 for side in size)) > 0
    if rng.random() < 1 / 8:
        centre = rng.uniform(radii, np.array(size) - radii)
    answer = Ellipse(tuple(centre + rng.normal(0, 9, 2)), tuple(np.maximum(3, radii + rng.normal(0, 9, 2))))
    places = ((np.arange(cells) + 0.5) * side / cells for cells, side in zip(GRID, size, strict=True))
    return Pair(Bitmap(true), (4 * answer.depth(*places)).astype(np.float32))


def scenes(pairs: int, seed: int) -> Iterator[Pair]:
    """A target of each image of `scenes` val at mixed sizes, and the same displaced; a miss is another target."""
    rng, split = np.random.default_rng(seed), ScenesSplit("val", size="mixed")
    for image in range(pairs):
        targets = [target.segmentation for target in split[image].targets]
        answer = targets[-1 if rng.random() < 1 / 8 else 0].draw(GroundTruth())
        height, width = answer.shape
        ys = (np.arange(height) - round(rng.normal(0, 9))).clip(0, height - 1)
        xs = (np.arange(width) - round(rng.normal(0, 9))).clip(0, width - 1)
        share = F.interpolate(torch.from_numpy(answer[ys][:, xs])[None, None].float(), GRID, mode="area")[0, 0]
        yield Pair(targets[0], (8 * share - 4).numpy())


def batches(pairs: Iterator[Pair], protocols: tuple[Protocol, ...]) -> Iterator[tuple[Output, Batch]]:
    """One image and one sentence at a time."""
    for i, (ground_truth, logits) in enumerate(pairs):
        ground_truths = {p.ground_truth.key: [torch.from_numpy(ground_truth.draw(p.ground_truth))] for p in protocols}
        yield (
            Output(torch.from_numpy(logits)[None, None]),
            one(i, Geometry.fit("squeeze", ground_truth.size, FRAME), ground_truths),
        )


def one(index: int, geometry: Geometry, ground_truths: dict[str, list[Tensor]]) -> Batch:
    sample = Sample(str(index), index, "pairs", "val", str(index), str(index), "the target")
    return Batch(
        images=torch.zeros(1, 3, 1, 1, dtype=torch.uint8),
        valid=torch.tensor([geometry.valid]),
        image_ids=[sample.image_id],
        geometry=[geometry],
        texts=[sample.text],
        image_index=torch.zeros(1, dtype=torch.int64),
        samples=[sample],
        no_target=torch.zeros(1, dtype=torch.bool),
        ground_truths=ground_truths,
        target_index=torch.zeros(1, dtype=torch.int64),
    )


def measure(pairs: Iterator[Pair], protocols: tuple[Protocol, ...]) -> dict[str, Values]:
    suites = [RISMetrics([protocol]) for protocol in protocols]
    seconds, count = [0.0] * len(suites), 0
    for count, (output, batch) in enumerate(batches(pairs, protocols), 1):  # noqa: B007 - read after the loop
        for i, suite in enumerate(suites):
            start = time.process_time()
            suite.update(output, batch)
            seconds[i] += time.process_time() - start
    costs = [{"ms": 1000 * spent / count} for spent in seconds]
    return {p.name: suite.compute()[p.name] | cost for p, suite, cost in zip(protocols, suites, costs, strict=True)}


def pair_sets(pairs: int) -> dict[str, Iterator[Pair]]:
    rng = np.random.default_rng(7)
    coco = [COCO_SIZES[i] for i in rng.integers(len(COCO_SIZES), size=pairs)]
    mixed = [(int(h), int(w)) for h, w in np.exp(rng.uniform(np.log([97, 97]), np.log(612), (pairs, 2)))]
    return {
        "COCO-like": ellipses(coco, 1),
        "COCO-like, other seed": ellipses(coco, 2),
        "widely mixed": ellipses(mixed, 3),
        "scenes, mixed": scenes(pairs, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", default="lavt480,cgformer,original,mcn,simrec")
    parser.add_argument("--pairs", type=int, default=400, help="images in each set, one sentence each")
    options = parser.parse_args()
    protocols = get_protocols(options.protocol)
    for name, pairs in pair_sets(options.pairs).items():
        print(f"\n{name}, {options.pairs} pairs")
        print(f"{'':12}" + "".join(f"{column:>9}" for column in COLUMNS))
        for protocol, values in measure(pairs, protocols).items():
            print(f"{protocol:12}" + "".join(f"{values.get(column, float('nan')):9.2f}" for column in COLUMNS))


if __name__ == "__main__":
    main()
