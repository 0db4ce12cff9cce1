"""What VIPA's fusions cost beside the bare encoders with the specification's decoder head, at the paper's scale.

    python benchmarks/fusion.py            operations of forward and backward, counted without computing anything
    python benchmarks/fusion.py --time     seconds of one core as well: Swin-B and BERT-base, random weights, 480 px

The bare network is the picture encoder, the text encoder and the top-down head with its mask logits: no fusion, no
expression, no attention in the decoder. All rows of one call are measured in the same run, so compare their ratios.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from riszoo import recipes
from riszoo.batch import Features, Tokens
from riszoo.build import instantiate
from riszoo.model import RISModule
from riszoo.models.vipa import VIPA

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
        seen = model.encode_image(images, valid).per_sentence(index)
        words = model.encode_text(tokens).states.mean()
        cells = torch.ones(len(index), 1, dtype=torch.bool, device=images.device)
        logits: Tensor = model.decoder(seen.maps, cells, words, cells)
        return logits + words


class Whole(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.model = model_of(kind)

    def forward(self, images: Tensor, valid: Tensor, index: Tensor, tokens: Tokens) -> Tensor:
        features: Features = self.model.encode_image(images, valid)
        return self.model.decode(features, index, self.model.encode_text(tokens)).logits


def step(model: nn.Module, sentences: int, device: str) -> None:
    """Forward and backward of so many sentences about one picture."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", action="store_true", help="time it too")
    timed = parser.parse_args().time
    torch.set_num_threads(1)
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


if __name__ == "__main__":
    main()
