"""What a model costs: parameters, floating-point operations, memory kept for a backward pass, and measured speed."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Sample
from riszoo.build import from_recipe
from riszoo.data.datamodule import RISData
from riszoo.data.samplers import StepPlan
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.training.optim import make_optimizer

RANDOM = {"model": {"init_args": {"vision": {"weights": "none"}, "text": {"weights": "none"}}}}
PLACEHOLDER = [f"word{i}" for i in range(9999)]


def build(
    name: str, data: str, scale: str, over: recipes.Config | None = None
) -> tuple[RISModule, RISData | None, recipes.Config]:
    """The recipe with random weights; a word table of 9,999 words stands in where the data set is not at hand."""
    recipes.checked_scale(name, data, scale)
    over = recipes.merge(over or {}, RANDOM)
    try:
        return from_recipe(name, data, scale, over)
    except UserError:
        over = recipes.merge(over, {"model": {"init_args": {"text": {"vocabulary": PLACEHOLDER}}}})
        print(f"  ({data} is not at hand: a vocabulary of {len(PLACEHOLDER):,} words is assumed)")
        return from_recipe(name, data, scale, over)


def parameters(model: torch.nn.Module) -> tuple[int, int]:
    """How many there are, and how many of them are trained."""
    everything = list(model.parameters())
    return sum(p.numel() for p in everything), sum(p.numel() for p in everything if p.requires_grad)


def question(model: RISModule, sentences: int = 1, images: int = 1) -> Batch:
    """Random images of the model's frame with some sentences each, for measuring."""
    geometry = Geometry.fit(model.geometry, model.size, model.size)
    texts = ["the large red circle on the left"] * (sentences * images)
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (images, 3, *model.size), dtype=torch.uint8, generator=generator),
        valid=torch.tensor([geometry.valid] * images),
        image_ids=["random"] * images,
        geometry=[geometry] * images,
        texts=texts,
        image_index=torch.arange(images).repeat_interleave(sentences),
        samples=[Sample(str(i), i, "random", "random", "random", str(i), text) for i, text in enumerate(texts)],
        no_target=torch.zeros(len(texts), dtype=torch.bool),
        masks=torch.zeros(len(texts), *model.size, dtype=torch.bool),
    )


def gflops(model: RISModule, sentences: int = 1) -> float:
    """Of one forward pass over one image."""
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(question(model, sentences))
    return float(counter.get_total_flops()) / 1e9


def kept_for_backward(model: RISModule) -> float:
    """MiB of distinct storage that autograd keeps of one image with one sentence, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = question(model)
    alive = []
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(batch)
        alive.append(model.loss(output, batch))  # storages stay alive, so their addresses stay distinct
    return sum(kept.values()) / 2**20


# -- measured -------------------------------------------------------------------------------------------------------


def times(call: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 3) -> list[float]:
    """Seconds of each call: by events on an accelerator, by the clock on a processor."""
    for _ in range(warm_up):
        call()
    return [_event_time(call) if device.type == "cuda" else _clock_time(call) for _ in range(repeats)]


def _clock_time(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _event_time(call: Callable[[], object]) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1000


def spread(values: list[float]) -> float:
    """Between the quartiles; 0 of a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def peak_memory(device: torch.device) -> float:
    """MiB: of the accelerator since its count was reset, or of the whole process, libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def on_device(model: RISModule, batch: Batch, device: torch.device) -> Batch:
    """As a run does it: words on the CPU, then everything moves."""
    batch.tokens = model.tokenize(batch.texts)
    return batch.to(device)


def latency(model: RISModule, sentences: int, device: torch.device, repeats: int) -> dict[str, float]:
    """Milliseconds for one image with all its sentences: median and spread."""
    model.eval()
    batch = on_device(model, question(model, sentences), device)
    with torch.no_grad():
        found = times(lambda: model(batch), device, repeats)
    name = f"ms_{sentences}_sentence" + ("" if sentences == 1 else "s")
    return {name: 1000 * statistics.median(found), f"{name}_spread": 1000 * spread(found)}


def training_rate(model: RISModule, plan: StepPlan, device: torch.device, repeats: int) -> dict[str, float]:
    """Images and sentences a second in optimiser steps on data that is already there."""
    images = plan.sentences // plan.per_image
    batch = on_device(model, question(model, plan.per_image, images), device)
    optimizer, _ = make_optimizer(model, model.optim, 1000)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        torch.stack([value.mean() for value in model.loss(model(batch), batch).values()]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    seconds = statistics.median(times(step, device, repeats, warm_up=1))
    return {"train_images_per_s": images / seconds, "train_sentences_per_s": plan.sentences / seconds}


def speed(model: RISModule, plan: StepPlan, device: torch.device, repeats: int = 15) -> dict[str, Any]:
    """Everything a row of speed.csv measures; a training step is repeated a fifth as often."""
    total, trained = parameters(model)
    counted = {"parameters": total, "trained_parameters": trained}
    counted |= {"gflop_1_sentence": gflops(model, 1), "gflop_7_sentences": gflops(model, 7)}  # type: ignore[dict-item]
    model.to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    measured = latency(model, 1, device, repeats) | latency(model, 7, device, repeats)
    measured |= training_rate(model, plan, device, max(2, repeats // 5))
    return {**counted, **measured, "train_batch": plan.sentences, "peak_memory_mib": peak_memory(device)}
