"""What the choice of a protocol alone changes: the same logits, measured as different papers' code does.

Ellipses stand for objects and displaced ellipses for answers, over pictures of COCO's sizes and of widely mixed sizes.
An answer errs by so many of the picture's own pixels, so that small pictures are answered worse; every eighth misses.
No model and no data set is involved: the table shows directions, not a paper's numbers. `ms` is the time that one pair
costs one core under a protocol.

    python benchmarks/protocols.py [--protocols lavt480,original,...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from riszoo.batch import Batch, Geometry, Output, Sample
from riszoo.data.masks import Bitmap
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.metrics.suite import RISMetrics
from riszoo.metrics.summary import Values

FRAME, GRID = (480, 480), (120, 120)
COCO_SIZES = [(480, 640)] * 7 + [(640, 480)] * 4 + [(427, 640), (375, 500), (333, 500)]
COLUMNS = ("oIoU", "mIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9", "ms")


@dataclass(frozen=True)
class Ellipse:
    """In picture pixels; `depth` is 1 at its centre, 0 on its outline and negative outside."""

    centre: tuple[float, float]
    radii: tuple[float, float]

    def depth(self, ys: NDArray[np.float64], xs: NDArray[np.float64]) -> NDArray[np.float64]:
        y, x = ((at - c) / r for at, c, r in zip((ys[:, None], xs[None]), self.centre, self.radii, strict=True))
        depth: NDArray[np.float64] = 1 - np.sqrt(y**2 + x**2)
        return depth


def question(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """A truth at the picture's size and an answer's logits on the network's grid."""
    radii = rng.uniform(0.06, 0.3, 2) * size
    centre = rng.uniform(radii, np.array(size) - radii)
    true = Ellipse(tuple(centre), tuple(radii)).depth(*(np.arange(side) + 0.5 for side in size)) > 0
    if rng.random() < 1 / 8:
        centre = rng.uniform(radii, np.array(size) - radii)
    answer = Ellipse(tuple(centre + rng.normal(0, 9, 2)), tuple(np.maximum(3, radii + rng.normal(0, 9, 2))))
    places = ((np.arange(cells) + 0.5) * side / cells for cells, side in zip(GRID, size, strict=True))
    return true, (4 * answer.depth(*places)).astype(np.float32)


def batches(sizes: list[tuple[int, int]], protocols: tuple[Protocol, ...], seed: int) -> Iterator[tuple[Output, Batch]]:
    """One picture and one sentence at a time."""
    rng = np.random.default_rng(seed)
    for i, size in enumerate(sizes):
        true, logits = question(rng, size)
        truths = {p.truth.key: [torch.from_numpy(Bitmap(true).draw(p.truth))] for p in protocols}
        yield Output(torch.from_numpy(logits)[None, None]), one(i, Geometry.fit("squeeze", size, FRAME), truths)


def one(index: int, geometry: Geometry, truths: dict[str, list[Tensor]]) -> Batch:
    sample = Sample(str(index), index, "ellipses", "val", str(index), str(index), "the ellipse")
    return Batch(
        images=torch.zeros(1, 3, 1, 1, dtype=torch.uint8),
        valid=torch.tensor([geometry.valid]),
        image_ids=[sample.picture],
        geometry=[geometry],
        texts=[sample.text],
        image_index=torch.zeros(1, dtype=torch.int64),
        samples=[sample],
        no_target=torch.zeros(1, dtype=torch.bool),
        truths=truths,
        target_index=torch.zeros(1, dtype=torch.int64),
    )


def measure(sizes: list[tuple[int, int]], protocols: tuple[Protocol, ...], seed: int) -> dict[str, Values]:
    suites = [RISMetrics([protocol]) for protocol in protocols]
    seconds = [0.0] * len(suites)
    for output, batch in batches(sizes, protocols, seed):
        for i, suite in enumerate(suites):
            start = time.process_time()
            suite.update(output, batch)
            seconds[i] += time.process_time() - start
    costs = [{"ms": 1000 * spent / len(sizes)} for spent in seconds]
    return {p.name: suite.compute()[p.name] | cost for p, suite, cost in zip(protocols, suites, costs, strict=True)}


def picture_sets(pairs: int) -> dict[str, tuple[list[tuple[int, int]], int]]:
    """Name -> the sizes of its pictures, and a seed."""
    rng = np.random.default_rng(7)
    coco = [COCO_SIZES[i] for i in rng.integers(len(COCO_SIZES), size=pairs)]
    mixed = [(int(h), int(w)) for h, w in np.exp(rng.uniform(np.log([97, 97]), np.log(612), (pairs, 2)))]
    return {"COCO-like": (coco, 1), "COCO-like, other seed": (coco, 2), "widely mixed": (mixed, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", default="lavt480,cgformer,original,mcn,simrec")
    parser.add_argument("--pairs", type=int, default=400, help="pictures in each set, one sentence each")
    options = parser.parse_args()
    protocols = get_protocols(options.protocols)
    for name, (sizes, seed) in picture_sets(options.pairs).items():
        print(f"\n{name}, {len(sizes)} pairs")
        print(f"{'':12}" + "".join(f"{column:>9}" for column in COLUMNS))
        for protocol, values in measure(sizes, protocols, seed).items():
            print(f"{protocol:12}" + "".join(f"{values.get(column, float('nan')):9.2f}" for column in COLUMNS))


if __name__ == "__main__":
    main()
