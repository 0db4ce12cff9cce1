"""Optimiser groups and schedules, as recipes name them."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from riszoo.layers import LearnedToken
from riszoo.model import RISModule
from riszoo.training.optim import Optim, apply_options, factor, make_optimizer, moving_average, parameter_groups


class Model(nn.Module):
    learned_tokens: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.vision.relative_position_bias_table = nn.Parameter(nn.Linear(2, 2).weight.detach())
        self.text = nn.ModuleDict({"query": nn.Linear(4, 4)})
        self.head = nn.Linear(4, 4)
        self.learned = LearnedToken(nn.Linear(2, 2).weight.detach())
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    learning_rate_group = RISModule.learning_rate_group


def test_groups_by_rate_and_decay() -> None:
    groups = {g["name"]: g for g in parameter_groups(Model(), Optim(lr=1.0, lr_vision=0.1, weight_decay=0.5))}
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "vision": (0.1, 0.5),
        "vision-plain": (0.1, 0.0),
        "text": (1.0, 0.5),
        "text-plain": (1.0, 0.0),
        "new": (1.0, 0.5),
        "new-plain": (1.0, 0.0),
    }
    sizes = {name: len(g["params"]) for name, g in groups.items()}
    assert sizes == {"vision": 1, "vision-plain": 4, "text": 1, "text-plain": 1, "new": 1, "new-plain": 2}


def test_a_learned_token_is_not_decayed_in_a_copy_either() -> None:
    copied = copy.deepcopy(Model())
    assert isinstance(copied.learned, LearnedToken)
    plain = {id(p) for group in parameter_groups(copied, Optim()) if not group["weight_decay"] for p in group["params"]}
    assert id(copied.learned) in plain


def test_poly() -> None:
    optim = Optim(schedule="poly", power=0.9)
    assert factor(optim, 0, 100) == 1
    assert factor(optim, 50, 100) == pytest.approx(0.5**0.9)
    assert factor(optim, 100, 100) == 0


def test_multistep_counts_shares_of_the_training() -> None:
    optim = Optim(schedule="multistep", milestones=[0.5, 0.75], gamma=0.1)
    assert [factor(optim, step, 100) for step in (0, 49, 50, 74, 75)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("warmup", [10, 0.1])
def test_cosine_with_warm_up(warmup: float) -> None:
    optim = Optim(schedule="cosine", warmup=warmup)
    rising = [factor(optim, step, 100) for step in range(10)]
    assert rising == pytest.approx([(s + 1) / 11 for s in range(10)])
    assert factor(optim, 10, 100) == 1
    assert factor(optim, 55, 100) == pytest.approx(0.5)
    assert factor(optim, 100, 100) == pytest.approx(0, abs=1e-12)


def test_the_schedule_moves_every_group() -> None:
    optimizer, schedule = make_optimizer(Model(), Optim(lr=1.0, lr_vision=0.1, schedule="poly", power=1.0), 10)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert {round(g["lr"], 6) for g in optimizer.param_groups} == {0.5, 0.05}


def test_groups_of_another_optimizer_keep_their_options() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2))], lr=0.5, weight_decay=0.25)
    apply_options(optimizer, LambdaLR(optimizer, lambda step: 1.0), Optim(lr=1e-3, weight_decay=0.01))
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.5, 0.25)]


def test_a_fused_optimizer_lets_gradients_be_clipped_in_mixed_precision() -> None:
    model = Model()
    optimizer, _ = make_optimizer(model, Optim(), 10)
    assert optimizer.defaults["fused"]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    MixedPrecision("bf16-mixed", "cpu").clip_gradients(optimizer, 1.0)
    trained = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
    assert sum(float(gradient.square().sum()) for gradient in trained) == pytest.approx(1.0, rel=1e-3)


def averaged(average: Tensor, weight: Tensor, count: int) -> Tensor:
    """The average of one weight after its next update."""
    updated = average.clone()
    moving_average(0.99)([updated], [weight], torch.tensor(count))
    return updated


def test_the_average_of_equal_weights_is_bit_equal_and_counters_are_kept() -> None:
    weights = torch.randn(1000)
    assert all(torch.equal(averaged(weights, weights.clone(), count), weights) for count in (0, 5, 1000))
    assert averaged(torch.tensor(3), torch.tensor(8), 5) == 8


def test_the_average_starts_short_and_ends_long() -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    assert averaged(zero, one, 0).item() == pytest.approx(0.9)
    assert averaged(zero, one, 80).item() == pytest.approx(0.1)
    assert averaged(zero, one, 10_000).item() == pytest.approx(0.01)
