"""A few of the kills of `make chaos`."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.chaos import KINDS, Chaos


def test_a_training_killed_in_every_way_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, seed=0)
    chaos.run(len(KINDS))
    assert chaos.finished
    assert set(chaos.killed) == set(KINDS)
