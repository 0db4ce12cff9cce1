"""The cost of a model: parameters, floating-point operations, activation memory, and measured speed."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Sample
from riszoo.build import from_recipe
from riszoo.data.datamodule import RISData
from riszoo.data.samplers import StepPlan
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.training.optim import make_optimizer

RANDOM_WEIGHTS = {"model": {"init_args": {"vision": {"weights": "none"}, "text": {"weights": "none"}}}}
PLACEHOLDER_VOCABULARY = tuple(f"word{i}" for i in range(9999))
PUBLISHED_TEXT: dict[str, tuple[str, int, recipes.Config]] = {
    "bert-base-uncased": ("bert", 30_522, {}),
    "openai/clip-vit-base-patch32": ("clip_text_model", 49_408, {}),
    "clip": ("clip", 49_408, {"tokens": "words"}),
    "beit3.spm": ("beit3", 64_010, {}),
}
"""Published text encoders whose size is known without a file: the type, the size of the vocabulary, and options."""
RESERVED_WORDS = 4


def build(
    name: str, data: str, scale: str, overrides: recipes.Config | None = None
) -> tuple[RISModule, RISData | None, recipes.Config]:
    """The recipe with random weights, and with a placeholder vocabulary if the data set is not available."""
    recipes.checked_scale(name, data, scale)
    overrides = recipes.merge(recipes.merge(overrides or {}, RANDOM_WEIGHTS), _published_text(name, data, scale))
    try:
        return from_recipe(name, data, scale, overrides)
    except UserError:
        overrides = recipes.merge(overrides, {"model": {"init_args": {"text": {"vocabulary": PLACEHOLDER_VOCABULARY}}}})
        print(f"  ({data} is not available: a vocabulary of {len(PLACEHOLDER_VOCABULARY):,} words is used)")
        return from_recipe(name, data, scale, overrides)


def skeleton(name: str, data: str, scale: str) -> RISModule:
    """The recipe's model with shapes and no values, on the meta device: counting needs no memory and little time."""
    with torch.device("meta"):
        return build(name, data, scale)[0]


def _published_text(name: str, data: str, scale: str) -> recipes.Config:
    """Overrides that build a published text encoder from its known size, without the files of its vocabulary."""
    text = recipes.resolve(name, data, scale)["model"]["init_args"].get("text", {})
    if text.get("name") not in PUBLISHED_TEXT or text.get("options", {}).get("tokens") == "words":
        return {}
    kind, size, options = PUBLISHED_TEXT[text["name"]]
    words = tuple(f"word{i}" for i in range(size - RESERVED_WORDS))
    return {"model": {"init_args": {"text": {"name": kind, "vocabulary": words, "options": options}}}}


def parameters(model: torch.nn.Module) -> tuple[int, int]:
    """The number of parameters, and of trained ones."""
    all_parameters = list(model.parameters())
    return sum(p.numel() for p in all_parameters), sum(p.numel() for p in all_parameters if p.requires_grad)


def random_batch(model: RISModule, sentences: int = 1, images: int = 1) -> Batch:
    """Random images at the model's input size with `sentences` sentences each."""
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
        views=[255 * torch.rand(images, 3, *view.size, generator=generator) for view in model.views],
    )


def _own_batch(model: RISModule, sentences: int) -> Batch:
    """A random batch on the model's device."""
    return on_device(model, random_batch(model, sentences), next(model.parameters()).device)


def gflops(model: RISModule, sentences: int = 1) -> float:
    """Floating-point operations of one forward pass over one image, in billions, the same on every device."""
    model.eval()
    with untrained(model), counting() as counter, torch.no_grad():
        model(_own_batch(model, sentences))
    return float(counter.get_total_flops()) / 1e9


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """A counter of operations, without the kernels in which torch counts none: fused attention and cuDNN's GRU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(False):
        yield counter


@contextmanager
def untrained(model: RISModule) -> Iterator[None]:
    """No parameter requires gradients. torch's counter looks for the gradient of a parameter that a module receives."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def training_gflops(model: RISModule, plan: StepPlan) -> float:
    """Floating-point operations of a training step's two passes, in billions, what is computed again included."""
    model.train()
    batch = on_device(model, training_batch(model, plan), next(model.parameters()).device)
    with counting() as counter:
        total_loss(model, batch).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / 1e9


