"""Published numbers from benchmarks/paper.csv: one claim for each method, encoders and training, from one source."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from riszoo.bench.rows import Row, read_csv
from riszoo.errors import UserError

FILE = "paper.csv"
OMIT = "omit"
"""In the column `trust`: the row is no headline number (an ablation, an outdated page, a wrong label)."""
LEVELS = ("1", "2", "3", "4", "5")
UNSTATED = "unstated"
"""In the column `metric`: the source does not name the metric, so the row is not shown. Also the name of a split."""
IDENTITY = ("method", "encoders", "data", "training", "trust", "source")


@dataclass
class Claim:
    """What one source reports of one method in one setting on one data set.

    training  `single` (this data set alone), `mixed` (several RefCOCO sets), `joint` (more), or empty: not stated
    trust     1 (least) to 5 (most), as docs/benchmarks.md defines them
    others    claims about the same method and setting, from less trusted sources
    """

    method: str
    encoders: str
    data: str
    training: str
    trust: str
    source: str
    paper: str
    year: str
    notes: list[str]
    values: dict[tuple[str, str], str]  # (metric, split) -> as printed
    others: list[Claim]

    @property
    def link(self) -> str:
        """The address of the source, or an empty string."""
        arxiv = re.search(r"arXiv (\d{4}\.\d{5})", self.source)
        if arxiv:
            return f"https://arxiv.org/abs/{arxiv[1]}"
        address = re.search(r"https?://[^\s)]+", self.source)
        return address[0] if address else ""


def claims(path: Path) -> list[Claim]:
    """One claim for each method, encoders and training: that of the most trusted source."""
    found: dict[tuple[str, ...], Claim] = {}
    for row in read_csv(path, (*IDENTITY, "paper", "year", "split", "metric", "value", "notes")):
        if row["trust"] != OMIT and row["metric"] != UNSTATED:
            _check(row, path)
            identity = tuple(row[name] for name in IDENTITY)
            claim = found.setdefault(identity, _empty(row))
            claim.values[row["metric"], row["split"]] = row["value"]
            if row["notes"] not in claim.notes:
                claim.notes.append(row["notes"])
    return _most_trusted(list(found.values()))


def _check(row: Row, path: Path) -> None:
    about = f"of the row {row['method']}, {row['data']}, {row['split']}, {row['metric']}"
    if row["trust"] not in LEVELS:
        raise UserError(
            f"{path}: '{row['trust']:.40}' in the column trust {about} is not a level: give 1 (least) to 5 (most), or "
            f"{OMIT}"
        )
    if not _is_number(row["value"].split(" ")[0]):
        raise UserError(
            f"{path}: '{row['value']:.40}' in the column value {about} is not a number: give percent, or remove the row"
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _empty(row: Row) -> Claim:
    """A claim without values."""
    identity = {name: row[name] for name in IDENTITY}
    return Claim(**identity, paper=row["paper"], year=row["year"], notes=[], values={}, others=[])


def _most_trusted(everything: list[Claim]) -> list[Claim]:
    """Attaches each claim to a more trusted one about the same method and setting, if there is one."""
    kept: list[Claim] = []
    for claim in sorted(everything, key=lambda claim: (-int(claim.trust), -len(claim.values))):
        better = next((other for other in kept if _same_setting(claim, other)), None)
        if better:
            better.others.append(claim)
        else:
            kept.append(claim)
    return sorted(kept, key=everything.index)


def _same_setting(claim: Claim, other: Claim) -> bool:
    """Whether two claims can be about one model; a source may leave out the training, or name fewer encoders.

    One that names no encoder can be about any, so it must agree in every number that both have.
    """
    if (claim.method.lower(), claim.data) != (other.method.lower(), other.data):
        return False
    if claim.training != other.training and "" not in (claim.training, other.training):
        return False
    if claim.encoders != other.encoders and "" in (claim.encoders, other.encoders):
        shared = claim.values.keys() & other.values.keys()
        return bool(shared) and all(claim.values[column] == other.values[column] for column in shared)
    return claim.encoders.startswith(other.encoders) or other.encoders.startswith(claim.encoders)
