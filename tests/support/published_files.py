"""What is tested of the checkpoint files of every paper's authors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import riszoo
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.training.checkpoints import from_checkpoint
from riszoo.translation import State, Translation


class Payload:
    """An object whose unpickling would write the file `executed`."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def assert_every_tensor_is_used(published: ModuleType, content: dict[str, Any], model: RISModule) -> Translation:
    """The translation of a file, after a check that its tensors are the model's in name, shape and type."""
    assert published.recognises(content)
    translation: Translation = published.translate(content)
    found, expected = (
        {name: (value.shape, value.dtype) for name, value in state.items()}
        for state in (translation.state, model.state_dict())
    )
    assert found == expected
    assert translation.unknown == []
    return translation


def assert_same_weights(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def assert_same_masks(model: str, paths: Iterable[Path], sentences: list[str]) -> None:
    """Compare what the models in two files segment in an image of noise."""
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    predictions = [riszoo.load(model, path).segment(image, sentences) for path in paths]
    for one, other in zip(*predictions, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert one.score == other.score


def assert_refused(path: Path, message: str) -> None:
    """Check that a file is refused in one sentence, and that nothing in it was executed."""
    with pytest.raises(UserError, match=message) as error:
        from_checkpoint(path)
    assert len(str(error.value)) < 400
    assert not Path("executed").exists()


def assert_truncation_is_reported(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])
    assert_refused(path, "is truncated or damaged")
