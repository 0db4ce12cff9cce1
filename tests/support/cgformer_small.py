"""The official CGFormer at a small size, with the tensors that its authors' code gave for it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from riszoo import recipes
from riszoo.model import RISModule
from riszoo.models.cgformer.published import translate
from tests.support import lavt_small, official
from tests.support.lavt_small import Reference, batch

__all__ = ["Replay", "batch", "build", "reference", "section"]


class Replay(nn.Module):
    """In place of the decoder's noise: the given noise of each grouping, in the order of the levels."""

    def __init__(self, noise: list[Tensor]) -> None:
        super().__init__()
        self.noise = noise
        self.level = 0

    def forward(self, scores: Tensor) -> Tensor:
        noise = self.noise[self.level % len(self.noise)]
        self.level += 1
        return noise.to(scores.dtype)


def reference() -> Reference:
    return lavt_small.reference("cgformer_small")


def section(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the fixture's model."""
    options = {
        **lavt_small.encoders(config),
        "fusion": {"heads": config["fusion_heads"]},
        "query": {"tokens": config["num_token"], "width": config["token_dim"]},
    }
    return {"class_path": "riszoo.models.cgformer.model.CGFormer", "init_args": options}


def build(source: Reference, *, noisy: bool = True, **over: Any) -> RISModule:
    """The fixture's model with its weights, in evaluation mode; `noisy` with the fixture's noise, otherwise without."""
    over = over if noisy else recipes.merge({"group": {"noise": "never"}}, over)
    model = official.build(section(source.config), translate({"model_state_dict": source.weights}).state, **over)
    if noisy:
        decoder: Any = model.decoder
        decoder.noise = Replay([source.tensors[f"input.noise.{level}"] for level in (1, 2, 3)])
    return model
