"""Measures riszoo's SAM image encoder beside segment_anything's: forward time, and time and memory of a training step.

    python benchmarks/sam_encoder.py --threads 2

Random weights. Each run has its own process, so that peaks do not mix. The fastest forward counts. Memory is the peak
of the process minus its memory before the step.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from functools import partial
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from riszoo.encoders.base import VisionConfig
from riszoo.encoders.sam import SIZES, build_sam

MIB = 2**20


def build(kind: str, name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    if kind != "segment_anything":
        return build_sam(
            VisionConfig(name, options={"peft": "full", "checkpoint": kind == "riszoo_checkpoint"}), (size, size)
        )
    numbers = SIZES[name]
    return ImageEncoderViT(
        img_size=size,
        embed_dim=numbers["embed_dim"],
        depth=numbers["depth"],
        num_heads=numbers["heads"],
        global_attn_indexes=numbers["global_blocks"],
        out_chans=256,
        window_size=14,
        use_rel_pos=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def resident() -> float:
    """This process's resident memory in MiB (Linux)."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - not a file to be resolved
        return int(file.read().split()[1]) * resource.getpagesize() / MIB


def last_map(output: Any) -> torch.Tensor:
    tensor: torch.Tensor = output[-1] if isinstance(output, list) else output
    return tensor


def forward(kind: str, name: str, size: int, repeats: int) -> dict[str, float]:
    encoder, x = build(kind, name, size).eval(), torch.randn(1, 3, size, size)
    wall, core = [], []
    with torch.inference_mode():
        for _ in range(repeats):
            start, start_core = time.perf_counter(), time.process_time()
            encoder(x)
            wall.append(time.perf_counter() - start)
            core.append(time.process_time() - start_core)
    return {"seconds": min(wall), "core_seconds": min(core)}


def training(kind: str, name: str, size: int) -> dict[str, float]:
    encoder, x = build(kind, name, size).train(), torch.randn(1, 3, size, size)
    base, start, start_core = resident(), time.perf_counter(), time.process_time()
    last_map(encoder(x)).square().mean().backward()
    seconds, core = time.perf_counter() - start, time.process_time() - start_core
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {"seconds": seconds, "core_seconds": core, "peak_mib": peak - base}


def in_new_process(threads: int, job: Any, *args: Any) -> dict[str, float]:
    """Run a job in a new process."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        result: dict[str, float] = pool.apply(job, args)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="sam_vit_b", choices=["sam_vit_b", "sam_vit_l", "sam_vit_h"])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--checkpoint", action="store_true", help="also measure training with activation checkpointing")
    options = parser.parse_args()
    kinds = ["segment_anything", "riszoo"]
    results: dict[str, dict[str, dict[str, float]]] = {"forward": {}, "training": {}}
    for kind in kinds:
        results["forward"][kind] = in_new_process(
            options.threads, forward, kind, options.name, options.size, options.repeats
        )
    for kind in [*kinds, "riszoo_checkpoint"][: 3 if options.checkpoint else 2]:
        results["training"][kind] = in_new_process(options.threads, training, kind, options.name, options.size)
    for step, of_kind in results.items():
        for kind, numbers in of_kind.items():
            ratios = {key: round(value / of_kind["segment_anything"][key], 3) for key, value in numbers.items()}
            print(
                json.dumps(
                    {"step": step, "encoder": kind, **{k: round(v, 2) for k, v in numbers.items()}, "ratio": ratios}
                )
            )


if __name__ == "__main__":
    main()
