"""Small trainable modules inside a frozen encoder.

Each returns zero at initialisation, so an adapted encoder starts exactly equal to the original one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Adapter(nn.Module):
    """scale * U GELU(D x): a bottleneck beside a layer (RISAM, 3.2)."""

    def __init__(self, width: int, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        self.scale = scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.up(F.gelu(self.down(x)))
        return self.scale * update


class QueryValueLoRA(nn.Module):
    """A low-rank update of the queries and values of a joint qkv projection (LoRA); zero for the keys."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.query_down = nn.Linear(width, rank, bias=False)
        self.query_up = nn.Linear(rank, width, bias=False)
        self.value_down = nn.Linear(width, rank, bias=False)
        self.value_up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.query_up.weight)
        nn.init.zeros_(self.value_up.weight)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query_up(self.query_down(x))
        value = self.value_up(self.value_down(x))
        return torch.cat([query, torch.zeros_like(query), value], dim=-1)  # (..., 3 C)


def added_names(module: nn.Module) -> set[str]:
    """Names of the adapters' parameters, which an official weight file lacks."""
    parts = [(name, part) for name, part in module.named_modules() if isinstance(part, Adapter | QueryValueLoRA)]
    return {f"{name}.{inner}" for name, part in parts for inner, _ in part.named_parameters()}


def trained_names(module: nn.Module) -> set[str]:
    """Names of the parameters that train."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}
