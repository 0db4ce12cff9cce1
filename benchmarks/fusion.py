"""What VIPA's fusions cost beside the bare encoders with the specification's decoder head, at the paper's scale.

    python benchmarks/fusion.py            operations of forward and backward, counted without computing anything
    python benchmarks/fusion.py --time     seconds of one core as well: Swin-B and BERT-base, random weights, 480 px
    python benchmarks/fusion.py --adaptive what retrieval by share of relevance costs beside a fixed number of tokens

The bare network is the image encoder, the text encoder and the top-down head with its mask logits: no fusion, no
expression, no attention in the decoder. All rows of one call are measured in the same run, so compare their ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from riszoo import recipes
from riszoo.batch import Features, Tokens, Words
from riszoo.build import instantiate
from riszoo.model import RISModule
from riszoo.models.vipa.expression import Veg, VisualExpressionGenerator
from riszoo.models.vipa.model import VIPA

BERT = 30522
SENTENCES = 7


def model_of(kind: str) -> VIPA:
    """The paper's recipe with random weights and a vocabulary of BERT's size."""
    section = recipes.resolve("vipa", "refcoco")["model"]
    words = [str(i) for i in range(BERT - 4)]
    over = {"vision": {"weights": "none"}, "fusion": {"kind": kind}}
    section = recipes.merge(section, {"init_args": over})
    section["init_args"]["text"] = {"name": "bert", "length": 21, "vocabulary": words}
    model = instantiate(RISModule, section)  # type: ignore[type-abstract]
    assert isinstance(model, VIPA)
    return model.train()


class Bare(nn.Module):
    """Both encoders and the head: what every one of these networks has."""

    def __init__(self) -> None:
        super().__init__()
        self.model = model_of("none")
        self.model.decoder.layers = nn.ModuleList()

    def forward(self, images: Tensor, valid: Tensor, index: Tensor, tokens: Tokens) -> Tensor:
        model = self.model
        visual = model.encode_image(images, valid).per_sentence(index)
        words = model.encode_text(tokens).states.mean()
        cells = torch.ones(len(index), 1, dtype=torch.bool, device=images.device)
        logits: Tensor = model.decoder(visual.maps, cells, words, cells)
        return logits + words


class Whole(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.model = model_of(kind)

    def forward(self, images: Tensor, valid: Tensor, index: Tensor, tokens: Tokens) -> Tensor:
        features: Features = self.model.encode_image(images, valid)
        return self.model.decode(features, index, self.model.encode_text(tokens)).logits


def step(model: nn.Module, sentences: int, device: str) -> None:
    """Forward and backward of so many sentences about one image."""
    images = torch.zeros(1, 3, 480, 480, dtype=torch.uint8, device=device)
    valid = torch.tensor([[0, 0, 480, 480]], device=device)
    mask = torch.ones(sentences, 21, dtype=torch.bool, device=device)
    tokens = Tokens(torch.full((sentences, 21), 5, device=device), mask, [[]] * sentences)
    model(images, valid, torch.zeros(sentences, dtype=torch.long, device=device), tokens).sum().backward()


def operations(model: nn.Module, sentences: int) -> float:
    with FlopCounterMode(display=False) as counter:
        step(model, sentences, "meta")
    return counter.get_total_flops() / 1e9


def seconds(model: nn.Module, sentences: int) -> float:
    step(model, sentences, "cpu")
    start = time.process_time()
    step(model, sentences, "cpu")
    return time.process_time() - start


def generator(ratio: float | Literal["adaptive"]) -> VisualExpressionGenerator:
    """The paper's, on Swin-B's coarsest map and BERT-base's words."""
    return VisualExpressionGenerator(Veg(ratio=ratio), channels=1024, words=768, length=21, width=512, heads=8).train()


def express(veg: VisualExpressionGenerator, whole: bool) -> float:
    """Seconds of a forward and backward pass, 8 sentences of 21 cues over 225 tokens: of step 1 alone, or of it all."""
    mask = torch.ones(8, 21, dtype=torch.bool)
    words = Words(torch.randn(8, 21, 768), mask, torch.zeros(8, dtype=torch.long), [[]] * 8)
    grid, cells = torch.randn(8, 1024, 15, 15), torch.ones(8, 225, dtype=torch.bool)
    cues, tokens = torch.randn(8, 21, 512, requires_grad=True), torch.randn(8, 225, 512, requires_grad=True)
    start = time.process_time()
    if whole:
        veg(grid, words, words, cells).states.sum().backward()
    else:
        veg.step1.retrieve(cues, tokens, words, cells).states.sum().backward()
    return time.process_time() - start


def compare_retrievals(runs: int = 60) -> None:
    """Turn by turn, so that whatever else the machine does falls on both."""
    ways = [generator(0.3), generator("adaptive")]
    for name, whole in (("step 1", False), ("the generator", True)):
        spent = [[express(way, whole) for way in ways] for _ in range(runs)][3:]
        fixed, adaptive = (statistics.median(column) for column in zip(*spent, strict=True))
        print(f"{name:14} fixed {1e3 * fixed:.1f} ms, adaptive {1e3 * adaptive:.1f} ms, ratio {adaptive / fixed:.3f}")


def compare_fusions(timed: bool) -> None:
    measure, unit, device = (seconds, "s", "cpu") if timed else (operations, "GFLOP", "meta")
    with torch.device(device):
        bare = measure(Bare(), 1)
        print(f"bare   1 sentence {bare:10.1f} {unit}")
        for kind in ("none", "late", "early"):
            whole = Whole(kind)
            one, many = measure(whole, 1), measure(whole, SENTENCES)
            share = many / (SENTENCES * one)
            ratios = f"{one / bare:.3f} of bare; {SENTENCES} sentences {share:.3f} of single"
            print(f"{kind:6} 1 sentence {one:10.1f} {unit}, {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", action="store_true", help="time it too")
    parser.add_argument("--adaptive", action="store_true", help="time the two retrievals instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.adaptive:
        compare_retrievals()
    else:
        compare_fusions(options.time)


if __name__ == "__main__":
    main()
