"""Names of weights in another code base, translated to riszoo's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
Replacement = str | Callable[[re.Match[str]], str]


@dataclass
class Translation:
    """A state dict under riszoo's names.

    ignored  names of the file that carry no weight: constants, or parts without effect
    unknown  names of the file that no rule mentions, or that become the name of another tensor
    """

    state: State = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def add(self, part: Translation, new: str, official: str) -> None:
        """Add a part of the model: `new` is the prefix of its names in riszoo, `official` that in the file."""
        self.state |= {f"{new}{name}": tensor for name, tensor in part.state.items()}
        self.ignored += [f"{official}{name}" for name in part.ignored]
        self.unknown += [f"{official}{name}" for name in part.unknown]


@dataclass(frozen=True)
class Names:
    """Rules from names to names.

    rules    pattern and replacement; the first pattern that matches the start of a name applies
    ignored  patterns found anywhere in the names of tensors that are left out
    """

    rules: tuple[tuple[str, Replacement], ...]
    ignored: tuple[str, ...] = ()

    def translate(self, state: State) -> Translation:
        """The tensors under their new names; nothing is lost without being named.

        Of several names that become the same one, all but the first are unknown.
        """
        result = Translation()
        for name, tensor in state.items():
            new = self.new_name(name)
            if any(re.search(pattern, name) for pattern in self.ignored):
                result.ignored.append(name)
            elif new is None or new in result.state:
                result.unknown.append(name)
            else:
                result.state[new] = tensor
        return result

    def new_name(self, name: str) -> str | None:
        """riszoo's name of a tensor; None where no rule applies."""
        for pattern, replacement in self.rules:
            new, count = re.subn(rf"\A{pattern}", replacement, name, count=1)
            if count:
                return new
        return None


def without_prefix(state: State, prefix: str = "module.") -> State:
    """The state without a prefix that every name has, as DistributedDataParallel adds one."""
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def state_in(content: Mapping[str, Any], key: str) -> State:
    """The tensors under a key of a file, without the prefix of distributed training; none if it has no state there."""
    state = content.get(key)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        return {}
    return without_prefix(state)
