"""Small trained parts inside a frozen encoder, and the part of a state that training changes.

Every part here is zero at the start, so an adapted encoder begins equal to the plain one, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from riszoo.errors import UserError


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
        risen: Tensor = self.up(F.gelu(self.down(x)))
        return self.scale * risen


class QueryValueLoRA(nn.Module):
    """A low-rank update of the query and the value of a joint qkv projection; the key's stays zero."""

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
    """The names of the parameters that adaptation put in; a file of plain weights lacks them."""
    parts = [(name, part) for name, part in module.named_modules() if isinstance(part, Adapter | QueryValueLoRA)]
    return {f"{name}.{inner}" for name, part in parts for inner, _ in part.named_parameters()}


def trained_names(module: nn.Module) -> set[str]:
    """The names of the parameters that training changes."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The state without frozen parameters: what a checkpoint must hold. Buffers stay, since training moves them."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def load_trained_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a `trained_state` back: frozen parameters may be absent, anything else absent or foreign is an error."""
    expected = trained_state(module).keys()
    missing, foreign = sorted(expected - state.keys()), sorted(state.keys() - module.state_dict().keys())
    if missing or foreign:
        raise UserError(
            f"the trained part of the state does not fit the model (missing: {missing[:3]}, unknown: {foreign[:3]}); "
            "build the model with the options it was trained with"
        )
    module.load_state_dict(state, strict=False)
