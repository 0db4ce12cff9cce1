"""VIPA small enough to be built in every test, and a custom vision encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from riszoo.encoders.base import VisionEncoder
from riszoo.model import RISModule
from tests.support.zoo import Entry

SMALL = {
    "class_path": "riszoo.models.vipa.model.VIPA",
    "init_args": {
        "size": 64,
        "vision": {"name": "resnet18", "options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}},
        "text": {
            "name": "bert",
            "options": {
                "hidden_size": 32,
                "num_hidden_layers": 5,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
        },
        "fusion": {"layers": 2, "head_width": 16, "min_width": 16},
        "veg": {"stride": 8},
        "decoder": {"layers": 1, "width": 16},
        "width": 32,
        "heads": 2,
    },
}


class ToyCNN(VisionEncoder):
    """Unusual strides, and a step between stages that does not change the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = [6, 10], [2, 8]
        self.first = nn.Conv2d(3, 6, 3, 2, 1)
        self.second = nn.Conv2d(6, 10, 5, 4, 2)

    def stem(self, x: Tensor) -> Tensor:
        return self.first(x)

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        return (self.second(x) if stage else x).relu()


def small(**over: Any) -> RISModule:
    return Entry("vipa", SMALL).build(**over)
