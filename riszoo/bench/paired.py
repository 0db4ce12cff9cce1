"""Two models measured in turns, so that other work of the machine slows both: the result is their ratio.

Each side has a process of its own, which builds the model once and keeps it, so that its peak memory is its own. Only
one of the two works at a time. Processor time is the more reliable ratio on a shared CPU, wall time on an accelerator.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from riszoo.batch import Batch
from riszoo.bench.cost import (
    autocast,
    build,
    on_device,
    peak_memory,
    random_batch,
    spread,
    step_plan,
    times,
    total_loss,
    training_batch,
    training_step,
)
from riszoo.blocks import compile_blocks
from riszoo.errors import UserError
from riszoo.training.machine import keep_memory

Part = Literal["model", "encoders", "vision"]
FIRST = ["riszoo.bench.paired"]
"""Imported once, before the processes of both sides are forked."""


@dataclass(frozen=True)
class Side:
    """One of the two: a recipe with changes, and what of it is measured.

    over       changes to the recipe, as JSON
    device     cpu or cuda
    part       the `model`, its two `encoders` without anything on top, or its `vision` encoder alone
    sentences  about the one image of a forward pass
    batch      sentences of a training step; None: the recipe's
    threads    of the CPU; None: torch's default
    precision  32-true or bf16-mixed
    compiled   whether each repeated block is compiled
    """

    model: str
    data: str
    scale: str
    over: str = "{}"
    device: str = "cpu"
    part: Part = "model"
    sentences: int = 1
    batch: int | None = None
    threads: int | None = None
    precision: str = "32-true"
    compiled: bool = False

    @property
    def title(self) -> str:
        facts = [self.part] * (self.part != "model") + [self.precision] * (self.precision != "32-true")
        facts += ["compiled"] * self.compiled
        changes = [f"{name} {value}" for name, value in _leaves(json.loads(self.over), ())]
        return ", ".join([f"{self.model} {self.scale}", *facts, *changes])


def _leaves(config: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The name of each option, as on the command line, and its value."""
    if not isinstance(config, dict):
        yield ".".join(key for key in path if key != "init_args"), config
        return
    for key, value in config.items():
        yield from _leaves(value, (*path, key))


class Cost(NamedTuple):
    """Seconds of one step."""

    wall: float
    processor: float


class Subject:
    """The model of a side, built, and its steps. `forward` and `training` each run one."""

    def __init__(self, side: Side) -> None:
        keep_memory()
        if side.threads is not None:
            torch.set_num_threads(side.threads)
        torch.manual_seed(0)
        self.device, self.part, self.precision = torch.device(side.device), side.part, side.precision
        self.title = side.title
        model, _, config = build(side.model, side.data, side.scale, json.loads(side.over))
        self.model = model.to(self.device)
        if side.compiled:
            compile_blocks(model, self.device.type)
        self.batch = on_device(model, random_batch(model, side.sentences), self.device)
        self.train_batch = on_device(model, training_batch(model, step_plan(config, side.batch)), self.device)
        self.update = training_step(model, lambda: self.loss(self.train_batch))
        self.built = peak_memory(self.device)

    def outputs(self, batch: Batch) -> list[Tensor]:
        """What the encoders of the part return."""
        assert batch.tokens is not None
        maps = self.model.vision(self.model.normalise(batch.images, batch.valid))
        return [*maps, self.model.encode_text(batch.tokens).states] if self.part == "encoders" else list(maps)

    def loss(self, batch: Batch) -> Tensor:
        """The model's loss; of encoders, the mean square of everything they return."""
        if self.part == "model":
            return total_loss(self.model, batch, self.precision)
        with autocast(self.device, self.precision):
            total = torch.stack([output.square().mean() for output in self.outputs(batch)]).sum()
        if not total.requires_grad:
            raise UserError(
                f"--part {self.part} of {self.title} is frozen, so that it has no training step: "
                "give --steps forward, or --model.vision.frozen false"
            )
        return total

    def forward(self) -> None:
        self.model.eval()
        with torch.no_grad(), autocast(self.device, self.precision):
            self.model(self.batch) if self.part == "model" else self.outputs(self.batch)

    def training(self) -> None:
        self.model.train()
        self.update()

    def memory(self) -> float:
        """MiB at the peak, beyond the built model."""
        return peak_memory(self.device) - self.built


