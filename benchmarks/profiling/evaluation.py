"""Sentences evaluated in a second of processor time, grouped by image and one at a time, and the share of the metrics.

    python -m benchmarks.profiling.evaluation risam,lts,vipa [--images 64] [--size mixed] [--protocol original,lavt480]

The weights are those that riszoo ships, the images the first of `scenes` val, the core is one. The shares are of all
processor time: loading and drawing, the model, the metrics. Counts may differ by a pixel where a logit is at the
threshold, because kernels round differently in batches of different sizes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from riszoo.data.dataset import RISDataset, collate
from riszoo.data.samplers import EvalBatchSampler
from riszoo.data.scenes import ScenesSplit
from riszoo.inference.predictor import load
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.metrics.suite import RISMetrics
from riszoo.model import RISModule

ORDERS = {"one at a time": (False, 1), "grouped": (True, 32)}
"""Whether the sentences of an image are evaluated together, and the images in a batch."""


class Watch:
    """Seconds of processor time by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start


@torch.inference_mode()
def evaluate(
    model: RISModule, split: ScenesSplit, protocols: tuple[Protocol, ...], order: str, images: int
) -> tuple[RISMetrics, Watch]:
    """The metrics of the first images of a split, and what they cost."""
    ground_truths = list(dict.fromkeys(protocol.ground_truth for protocol in protocols))
    dataset = RISDataset(split, model.size, model.geometry, ground_truths=ground_truths, views=model.views)
    metrics, watch = RISMetrics(protocols), Watch()
    grouped, per_batch = ORDERS[order]
    for keys in EvalBatchSampler(split, per_batch, grouped, 0, 1, images):
        with watch.part("loading"):
            batch = collate([dataset[key] for key in keys])
        with watch.part("model"):
            output = model(batch)
        with watch.part("metrics"):
            metrics.update(output, batch)
    with watch.part("metrics"):
        metrics.compute()
    return metrics, watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", help="recipes with shipped weights, separated by commas")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", default="mixed", help="the side of every image, or mixed: 64 to 640 pixels")
    parser.add_argument("--protocol", default="original,lavt480")
    options = parser.parse_args()
    torch.set_num_threads(1)
    protocols = get_protocols(options.protocol)
    split = ScenesSplit("val", size="mixed" if options.size == "mixed" else int(options.size))
    for name in options.models.split(","):
        model = load(name).model.eval()
        tables = []
        for order in ORDERS:
            metrics, watch = evaluate(model, split, protocols, order, options.images)
            table, total = metrics.sentence_table(), sum(watch.seconds.values())
            shares = ", ".join(f"{part} {seconds / total:.1%}" for part, seconds in watch.seconds.items())
            print(f"{name:8}{order:16}{len(table) / total:8.1f} sentences/s   {shares}", flush=True)
            tables.append(table.values)
        distance = np.abs(tables[0] - tables[1])
        print(f"{name:8}{distance.any(1).sum()} of {len(distance)} sentences differ, by {distance.max()} at most")


if __name__ == "__main__":
    main()
