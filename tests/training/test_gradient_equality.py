"""The gradients of a step do not depend on how its sentences are divided among devices and batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.one_step import TOTAL, gradients
from tests.support.two_processes import Run, two_processes

MODELS: dict[str, dict[str, Any]] = {
    "lts": {},
    "vipa": {"no_target": {"enabled": True}},
    "risam": {"no_target": {"kind": "head"}},
    "lavt": {},
}
"""The papers' models and LAVT, with every term of their losses."""


@pytest.fixture(scope="module")
def both() -> Iterator[Run]:
    with two_processes(["tests.support.one_step"]) as run:
        yield run


@pytest.mark.parametrize("name", MODELS)
def test_two_devices_and_two_batches_give_the_gradients_of_one(name: str, both: Run) -> None:
    over = {"model": {"init_args": MODELS[name]}}
    whole = gradients(name, over, devices=1, batch=TOTAL)
    assert all(grad is not None for grad in whole.values()), "every trained parameter is used"
    divided = [gradients(name, over, 1, TOTAL // 2), *both(gradients, name, over, 2, TOTAL // 2)]
    for found in divided:
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)
