"""What one GPU gives: results equal to the CPU's, the speed of the paper recipes, a short training. At most 8 minutes.

    python -m benchmarks.profiling.cuda --out runs/cuda
    python -m benchmarks.profiling.cuda --device cpu --tiny --out runs/cuda    # the same code on a CPU, in 2 minutes

1. Every model at the tiny scale in float32: its outputs, and the gradients of a step, against those of the CPU.
2. The rate of a large matrix product in bf16, to which the shares of the next two parts refer.
3. Every paper recipe with random weights, in float32 and in bf16.
4. `riszoo fit` on scenes at 192 pixels for three minutes.
5. The paper recipes in bf16 with compiled blocks, as many as the time allows.

A part that fails or for which no time is left is named at the end. Rows for speed.csv are in the folder of --out, the
rest in cuda.json beside them.
"""

from __future__ import annotations

import argparse
import copy
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riszoo.bench import rows
from riszoo.bench.cost import (
    build,
    on_device,
    random_batch,
    skeleton,
    speed,
    step_plan,
    times,
    training_gflops,
    training_rate,
)
from riszoo.bench.plan import models_with
from riszoo.blocks import compile_blocks
from riszoo.cli.main import main as riszoo
from riszoo.cli.speed import circumstances_of, variant
from riszoo.files import write_atomically
from riszoo.model import RISModule

COMPILED = ("vipa", "risam", "lts", "lavt")
"""The order in which models are compiled, which takes the longest."""
TOLERANCE = {"logits": 1e-3, "gradients": 1e-2}
"""The largest difference to the CPU, relative to the largest value."""
LEARNING_SHARE = 0.7
"""Of the training's time that its steps may take, as they were measured; the rest is for loading and validation."""


@dataclass(frozen=True)
class Scale:
    """The sizes of a measurement."""

    data: str
    name: str
    matrix: int  # side of the product's matrices
    repeats: int
    batch: int | None  # sentences of a training step; None: the recipe's
    size: int  # side of the frame in the training
    seconds: float  # of the training
    evaluated: int  # images of its validation


PAPER = Scale("refcoco", "paper", 8192, 15, None, 192, 180, 1000)
TINY = Scale("scenes", "tiny", 512, 2, 8, 64, 5, 4)