def activation_memory(model: RISModule) -> float:
    """MiB of distinct storage that autograd saves for one image with one sentence, without weights."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    saved: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    batch = _own_batch(model, 1)
    alive = []
    with saved_tensors_hooks(save, lambda tensor: tensor):
        output = model(batch)
        alive.append(model.loss(output, batch))  # storages stay alive, so their identities stay distinct
    return sum(saved.values()) / 2**20


# -- measured speed -------------------------------------------------------------------------------------------------


def times(call: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 3) -> list[float]:
    """Seconds of each call, measured with CUDA events or with the clock."""
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
    """The interquartile range; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def peak_memory(device: torch.device) -> float:
    """MiB: of the accelerator since the last reset of its statistics, or of the whole process, libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def on_device(model: RISModule, batch: Batch, device: torch.device) -> Batch:
    """The tokenized batch on the device."""
    batch.tokens = model.tokenize(batch.texts)
    return batch.to(device)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which a model runs in a precision of the trainer: 32-true or bf16-mixed."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def latency(
    model: RISModule, sentences: int, device: torch.device, repeats: int, precision: str = "32-true"
) -> dict[str, float]:
    """Milliseconds for one image with all its sentences: median and interquartile range."""
    model.eval()
    batch = on_device(model, random_batch(model, sentences), device)
    with torch.no_grad(), autocast(device, precision):
        seconds = times(lambda: model(batch), device, repeats)
    name = f"ms_{sentences}_sentence" + ("" if sentences == 1 else "s")
    return {name: 1000 * statistics.median(seconds), f"{name}_spread": 1000 * spread(seconds)}


def step_plan(config: recipes.Config, batch: int | None = None) -> StepPlan:
    """The sentences of a training step on one device, as the configuration divides them; `batch` replaces its batch."""
    options = config["data"]["init_args"]
    sentences, per_image = batch or options.get("batch_size", 32), options.get("sentences_per_image", 1)
    if batch and batch % per_image:
        raise UserError(
            f"--batch {batch} is not a multiple of the {per_image} sentences of an image: change it, or give "
            "--data.sentences_per_image"
        )
    return StepPlan.of(sentences, sentences, per_image, 1)


def training_batch(model: RISModule, plan: StepPlan) -> Batch:
    """A random batch of a training step."""
    return random_batch(model, plan.per_image, plan.sentences // plan.per_image)


def total_loss(model: RISModule, batch: Batch, precision: str = "32-true") -> torch.Tensor:
    """What a training step minimises; raises UserError where a norm over the batch needs more than one sentence."""
    try:
        with autocast(batch.images.device, precision):
            return torch.stack([value.mean() for value in model.loss(model(batch), batch).values()]).sum()
    except ValueError as error:
        if len(batch) > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"the BatchNorm of {type(model).__name__} cannot be trained with one sentence: give --batch 2 or more"
        ) from None


def training_step(model: RISModule, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """A function that runs one whole optimiser step on a loss."""
    optimizer, _ = make_optimizer(model, model.optim, 1000)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def training_rate(
    model: RISModule, plan: StepPlan, device: torch.device, repeats: int, precision: str = "32-true"
) -> dict[str, float]:
    """Images and sentences per second in whole optimiser steps, without data loading."""
    batch = on_device(model, training_batch(model, plan), device)
    step = training_step(model, lambda: total_loss(model, batch, precision))
    model.train()
    seconds = statistics.median(times(step, device, repeats, warm_up=1))
    return {"train_images_per_s": len(batch.images) / seconds, "train_sentences_per_s": len(batch) / seconds}


def speed(
    model: RISModule, plan: StepPlan, device: torch.device, repeats: int = 15, precision: str = "32-true"
) -> dict[str, Any]:
    """The measured columns of speed.csv; a training step is repeated a fifth as often as a forward pass."""
    total, trained = parameters(model)
    model.to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    measured = latency(model, 1, device, repeats, precision) | latency(model, 7, device, repeats, precision)
    measured |= training_rate(model, plan, device, max(2, repeats // 5), precision)
    memory = peak_memory(device)  # before counting, which needs more memory
    with torch.compiler.set_stance("force_eager"):  # operations inside compiled blocks are not counted
        counted = {"gflop_1_sentence": gflops(model, 1), "gflop_7_sentences": gflops(model, 7)}
    sizes = {"parameters": total, "trained_parameters": trained}
    return {**sizes, **counted, **measured, "train_batch": plan.sentences, "peak_memory_mib": memory}
