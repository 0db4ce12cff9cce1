"""What further sentences about one image cost: a forward pass with many against one with a single sentence.

    python benchmarks/sentences.py --model risam --scale paper --size 1024

Random weights, one image, the recipe's own encoders (a text encoder of the hub is replaced by one of its size, since
nothing is downloaded). Both are measured in turns in one process, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Sample
from riszoo.build import instantiate
from riszoo.encoders.base import TextConfig
from riszoo.encoders.text import takes_vocabulary
from riszoo.model import RISModule
from riszoo.recipes import Config

WORDS = ["the", "man", "woman", "in", "red", "blue", "shirt", "on", "left", "right", "side", "of", "table"]
STAND_INS = {"clip": "clip_text_model", "bert": "bert"}


def build(model: str, scale: str, size: int | None) -> RISModule:
    data = "scenes" if scale == "tiny" else "refcoco"
    section = recipes.resolve(model, data, scale)["model"]
    init: Config = section["init_args"]
    init["vision"]["weights"] = "none"
    init["text"] = random_text(init["text"])
    if size is not None:
        init["size"] = size
    torch.manual_seed(0)
    return instantiate(RISModule, section).eval()  # type: ignore[type-abstract]


def random_text(text: Config) -> Config:
    """The same kind of encoder without weights, over a handful of words."""
    kind = next((stand for name, stand in STAND_INS.items() if name in text["name"]), text["name"])
    text = {**text, "name": kind, "weights": "none"}
    return {**text, "vocabulary": WORDS} if takes_vocabulary(TextConfig(**text)) else text


def question(model: RISModule, sentences: int) -> Batch:
    """One image that fills the frame, and sentences of eight words."""
    h, w = model.size
    pixels = torch.randint(0, 256, (1, 3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    texts = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(8)) for i in range(sentences)]
    samples = [Sample(str(i), i, "random", "val", "one", str(i), text) for i, text in enumerate(texts)]
    geometry = Geometry.fit(model.geometry, (h, w), (h, w))
    index = torch.zeros(sentences, dtype=torch.int64)
    return Batch(pixels, torch.tensor([[0, 0, h, w]]), ["one"], [geometry], texts, index, samples, index.bool())


def seconds(model: RISModule, batch: Batch) -> tuple[float, float]:
    """Wall-clock and processor seconds of one forward pass."""
    start, start_core = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        model(batch)
    return time.perf_counter() - start, time.process_time() - start_core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="risam", help="the name of a recipe")
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--size", type=int, help="side of the frame; left out, the recipe's")
    parser.add_argument("--sentences", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = build(options.model, options.scale, options.size)
    many, one = question(model, options.sentences), question(model, 1)
    seconds(model, one)  # warms caches up
    rounds = [(seconds(model, many), seconds(model, one)) for _ in range(options.repeats)]
    best = [[min(r[which][clock] for r in rounds) for which in (0, 1)] for clock in (0, 1)]
    print(
        json.dumps(
            {
                "model": options.model, "scale": options.scale, "size": list(model.size),
                "sentences": options.sentences, "threads": options.threads,
                "seconds": [round(s, 3) for s in best[0]], "ratio": round(best[0][0] / best[0][1], 3),
                "core_seconds": [round(s, 3) for s in best[1]], "core_ratio": round(best[1][0] / best[1][1], 3),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
