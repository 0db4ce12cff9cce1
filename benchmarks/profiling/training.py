"""Where the time of a training step goes, and what several sentences of an image save. Prints two tables.

    python -m benchmarks.profiling.training lts,risam,vipa,lavt --batch 16

The first has the share of each kind of operation in both passes and the optimiser (torch.profiler), and that of the two
encoders: the time of a step of the encoders alone on the same images and sentences, relative to that of the model. The
second has sentences a second (of processor time on a CPU) for 1, 2, 4 and 8 sentences of each image in a step of the
same number of sentences.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch.profiler import ProfilerActivity, profile

from riszoo.bench.paired import Side, measure, subject

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
    costs = [measure(side, "training") for _ in range(repeats)]
    return statistics.median(cost.wall if side.device != "cpu" else cost.processor for cost in costs)


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
    args = parser.parse_args()
    names = args.models.split(",")
    kinds = [*KINDS, "pointwise"]
    print(row(["model", *kinds, "encoders alone"]), row(["---"] * (len(kinds) + 2)), sep="\n")
    for name in names:
        side = Side(name, args.data, args.scale, device=args.device, batch=args.batch)
        found = shares(side, args.repeats)
        encoders = step_seconds(replace(side, part="encoders"), args.repeats) / step_seconds(side, args.repeats)
        print(row([name, *(f"{found[kind]:.0%}" for kind in kinds), f"{encoders:.0%}"]), flush=True)
    print("", row(["model", *(f"{count} an image" for count in PER_IMAGE)]), row(["---"] * 5), sep="\n")
    for name in names:
        rates = by_sentences(Side(name, args.data, args.scale, device=args.device, batch=args.batch), args.repeats)
        print(row([name, *(f"{rate:.1f}" for rate in rates)]), flush=True)


if __name__ == "__main__":
    main()
