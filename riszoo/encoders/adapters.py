"""Small trainable modules inside a frozen encoder.

Each returns zero at initialisation, so an adapted encoder starts exactly equal to the original one.
"""

from __future__ import annotations

from typing import Any

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


class AdaptedTextLayer(nn.Module):
    """A layer of transformers' CLIP with an adapter beside its feed-forward part; its modules keep their names."""

    def __init__(self, layer: Any, adapter: nn.Module) -> None:
        super().__init__()
        self.layer_norm1, self.self_attn = layer.layer_norm1, layer.self_attn
        self.layer_norm2, self.mlp = layer.layer_norm2, layer.mlp
        self.adapter = adapter

    def forward(self, states: Tensor, attention_mask: Tensor | None, **options: Any) -> Tensor:
        """(N, L, C) and the causal mask (N, 1, L, L), None where pads count like words -> (N, L, C)"""
        attended, _ = self.self_attn(self.layer_norm1(states), attention_mask=attention_mask, **options)
        states = states + attended
        valid = None if attention_mask is None else attention_mask[:, 0, -1]  # the last token attends to all that count
        updated: Tensor = states + self.mlp(self.layer_norm2(states)) + self.adapter(states, valid)
        return updated


def added_names(module: nn.Module) -> set[str]:
    """Names of the adapters' parameters, which an official weight file lacks."""
    parts = [(name, part) for name, part in module.named_modules() if isinstance(part, Adapter | QueryValueLoRA)]
    return {f"{name}.{inner}" for name, part in parts for inner, _ in part.named_parameters()}
