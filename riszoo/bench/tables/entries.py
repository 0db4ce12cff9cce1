"""The rows of a leaderboard: claimed, measured and reproduced results in one form.

A reproduced result is measured too, with the checkpoint that the model's authors have published.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from riszoo import recipes
from riszoo.bench.published import LIST, PREFIX, Published, read_list
from riszoo.bench.rows import ACCURACY, SPEED, Row, Table, number_in, of_one_device
from riszoo.bench.tables.claims import FILE, Claim, claims

CLAIMED, MEASURED, REPRODUCED = "claimed", "measured", "reproduced"
ORIGINAL = "original"
METRICS = ("oIoU", "mIoU", "cIoU", "gIoU", "N-acc", "T-acc", "Pr@0.5", "Pr@0.7", "Pr@0.9")
SETTING = ("model", "scale", "trained", "protocol")
NAMES = {
    "darknet53": "Darknet-53",
    "swin_base_patch4_window12_384.ms_in22k": "Swin-B",
    "sam_vit_b": "SAM ViT-B",
    "bigru": "bi-GRU",
    "bert-base-uncased": "BERT-B",
    "openai/clip-vit-base-patch32": "CLIP",
}
"""The encoders of the recipes as papers print them."""


@dataclass(frozen=True)
class Number:
    """One result in percent. A measured one has its 95 % interval, or its standard deviation over several seeds."""

    text: str
    interval: tuple[float, float] | None = None
    leaked: bool = False  # the checkpoint was trained on images of the split

    @property
    def value(self) -> float:
        return float(self.text.split(" ")[0])


@dataclass(frozen=True)
class Entry:
    """A method with its encoders and training on one data set.

    facts  what is known beside the numbers, by name: commit, device, trust, notes, parameters, ...
    """

    kind: str  # CLAIMED, MEASURED or REPRODUCED
    data: str
    method: str
    encoders: str
    training: str
    year: str
    protocol: str  # empty if the source does not state it
    source: str
    link: str
    numbers: dict[tuple[str, str], Number]  # by metric and split
    facts: dict[str, str] = field(default_factory=dict)
    claims: dict[tuple[str, str], str] = field(default_factory=dict)  # of a reproduced entry, under its protocol

    def number(self, metric: str, split: str) -> Number | None:
        return self.numbers.get((metric, split))

    def rank(self, columns: Sequence[tuple[str, str]]) -> list[float]:
        """Sorts the best first: by the first column that an entry has, those with an earlier column first."""
        found = (self.number(*column) for column in columns)
        return [0.0 if number is None else -number.value for number in found]


def read_entries(folder: Path) -> list[Entry]:
    """Every entry of a folder's files: measured ones first, then reproduced and claimed ones."""
    accuracy = ACCURACY.read(folder)
    listed = read_list(folder / LIST) if (folder / LIST).is_file() else []
    return [
        *measured_entries(accuracy, SPEED.read(folder)),
        *reproduced_entries(accuracy, listed),
        *map(claimed_entry, claims(folder / FILE)),
    ]


def claimed_entry(claim: Claim) -> Entry:
    others = [f"{other.source}: {_listed(other.values)}" for other in claim.others]
    return Entry(
        kind=CLAIMED,
        data=claim.data,
        method=claim.method,
        encoders=claim.encoders,
        training=claim.training,
        year=claim.year,
        protocol="",
        source=claim.source,
        link=claim.link,
        numbers={key: Number(value) for key, value in claim.values.items()},
        facts=_known({"paper": claim.paper, "trust": f"{claim.trust} of 5", "notes": "; ".join(claim.notes),
                      "other sources": "; ".join(others)}),
    )  # fmt: skip


def _listed(values: dict[tuple[str, str], str]) -> str:
    return ", ".join(f"{metric} {split} {value}" for (metric, split), value in values.items())


# -- measured ---------------------------------------------------------------------------------------------------------


def measured_entries(accuracy: Sequence[Row], speed: Sequence[Row]) -> list[Entry]:
    """One entry for each data set, model, scale, training set and protocol, without the rows of ablations."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in accuracy:
        if not row["variant"]:
            groups.setdefault((row["data"], *(row[column] for column in SETTING)), []).append(row)
    return [_measured_entry(rows, speed) for rows in groups.values() if any(r["control"] == "none" for r in rows)]


def _measured_entry(rows: Sequence[Row], speed: Sequence[Row]) -> Entry:
    plain = [row for row in rows if row["control"] == "none"]
    first, splits = plain[0], dict.fromkeys(row["split"] for row in plain)
    found = {
        (metric, split): number([row for row in plain if row["split"] == split], metric)
        for split in splits
        for metric in METRICS
    }
    return Entry(
        kind=MEASURED,
        data=first["data"],
        method=first["model"],
        encoders=encoders(first["model"], first["data"], first["scale"]),
        training="single" if first["trained"] == first["data"] else first["trained"],
        year="",
        protocol=first["protocol"],
        source="riszoo",
        link="",
        numbers={key: value for key, value in found.items() if value},
        facts=_facts(rows, plain) | _cost(first, speed),
    )


def reproduced_entries(accuracy: Sequence[Row], listed: Sequence[Published]) -> list[Entry]:
    """One entry for each published checkpoint and protocol; under the paper's own with its claims."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in accuracy:
        if row["variant"].startswith(PREFIX) and row["control"] == "none":
            key = (row["data"], row["variant"].removeprefix(PREFIX), row["protocol"])
            groups.setdefault(key, []).append(row)
    about = {(each.data, each.variant, each.protocol): each for each in listed}
    return [_reproduced_entry(rows, key[1], about.get((key[0], key[1], key[2]))) for key, rows in groups.items()]


