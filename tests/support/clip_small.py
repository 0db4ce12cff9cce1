"""CLIP at a small size: OpenAI's file of merges with few of its merges, and the sentences they were taken from."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from riszoo.encoders.clip.tokenizer import MERGES, byte_letters
from tests.support.official import FIXTURES

Merge = tuple[str, str]


@dataclass
class Goldens:
    """Sentences with OpenAI's ids, and merges that give these ids.

    Merges that no sentence needs are replaced by some of control characters, so that all others keep their ids.
    """

    rows: list[tuple[str, list[int]]]
    length: int
    merges: list[Merge]


def goldens() -> Goldens:
    content = json.loads((FIXTURES / "clip_tokens.json").read_text(encoding="utf-8"))
    merges = filled({int(rank): merge for rank, merge in content["merges"].items()}, content["count"])
    return Goldens([(text, ids) for text, ids in content["rows"]], content["length"], merges)


def filled(known: dict[int, str], count: int) -> list[Merge]:
    """A list of `count` merges with the known ones at their ranks."""
    control = byte_letters()[-68:]
    pairs = [first + second for first, second in product(control, repeat=2)]
    others = iter([*product(control, repeat=2), *product(pairs, control)])
    listed = (tuple(known[rank].split(" ")) if rank in known else next(others) for rank in range(count))
    return [(first, second) for first, second in listed]


def write_merges(folder: Path, merges: list[Merge]) -> Path:
    """The merges as OpenAI's compressed file, in torch's cache below a folder."""
    path = folder / "hub" / "checkpoints" / MERGES
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["#version", *(" ".join(merge) for merge in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path
