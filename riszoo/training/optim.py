"""The optimizer, its parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from riszoo.errors import UserError
from riszoo.layers import LearnedToken

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from riszoo.model import RISModule

NOT_DECAYED = ("relative_position", "rel_pos", "pos_embed", "position_embedding", "cls_token")
"""Parts of the names of other libraries' position tables and tokens, which weight decay leaves out."""


@dataclass
class Optim:
    """Options of the training.

    lr, lr_vision, lr_text  learning rates of the new modules and the two encoders; default of the last two: `lr`
    full_rate_until         fraction of the training in which the encoders are trained at `lr` too
    weight_decay            of the parameters that `decayed` names
    decayed                 matrices, without position tables; or those of the model's own rule, as published
    amsgrad                 divide by the largest second moment so far (Reddi et al. 2018)
    schedule                poly: (1 - t)^power; multistep: x gamma at each milestone; cosine: to zero; constant
    milestones              fractions of the training, between 0 and 1
    warmup                  steps of linear warm-up; below 1, a fraction of the training
    ema                     decay of an exponential average of the weights, which is validated and saved; 0: none
    """

    lr: float = 1e-4
    lr_vision: float | None = None
    lr_text: float | None = None
    full_rate_until: float = 0.0
    weight_decay: float = 0.01
    decayed: Literal["matrices", "published"] = "matrices"
    betas: tuple[float, float] = (0.9, 0.999)
    amsgrad: bool = False
    schedule: Literal["poly", "multistep", "cosine", "constant"] = "poly"
    power: float = 0.9
    milestones: list[float] = field(default_factory=lambda: [0.667, 0.778, 0.889])
    gamma: float = 0.1
    warmup: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        """Report values that no training can use."""
        for name in ("lr", "lr_vision", "lr_text", "full_rate_until", "weight_decay", "warmup"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"--model.optim.{name} {value}: give a finite number of at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"--model.optim.betas {list(self.betas)}: give two numbers from 0 up to, but not, 1")
        if not 0 <= self.ema < 1:
            raise UserError(f"--model.optim.ema {self.ema}: give a number from 0 up to, but not including, 1")


FUSED = ("cpu", "cuda")
"""Devices on which one kernel updates a parameter: on a CPU in a sixth of the time."""


PLAIN = "-plain"
"""The end of the name of a group of parameters without weight decay."""


def learning_rates(optim: Optim) -> dict[str, float]:
    """The learning rate of each part of a model."""
    return {
        "vision": optim.lr if optim.lr_vision is None else optim.lr_vision,
        "text": optim.lr if optim.lr_text is None else optim.lr_text,
        "new": optim.lr,
    }


def parameter_groups(module: RISModule, optim: Optim) -> list[dict[str, object]]:
    """Trainable parameters by learning rate (vision, text, new) and weight decay, without empty groups."""
    rates = learning_rates(optim)
    decays = module.decays if optim.decayed == "published" else partial(is_matrix, tokens=module.learned_tokens)
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {group: [] for group in product(rates, (True, False))}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[module.learning_rate_group(name), decays(name, parameter)].append(parameter)
    return [
        {"params": parameters, "lr": rates[part], "weight_decay": optim.weight_decay if decay else 0.0, "name": name}
        for (part, decay), parameters in groups.items()
        if parameters
        for name in [part if decay else part + PLAIN]
    ]


def is_matrix(name: str, parameter: nn.Parameter, tokens: Collection[str] = ()) -> bool:
    """Whether weight decay usually applies: to matrices except position tables and learned tokens (`layers`).

    `tokens` names learned tokens that a sharded model has as plain parameters.
    """
    excluded = isinstance(parameter, LearnedToken) or name in tokens or any(word in name for word in NOT_DECAYED)
    return parameter.ndim >= 2 and not excluded


def factor(optim: Optim, step: int, total: int) -> float:
    """The factor of the learning rates at a step of a training of `total` steps."""
    warmup = optim.warmup if optim.warmup >= 1 else optim.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    if optim.schedule == "poly":
        return float((1 - progress) ** optim.power)
    if optim.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if optim.schedule == "multistep":
        return float(optim.gamma ** sum(step >= milestone * total for milestone in optim.milestones))
    return 1.0


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """An exponential average over a window that grows, so that early validations do not see the initial weights.

    Updates the averages of one dtype in place, by the number of averages so far.
    """

    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        count = torch.as_tensor(count)
        share = 1 - torch.clamp((1 + count) / (10 + count), max=decay)
        for average, weight in zip(averages, weights, strict=True):
            if average.is_floating_point():
                average.lerp_(weight, share.to(average.dtype))  # frozen weights stay bit-equal
            else:  # a counter among the buffers
                average.copy_(weight)

    return update


def training_steps(trainer: Trainer) -> int | float:
    """The optimiser steps of the whole training; infinite without a limit.

    To count an epoch's batches, Lightning makes the loader before it restores at which step a training continues: the
    loader is then made again.
    """
    steps = trainer.estimated_stepping_batches
    if trainer.ckpt_path is not None:
        trainer.fit_loop._combined_loader = None
    return steps


def apply_options(optimizer: torch.optim.Optimizer, schedule: LambdaLR, optim: Optim) -> None:
    """Give a training that continues its current options; its checkpoint has restored the earlier ones.

    Groups of a subclass's own optimizer, which have other names, keep theirs.
    """
    rates = learning_rates(optim)
    for index, group in enumerate(optimizer.param_groups):
        part = str(group.get("name")).removesuffix(PLAIN)
        if part not in rates:
            continue
        schedule.base_lrs[index] = group["initial_lr"] = rates[part]
        group["lr"] = rates[part] * schedule.lr_lambdas[index](schedule.last_epoch)
        group["weight_decay"] = optim.weight_decay if part == group["name"] else 0.0
        group["betas"], group["amsgrad"] = optim.betas, optim.amsgrad
    if optim.amsgrad:
        for state in optimizer.state.values():
            state.setdefault("max_exp_avg_sq", state["exp_avg_sq"].clone())


def make_optimizer(module: RISModule, optim: Optim, total_steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW over the parameter groups, with its schedule per step."""
    groups = parameter_groups(module, optim)
    fused = all(parameter.device.type in FUSED for parameter in module.parameters())
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, amsgrad=optim.amsgrad, fused=fused)
    if fused:
        # it could undo the scaling of gradients inside its step; Lightning then refuses to clip them in mixed precision
        optimizer._step_supports_amp_scaling = False
    return optimizer, LambdaLR(
        optimizer, [group_factor(optim, group["lr"], total_steps) for group in optimizer.param_groups]
    )


def group_factor(optim: Optim, rate: float, total: int) -> Callable[[int], float]:
    """The factor of a parameter group's own rate at each step."""
    early = optim.lr / rate if rate else 1.0
    return lambda step: factor(optim, step, total) * (early if step < optim.full_rate_until * total else 1.0)
