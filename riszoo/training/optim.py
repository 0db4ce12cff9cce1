"""Optimiser groups and learning-rate schedules, as a recipe writes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

TABLES = ("relative_position", "rel_pos", "pos_embed", "position_embeddings", "cls_token")
"""Tables of positions are matrices by shape only, and so is a learned `query`: they are not decayed."""


@dataclass
class Optim:
    """How a recipe trains.

    lr, lr_vision, lr_text  of the new modules and of the two encoders (left out: as `lr`)
    weight_decay            on matrices only
    schedule                poly: (1 - t)^power; multistep: x gamma at each milestone; cosine: to zero; constant
    milestones              shares of the training, between 0 and 1
    warmup                  steps of linear rise; below 1, a share of the training
    ema                     decay of averaged weights, which are then the ones validated and saved; 0 for none
    """

    lr: float = 1e-4
    lr_vision: float | None = None
    lr_text: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["poly", "multistep", "cosine", "constant"] = "poly"
    power: float = 0.9
    milestones: list[float] = field(default_factory=lambda: [0.667, 0.778, 0.889])
    gamma: float = 0.1
    warmup: float = 0.0
    ema: float = 0.0


def parameter_groups(module: nn.Module, optim: Optim) -> list[dict[str, object]]:
    """Trainable parameters by learning rate (vision, text, new) and by decay; empty groups are left out."""
    rates = {
        "vision": optim.lr if optim.lr_vision is None else optim.lr_vision,
        "text": optim.lr if optim.lr_text is None else optim.lr_text,
        "new": optim.lr,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {(part, d): [] for part in rates for d in (True, False)}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            part = name.split(".", 1)[0]
            groups[part if part in rates else "new", _decays(name, parameter)].append(parameter)
    return [
        {"params": found, "lr": rates[part], "weight_decay": optim.weight_decay if decay else 0.0, "name": name}
        for (part, decay), found in groups.items()
        if found
        for name in [part if decay else f"{part}-plain"]
    ]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    table = any(word in name for word in TABLES) or name.rpartition(".")[2] in ("query", "queries")
    return parameter.ndim >= 2 and not table


def factor(optim: Optim, step: int, total: int) -> float:
    """What the learning rates are multiplied by at a step of a training of `total` steps."""
    warmup = optim.warmup if optim.warmup >= 1 else optim.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = min(1.0, (step - warmup) / max(1.0, total - warmup))
    if optim.schedule == "poly":
        return float((1 - share) ** optim.power)
    if optim.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    if optim.schedule == "multistep":
        return float(optim.gamma ** sum(step >= milestone * total for milestone in optim.milestones))
    return 1.0


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential average that starts short, so that early validations are not of the initial weights."""

    def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        kept = torch.clamp((1 + torch.as_tensor(count)) / (10 + torch.as_tensor(count)), max=decay)
        return averaged + (1 - kept) * (current - averaged)  # what does not train stays as it is, to the bit

    return average


def make_optimizer(module: nn.Module, optim: Optim, total_steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW over the groups, and its schedule per step."""
    optimizer = torch.optim.AdamW(parameter_groups(module, optim), lr=optim.lr, betas=optim.betas)
    return optimizer, LambdaLR(optimizer, lambda step: factor(optim, step, total_steps))