def _reproduced_entry(rows: Sequence[Row], variant: str, published: Published | None) -> Entry:
    entry = replace(_measured_entry(rows, []), kind=REPRODUCED, method=variant)
    if published is None:  # another protocol than the paper's
        return entry
    claimed = {column: value for column, value in published.claims.items() if column in entry.numbers}
    difference = {column: f"{entry.numbers[column].value - float(value):+.2f}" for column, value in claimed.items()}
    facts = {"claimed": _listed(claimed), "difference": _listed(difference), "claimed by": published.source}
    return replace(entry, claims=claimed, facts=entry.facts | facts)


def number(rows: Sequence[Row], metric: str, table: Table = ACCURACY) -> Number | None:
    """One seed: the number and its interval. Several seeds: mean and standard deviation."""
    rows = [row for row in rows if row.get(metric)]
    if not rows:
        return None
    values = [number_in(row, metric, table) for row in rows]
    leaked = any(number_in(row, "images_trained_on", table) for row in rows if row.get("images_trained_on"))
    if len(values) > 1:
        return Number(f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}", None, leaked)
    low, high = (
        number_in(rows[0], f"{metric}_{end}", table) if rows[0].get(f"{metric}_{end}") else None
        for end in ("low", "high")
    )
    return Number(f"{values[0]:.2f}", None if low is None or high is None else (low, high), leaked)


def encoders(model: str, data: str, scale: str) -> str:
    """The encoders of the paper scale by name; other scales have small or shared ones, so the scale says it."""
    recipe = recipes.find("models", model)
    if scale != "paper" or recipe is None:
        return f"scale {scale}"
    options = recipes.resolve(model, data, scale)["model"]["init_args"]
    names = (str(options[part]["name"]) for part in ("vision", "text") if part in options)
    return " + ".join(NAMES.get(name, name) for name in names)


def language_gap(rows: Sequence[Row]) -> float | None:
    """The mIoU on val that a model loses with the sentences of other images, mean over the seeds that have both."""
    own, shuffled = (
        {row["seed"]: row for row in rows if (row["split"], row["control"]) == ("val", control) and row["mIoU"]}
        for control in ("none", "shuffled")
    )
    lost = [
        number_in(own[seed], "mIoU", ACCURACY) - number_in(shuffled[seed], "mIoU", ACCURACY)
        for seed in own.keys() & shuffled.keys()
    ]
    return statistics.fmean(lost) if lost else None


def mean(rows: Iterable[Row], column: str) -> float | None:
    values = [number_in(row, column, ACCURACY) for row in rows if row[column]]
    return statistics.fmean(values) if values else None


def _facts(rows: Sequence[Row], plain: Sequence[Row]) -> dict[str, str]:
    trainings = list({row["weights"]: row for row in plain}.values())
    gap, seconds = language_gap(rows), mean(trainings, "training_seconds")
    sentences = mean(trainings, "training_sentences")
    facts = {
        "language gap": "" if gap is None else f"{gap:.2f}",
        "training sentences": "" if sentences is None else f"{sentences:,.0f}",
        "training minutes": "" if seconds is None else f"{seconds / 60:.1f}",
        "seeds": str(len({row["seed"] for row in plain})),
        "test command": plain[0]["command"],
        "training command": plain[0]["training_command"],
    }
    shared = ("scale", "commit", "device", "versions", "weights")
    return _known(facts | {name: ", ".join(sorted({row[name] for row in plain})) for name in shared})


def _cost(first: Row, speed: Sequence[Row]) -> dict[str, str]:
    """Parameters, operations and latency of the same model and scale."""
    columns = ("data", "model", "scale", "variant")
    own = [row for row in speed if all(row[column] == first[column] for column in columns)]
    if not own:
        return {}
    sizes = {
        "parameters": f"{number_in(own[0], 'parameters', SPEED) / 1e6:.2f} M",
        "GFLOP": f"{number_in(own[0], 'gflop_1_sentence', SPEED):.2f}",
    }
    comparable = of_one_device([row for row in speed if row["data"] == first["data"]])
    times = [number_in(row, "ms_1_sentence", SPEED) for row in own if row in comparable]
    return sizes | ({"ms": f"{times[0]:.1f}"} if times else {})


def _known(facts: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}
