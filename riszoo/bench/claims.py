"""What papers say of themselves, read from benchmarks/paper.csv: numbers with their source and its caveats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from riszoo.bench.rows import read

NAMES = {"P@": "Pr@", "Prec@": "Pr@"}
LEFT_OUT = ("ablation", "OLDER", "LABEL WRONG")
"""Notes of rows that are no headline number: parts of ablations, outdated pages, labels known to be wrong."""
LEAST_TRUSTED = ("benchmark aggregator", "survey", "UniRef++", "Prompt-RIS")
"""Second-hand tables, the least reliable first; what a project's own page says comes before all of them."""


@dataclass
class Claim:
    """One line of one source: a method in one setting on one data set."""

    method: str
    backbone: str
    data: str
    notes: str
    source: str
    values: dict[tuple[str, str], str]  # (metric, split) -> as printed

    @property
    def about(self) -> str:
        return f"{self.notes}; {self.source}"

    @property
    def mixed(self) -> bool:
        return any(word in self.notes for word in ("mixed", "combined", "several training sets"))

    @property
    def trust(self) -> int:
        """Greater is better."""
        ranks = [rank for rank, word in enumerate(LEAST_TRUSTED) if word in self.about]
        return ranks[0] if ranks else len(LEAST_TRUSTED)

    def value(self, metric: str, split: str) -> str:
        return self.values.get((metric, split), "-")

    def has(self, metric: str, splits: Iterable[str]) -> bool:
        return any((metric, split) in self.values for split in splits)


def claims(path: Path) -> list[Claim]:
    """Headline claims in the file's order; of several sources for the same numbers, the most trusted one."""
    found: dict[tuple[str, ...], Claim] = {}
    for row in read(path):
        if not any(word in row["notes"] for word in LEFT_OUT):
            about = {name: row[name] for name in ("method", "backbone", "data", "notes", "source")}
            claim = found.setdefault(tuple(about.values()), Claim(**about, values={}))
            claim.values[_metric(row["metric"]), row["split"]] = row["value"]
    return _most_trusted(list(found.values()))


def _metric(name: str) -> str:
    for theirs, ours in NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _most_trusted(everything: list[Claim]) -> list[Claim]:
    """A less trusted claim keeps only what no more trusted one says of the same method, setting and metric.

    A source that names no backbone speaks of the same method as one that does.
    """
    kept: list[Claim] = []
    for claim in sorted(everything, key=lambda claim: (-claim.trust, claim.backbone == "")):
        rivals = [other for other in kept if _same(claim, other)]
        said = {key[0] for other in rivals for key in other.values}
        claim.values = {key: value for key, value in claim.values.items() if key[0] not in said}
        if claim.values:
            kept.append(claim)
    return sorted(kept, key=everything.index)


def _same(one: Claim, other: Claim) -> bool:
    where = (one.method, one.data, one.mixed) == (other.method, other.data, other.mixed)
    if one.trust == other.trust:  # one page that lists a method twice means two models
        return where and one.backbone == ""
    return where and (one.backbone in ("", other.backbone) or not other.backbone)