@dataclass
class Session:
    """The measurements so far, and the time that is left."""

    device: torch.device
    scale: Scale
    out: Path
    models: list[str]
    end: float
    matrix_tflops: float = 0.0
    results: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self, title: str, part: Callable[[], Any], reserve: float = 0.0) -> None:
        """Run a part in the time that is left, but for `reserve` seconds; record its result or its failure."""
        left = self.end - reserve - time.monotonic()
        started = time.monotonic()
        try:
            with limit(left):
                self.results[title] = part()
            print(f"[{time.monotonic() - started:5.1f} s] {title}: {self.results[title]}", flush=True)
        except Exception as error:  # the device's minutes are short: one part's failure does not end the others
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self.failures.append(f"{title}: {reason}")
            print(f"[{time.monotonic() - started:5.1f} s] {title}: FAILED, {reason}", flush=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when the time is up, and again every 10 seconds: torch's compiler catches errors."""
    if seconds < 1:
        raise TimeoutError("no time was left")

    def stop(*_: Any) -> None:
        raise TimeoutError("the time was up")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# -- 1: equal results -------------------------------------------------------------------------------------------------


def check(session: Session, name: str) -> dict[str, float]:
    """The largest relative differences to the CPU; RuntimeError where one is beyond its tolerance."""
    torch.manual_seed(0)
    model = build(name, "scenes", "tiny")[0].eval()  # without noise and dropout, which differ between devices
    own = logits_and_gradients(model, torch.device("cpu"))
    other = logits_and_gradients(copy.deepcopy(model), session.device)
    found = {kind: max(map(relative, other[kind], own[kind])) for kind in own}
    beyond = [f"{kind} differ by {found[kind]:.1e}" for kind in found if not found[kind] <= TOLERANCE[kind]]
    if beyond:
        raise RuntimeError(" and ".join(beyond))
    return found


def logits_and_gradients(model: RISModule, device: torch.device) -> dict[str, list[Tensor]]:
    """Of four sentences about two images, on the CPU."""
    model.to(device)
    batch = on_device(model, random_batch(model, sentences=2, images=2), device)
    assert batch.masks is not None
    batch.masks[:, : model.size[0] // 2] = True
    output = model(batch)
    torch.stack([term.mean() for term in model.loss(output, batch).values()]).sum().backward()
    gradients = [parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None]
    return {"logits": [output.logits.detach().cpu()], "gradients": [torch.cat([g.flatten() for g in gradients])]}


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# -- 2, 3 and 5: speed ------------------------------------------------------------------------------------------------


def matrix_rate(session: Session) -> str:
    """TFLOP/s of a product of two large bf16 matrices."""
    side = session.scale.matrix
    matrix = torch.randn(side, side, device=session.device, dtype=torch.bfloat16)
    seconds = statistics.median(times(lambda: matrix @ matrix, session.device, session.scale.repeats))
    session.matrix_tflops = 2 * side**3 / seconds / 1e12
    return f"{session.matrix_tflops:.1f} TFLOP/s"


def measure(session: Session, name: str, precision: str, compiled: bool = False) -> dict[str, str]:
    """Measure a recipe and add its row to speed.csv; returns what is worth a line."""
    torch.manual_seed(0)
    model, _, config = build(name, session.scale.data, session.scale.name)
    if compiled:
        compile_blocks(model, session.device.type)
    plan = step_plan(config, session.scale.batch)
    row = speed(model, plan, session.device, session.scale.repeats, precision)
    row |= {"data": session.scale.data, "model": name, "scale": session.scale.name}
    row |= {"variant": variant(precision, compiled), "precision": precision, "command": "benchmarks/profiling/cuda.py"}
    row["train_gflop"] = training_gflops(skeleton(name, session.scale.data, session.scale.name), plan)
    step = plan.sentences / row["train_sentences_per_s"]
    row["matrix_share"] = row["train_gflop"] / 1000 / step / session.matrix_tflops if session.matrix_tflops else None
    rows.upsert(session.out, rows.SPEED, [row | circumstances_of(session.device)])
    shown = ("ms_1_sentence", "ms_7_sentences", "train_images_per_s", "train_sentences_per_s", "peak_memory_mib")
    return {key: rows.as_text(row[key]) for key in (*shown, "matrix_share")}


# -- 4: a training ----------------------------------------------------------------------------------------------------


def train(session: Session) -> dict[str, Any]:
    """Train VIPA on scenes, as long as its measured speed allows; returns its length and its mIoU on val."""
    scale, on_gpu = session.scale, session.device.type == "cuda"
    precision = "bf16-mixed" if on_gpu else "32-true"
    model, _, config = build("vipa", "scenes", "tiny", {"model": {"init_args": {"size": scale.size}}})
    plan = step_plan(config)
    rate = training_rate(model.to(session.device), plan, session.device, 3, precision)["train_sentences_per_s"]
    budget = max(1, int(LEARNING_SHARE * scale.seconds * rate / plan.sentences)) * plan.sentences
    root = session.out / "runs"
    options = {
        "--model.size": scale.size, "--data.image_size": scale.size, "--budget": budget, "--run.root": root,
        "--data.val_images": scale.evaluated, "--data.test_images": scale.evaluated, "--run.images": 0,
        "--data.workers": 8 if on_gpu else 0, "--trainer.precision": precision,
        "--trainer.accelerator": "gpu" if on_gpu else "cpu", "--trainer.devices": 1,
        "--trainer.max_time": time.strftime("00:%H:%M:%S", time.gmtime(scale.seconds)),
        "--trainer.enable_progress_bar": "false",
    }  # fmt: skip
    words = [str(word) for option in options.items() for word in option]
    code = riszoo(["fit", "--model", "vipa", "--data", "scenes", "--scale", "tiny", *words])
    if code:
        raise RuntimeError(f"riszoo fit ended with exit code {code}")
    folder = max(root.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    training = json.loads((folder / "run.json").read_text())["training"]
    metrics = json.loads(next(folder.glob("validate-*/metrics.json")).read_text())
    val = next(iter(metrics["splits"].values()))["protocols"]["original"]["values"]
    return {"budget": budget, "sentences": training["sentences"], "seconds": training["seconds"], "mIoU": val["mIoU"]}


# -- the script -------------------------------------------------------------------------------------------------------


def run_all(session: Session) -> None:
    """Run all parts; the training's time is reserved before it starts."""
    reserve = 1.3 * session.scale.seconds
    torch.backends.cudnn.allow_tf32 = False
    for name in session.models:
        session.run(f"check {name}", lambda name=name: check(session, name), reserve)  # type: ignore[misc]
    torch.backends.cudnn.allow_tf32 = True
    session.run("matrix product", lambda: matrix_rate(session), reserve)
    for precision in ("32-true", "bf16-mixed"):
        for name in session.models:
            session.run(f"{name} {precision}", lambda n=name, p=precision: measure(session, n, p), reserve)  # type: ignore[misc]
    session.run("training", lambda: train(session))
    for name in filter(session.models.__contains__, COMPILED):
        session.run(f"{name} compiled", lambda name=name: measure(session, name, "bf16-mixed", compiled=True))  # type: ignore[misc]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny recipes, and a training of a few steps")
    parser.add_argument("--minutes", type=float, default=8.0, help="the script ends within so many minutes")
    parser.add_argument("--models", help="comma-separated; default: all that have the scale")
    parser.add_argument("--out", type=Path, default=Path("runs/cuda"), help="folder of the results")
    given = parser.parse_args(argv)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available: give --device cpu --tiny")
    end = time.monotonic() + 60 * given.minutes - 10
    scale = TINY if given.tiny else PAPER
    models = given.models.split(",") if given.models else models_with(scale.name, scale.data)
    session = Session(device, scale, given.out, models, end)
    run_all(session)
    facts = circumstances_of(device) | {"results": session.results, "failures": session.failures}
    write_atomically(given.out / "cuda.json", json.dumps(facts, indent=1, default=str) + "\n")
    print("\n".join(["", f"{len(session.results)} parts done, {len(session.failures)} not:", *session.failures]))
    return bool(session.failures)


if __name__ == "__main__":
    raise SystemExit(main())
