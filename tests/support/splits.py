"""Splits of the small trees, opened as a run opens them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, open_split
from riszoo.data.record import Split

ANY, ONCE = GroundTruth(), GroundTruth(overlap="once")


def opened(name: str, split: str, root: Path | None, **options: Any) -> Any:
    """The split of a set by name."""
    return opened_with_warnings(name, split, root, **options)[0]


def opened_with_warnings(name: str, split: str, root: Path | None, **options: Any) -> tuple[Any, list[str]]:
    """The split, and what was warned of while it was opened."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = open_split(get_reader(name), split, Options(root=root and str(root), **options))
    return found, [str(one.message) for one in caught]


def areas(split: Split, ground_truth: GroundTruth = ANY) -> dict[str, int]:
    """The area of each target's mask by the target's id."""
    return {
        t.target_id: int(t.segmentation.draw(ground_truth).sum()) for n in range(len(split)) for t in split[n].targets
    }
