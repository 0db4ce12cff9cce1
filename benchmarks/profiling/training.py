"""Where the time of a training step goes, and what several sentences of an image save. Prints two tables.

    python -m benchmarks.profiling.training lts,risam,vipa,lavt --batch 16
    python -m benchmarks.profiling.training vipa,lavt --data refcoco --scale paper --batch 1 --repeats 1 \
        --tables operations

`operations` has the share of each kind of operation in both passes and the optimiser (torch.profiler), that of the two
encoders (the time of a step of the encoders alone on the same images and sentences, relative to that of the model), and
how near the step is to the device's limit: its counted multiplications and additions a second, relative to those of a
product of two large float32 matrices. `sentences` has sentences a second for 1, 2, 4 and 8 sentences of each image in
a step of the same number of sentences. On a CPU, all times are of the processor.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile

from riszoo.bench.cost import skeleton, step_plan, training_gflops
from riszoo.bench.paired import Cost, Side, cost_of, measure, subject
from riszoo.recipes import resolve

KINDS = {
    "convolution": r"conv|mkldnn|cudnn_conv",
    "matrix product": r"mm$|mm_|addmm|bmm|linear|gemm|gru|rnn",
    "attention": r"attention|flash",
    "norm": r"norm",
    "softmax and loss": r"softmax|cross_entropy|logsumexp",
    "resizing": r"upsample|interpolate|pool",
    "copies": r"copy|cat$|clone|contiguous|index|gather|scatter|roll|embedding|stack|pad",
}
"""Patterns of operators; the first that matches counts. The rest are pointwise operations, the optimiser's included."""
PER_IMAGE = (1, 2, 4, 8)
MATRIX = 3072
"""The side of the matrices whose product is the limit."""
TABLES = ("operations", "sentences")


def kind_of(operator: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operator)), "pointwise")


def shares(side: Side, repeats: int) -> dict[str, float]:
    """The share of each kind of operation in the steps of a side, by the operators' own time."""
    one = subject(side)
    one.training()
    on_gpu = one.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    with profile(activities=activities) as profiled:
        for _ in range(repeats):
            one.training()
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if event.key.startswith("aten::"):
            spent[kind_of(event.key.lower())] += own
    total = sum(spent.values())
    return {kind: spent[kind] / total for kind in (*KINDS, "pointwise")}


def step_seconds(side: Side, repeats: int) -> float:
    """The median of a step: events on a GPU, processor time on a CPU, which other work disturbs less."""
    subject(side).training()
    return median_seconds([measure(side, "training") for _ in range(repeats)], side.device)


def median_seconds(costs: list[Cost], device: str) -> float:
    return statistics.median(cost.wall if device != "cpu" else cost.processor for cost in costs)


def matrix_rate(device: str, repeats: int) -> float:
    """Billions of multiplications and additions a second, in the product of two large matrices."""
    matrix = torch.randn(MATRIX, MATRIX, device=device)
    costs = [cost_of(lambda: matrix @ matrix, torch.device(device)) for _ in range(repeats + 1)]
    return 2 * MATRIX**3 / 1e9 / median_seconds(costs[1:], device)


def operations(side: Side, repeats: int) -> list[str]:
    """The cells of a model in the first table."""
    found = shares(side, repeats)
    step = step_seconds(side, repeats)
    rate = matrix_rate(side.device, repeats)
    subject.cache_clear()  # a large model and its encoders alone need not fit into memory together
    encoders = step_seconds(replace(side, part="encoders"), repeats)
    plan = step_plan(resolve(side.model, side.data, side.scale), side.batch)
    counted = training_gflops(skeleton(side.model, side.data, side.scale), plan)
    parts = [*(found[kind] for kind in (*KINDS, "pointwise")), encoders / step, counted / step / rate]
    return [f"{part:.0%}" for part in parts]


def by_sentences(side: Side, repeats: int) -> list[float]:
    """Sentences a second for each number of sentences of an image."""
    assert side.batch is not None
    changes = [json.dumps({"data": {"init_args": {"sentences_per_image": count}}}) for count in PER_IMAGE]
    return [side.batch / step_seconds(replace(side, over=over), repeats) for over in changes]


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", help="comma-separated")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="sentences of a step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tables", default=",".join(TABLES), help="comma-separated; default: both")
    args = parser.parse_args()
    names, tables = args.models.split(","), args.tables.split(",")
    if not set(tables) <= set(TABLES):
        parser.error(f"--tables {args.tables}: choose from {', '.join(TABLES)}")
    sides = [Side(name, args.data, args.scale, device=args.device, batch=args.batch) for name in names]
    if "operations" in tables:
        kinds = [*KINDS, "pointwise", "encoders alone", "of the matrix rate"]
        print(row(["model", *kinds]), row(["---"] * (len(kinds) + 1)), sep="\n", flush=True)
        for side in sides:
            print(row([side.model, *operations(side, args.repeats)]), flush=True)
            subject.cache_clear()
    if "sentences" in tables:
        print(row(["model", *(f"{count} an image" for count in PER_IMAGE)]), row(["---"] * 5), sep="\n", flush=True)
        for side in sides:
            print(row([side.model, *(f"{rate:.1f}" for rate in by_sentences(side, args.repeats))]), flush=True)
            subject.cache_clear()


if __name__ == "__main__":
    main()
