"""What each process of a distributed evaluation does; run by test_metrics_suite in one launch a world size."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import torch

from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.results import METRICS, Evaluation, write_results
from riszoo.metrics.suite import RISMetrics
from tests.support.fake_batches import Blobs

NAMES = "original,cris035,rela"
VARIANTS = [*itertools.product((1, 3, 7), (True, False), ("split", "shuffled")), (2, True, "few")]


def evaluate(folder: Path, rank: int, world: int) -> None:
    """Every batch size, grouping and order; rank 0 writes a result for each. `few`: fewer sentences than processes."""
    torch.set_num_threads(1)
    blobs = Blobs(images=6, head=True)
    for size, grouped, order in VARIANTS:
        places = list(range(len(blobs.samples)))[: 2 if order == "few" else None]
        if order == "shuffled":
            random.Random(size).shuffle(places)
        metrics = RISMetrics(get_protocols(NAMES))
        own = places[rank::world]
        for start in range(0, len(own), size):
            metrics.update(*blobs.batch(own[start : start + size], metrics.protocols, grouped))
        values = metrics.compute()
        with metrics.sync_context():
            table = metrics.sentence_table()
        if rank == 0:
            result = write_results(folder / f"{size}-{grouped}-{order}", {"val": Evaluation(table, blobs.samples)}, {})
            told = result["splits"]["val"]["protocols"]["original"]["values"]
            assert {name: values["original"][name] for name in told} == told or order == "few"


def join(rank: int, folder: str, world: int) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        evaluate(Path(folder), rank, world)
    finally:
        torch.distributed.destroy_process_group()


def written(folder: Path, order: tuple[str, ...]) -> set[bytes]:
    """The different contents of metrics.json over all variants of these orders."""
    return {(folder / f"{s}-{g}-{o}" / METRICS).read_bytes() for s, g, o in VARIANTS if o in order}
