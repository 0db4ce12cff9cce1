"""Published numbers from benchmarks/paper.csv, one claim for each method, setting and source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riszoo.bench.rows import read

OMIT = "omit"
"""In the column `trust`: the row is no headline number (an ablation, an outdated page, a wrong label)."""
ABOUT = ("method", "backbone", "data", "mixed", "trust", "notes", "source")


@dataclass
class Claim:
    """One line of one source: a method in one setting on one data set.

    mixed   `yes` if trained on several data sets together
    trust   1 (least) to 5 (most), as docs/benchmarks.md defines them
    """

    method: str
    backbone: str
    data: str
    mixed: str
    trust: str
    notes: str
    source: str
    values: dict[tuple[str, str], str] = field(default_factory=dict)  # (metric, split) -> as printed

    @property
    def about(self) -> str:
        return f"{self.notes}; {self.source}"

    def value(self, metric: str, split: str) -> str:
        return self.values.get((metric, split), "-")

    def has(self, metric: str, splits: Iterable[str]) -> bool:
        return any((metric, split) in self.values for split in splits)


def claims(path: Path) -> list[Claim]:
    """The claims in the file's order; where sources report the same numbers, only the most trusted one."""
    found: dict[tuple[str, ...], Claim] = {}
    for row in read(path):
        if row["trust"] != OMIT:
            about: tuple[Any, ...] = tuple(row[name] for name in ABOUT)
            claim = found.setdefault(about, Claim(*about))
            claim.values[row["metric"], row["split"]] = row["value"]
    return _most_trusted(list(found.values()))


def _most_trusted(everything: list[Claim]) -> list[Claim]:
    """Drops from each claim the metrics that a more trusted claim reports for the same method and setting."""
    kept: list[Claim] = []
    for claim in sorted(everything, key=lambda claim: (-int(claim.trust), claim.backbone == "")):
        covered = {metric for other in kept if _same_setting(claim, other) for metric, _ in other.values}
        claim.values = {key: value for key, value in claim.values.items() if key[0] not in covered}
        if claim.values:
            kept.append(claim)
    return sorted(kept, key=everything.index)


def _same_setting(claim: Claim, other: Claim) -> bool:
    """A source that names no backbone matches every backbone; a page that lists a method twice means two models."""
    if (claim.method, claim.data, claim.mixed) != (other.method, other.data, other.mixed):
        return False
    if claim.trust == other.trust:
        return claim.backbone == ""
    return "" in (claim.backbone, other.backbone) or claim.backbone == other.backbone
