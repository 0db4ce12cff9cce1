"""Names of weights in another code base, translated."""

from __future__ import annotations

import torch

from riszoo.translation import Names


def test_a_name_that_another_tensor_has_already_is_unknown() -> None:
    names = Names(rules=((r"(old|new)\.", "vision."),), ignored=("step",))
    state = {
        "old.weight": torch.zeros(1),
        "new.weight": torch.ones(1),
        "old.step": torch.ones(1),
        "head": torch.ones(1),
    }
    found = names.translate(state)
    assert found.state == {"vision.weight": torch.zeros(1)}
    assert (found.ignored, found.unknown) == (["old.step"], ["new.weight", "head"])
