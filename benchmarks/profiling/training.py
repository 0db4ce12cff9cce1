"""Where the time of a training step goes, and what several sentences of an image save. Prints two tables.

    python -m benchmarks.profiling.training lts,risam,vipa,lavt --batch 16

The first has the share of each kind of operation in both passes and the optimiser (torch.profiler), and that of the two
encoders: the time of a step of the encoders alone on the same images and sentences, relative to that of the model. The
second has sentences a second for 1, 2, 4 and 8 sentences of each image in a step of the same number of sentences.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections import Counter
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from riszoo.bench.cost import build, step_plan, times, training_rate
from riszoo.bench.paired import Side, Subject

KINDS = {
    "convolution": r"conv|mkldnn|cudnn_conv",
    "matrix product": r"mm$|mm_|addmm|bmm|linear|gemm|gru|rnn",
    "attention": r"attention|flash",
    "norm": r"norm",
    "softmax and loss": r"softmax|cross_entropy|logsumexp",
    "resizing": r"upsample|interpolate|pool",
    "copies": r"copy|cat$|clone|contiguous|index|gather|scatter|roll|embedding|stack|pad",
    "optimiser": r"adam|foreach",
}
"""Patterns of the operators' names; the first that matches counts. The rest are pointwise operations."""
PER_IMAGE = (1, 2, 4, 8)


def kind_of(operator: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operator)), "pointwise")


def shares(side: Side, repeats: int) -> dict[str, float]:
    """The share of each kind of operation in the steps of a side, by the operators' own time."""
    subject = Subject(side)
    subject.training()
    on_gpu = subject.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    with profile(activities=activities) as profiled:
        for _ in range(repeats):
            subject.training()
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if event.key.startswith("aten::"):
            spent[kind_of(event.key.lower())] += own
    total = sum(spent.values())
    return {kind: spent[kind] / total for kind in (*KINDS, "pointwise")}


def encoder_share(side: Side, encoders: Side, repeats: int) -> float:
    """The time of a step of the encoders alone, relative to that of the model."""
    seconds = []
    for subject in (Subject(encoders), Subject(side)):
        seconds.append(statistics.median(times(subject.training, subject.device, repeats, warm_up=1)))
    return seconds[0] / seconds[1]


def by_sentences(name: str, args: argparse.Namespace) -> list[float]:
    """Sentences a second for each number of sentences of an image."""
    rates = []
    for count in PER_IMAGE:
        over = {"data": {"init_args": {"sentences_per_image": count}}}
        model, _, config = build(name, args.data, args.scale, over)
        plan = step_plan(config, args.batch)
        device = torch.device(args.device)
        rates.append(training_rate(model.to(device), plan, device, args.repeats)["train_sentences_per_s"])
    return rates


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
        encoders = Side(name, args.data, args.scale, device=args.device, batch=args.batch, part="encoders")
        found = shares(side, args.repeats)
        cells = [f"{found[kind]:.0%}" for kind in kinds]
        print(row([name, *cells, f"{encoder_share(side, encoders, args.repeats):.0%}"]), flush=True)
    print("", row(["model", *(f"{count} an image" for count in PER_IMAGE)]), row(["---"] * 5), sep="\n")
    for name in names:
        print(row([name, *(f"{rate:.1f}" for rate in by_sentences(name, args))]), flush=True)


if __name__ == "__main__":
    main()