@cache
def subject(side: Side) -> Subject:
    """The side's subject, built on the first call in its process."""
    return Subject(side)


def warm_up(side: Side, step: str) -> None:
    """Build the model, and run the step once."""
    getattr(subject(side), step)()


def measure(side: Side, step: str) -> Cost:
    """The cost of one step, in the process that calls this."""
    one = subject(side)
    return cost_of(getattr(one, step), one.device)


def cost_of(call: Callable[[], object], device: torch.device) -> Cost:
    started = time.process_time()
    (wall,) = times(call, device, repeats=1, warm_up=0)
    return Cost(wall, time.process_time() - started)


def memory(side: Side) -> float:
    return subject(side).memory()


# -- the comparison ---------------------------------------------------------------------------------------------------

Call = Callable[..., Any]
"""Runs a function of this module with its arguments, in the process of a side."""


@contextmanager
def own_process() -> Iterator[Call]:
    """A process that runs one function after another."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(FIRST)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        yield lambda function, *arguments: executor.submit(function, *arguments).result()


def compare(first: Side, second: Side, steps: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """One row for each step: medians of both sides, and the ratio of the second to the first with its spread."""
    with own_process() as call_first, own_process() as call_second:
        return [compare_step(first, second, call_first, call_second, step, repeats) for step in steps]


def compare_step(
    first: Side, second: Side, call_first: Call, call_second: Call, step: str, repeats: int
) -> dict[str, Any]:
    """The row of a step. Every other turn starts with the second side; no ratio to memory too small to show."""
    sides = [(first, call_first), (second, call_second)]
    for side, call in sides:
        call(warm_up, side, step)
    turns: list[list[Cost]] = []
    for turn in track(range(repeats), step, console=Console(stderr=True)):
        order = sides if turn % 2 == 0 else sides[::-1]
        costs = [call(measure, side, step) for side, call in order]
        turns.append(costs if turn % 2 == 0 else costs[::-1])
    peaks = [call(memory, side) for side, call in sides]
    ratio = peaks[1] / peaks[0] if peaks[0] else None
    return {"step": step, "turns": repeats} | summary(turns) | {"memory_mib": peaks, "memory_ratio": ratio}


def summary(turns: Sequence[Sequence[Cost]]) -> dict[str, Any]:
    """Medians of both sides in seconds, and the median ratio of each turn with its interquartile range."""
    row: dict[str, Any] = {}
    for kind in Cost._fields:
        seconds = [[getattr(cost, kind) for cost in turn] for turn in turns]
        ratios = [second / first for first, second in seconds]
        row[f"{kind}_s"] = [statistics.median(column) for column in zip(*seconds, strict=True)]
        row[f"{kind}_ratio"], row[f"{kind}_ratio_spread"] = statistics.median(ratios), spread(ratios)
    return row


def table(first: Side, second: Side, rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"A: {first.title}", f"B: {second.title}"]
    for row in rows:
        lines.append(f"{row['step']}, {row['turns']} turns")
        for kind in Cost._fields:
            of_first, of_second = row[f"{kind}_s"]
            ratio = f"B/A {row[f'{kind}_ratio']:.3f} ± {row[f'{kind}_ratio_spread']:.3f}"
            lines.append(f"  {kind + ' time':<16}A {of_first:9.3f} s    B {of_second:9.3f} s    {ratio}")
        of_first, of_second = row["memory_mib"]
        ratio = "" if row["memory_ratio"] is None else f"  B/A {row['memory_ratio']:.3f}"
        lines.append(f"  {'memory':<16}A {of_first:7,.0f} MiB  B {of_second:7,.0f} MiB{ratio}")
    return "\n".join(lines)
