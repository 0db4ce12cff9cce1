"""Checkpoints that the authors of models have published: what is claimed of them, and which of them a folder contains.

`published.yaml` lists them: variant -> model, protocol, source, and for each data set file, address and claims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riszoo import recipes
from riszoo.bench.plan import Job, named_models
from riszoo.errors import UserError

LIST = "published.yaml"
PREFIX = "published/"
"""The beginning of the column `variant` of rows that measure a published checkpoint."""
LEFT_OUT = ("ablation", "budget", "checkpoints", "controlled", "scale")
"""Options of a bench that trains models, or tests other checkpoints."""

Column = tuple[str, str]
"""A metric and a split."""


@dataclass(frozen=True)
class Published:
    """A file of a model's authors.

    variant  the format that the file is recognised as
    file     its path in the folder of such files
    where    the address that the authors give
    claims   percent as printed, under `protocol`
    """

    model: str
    variant: str
    data: str
    protocol: str
    file: Path
    where: str
    source: str
    note: str
    claims: Mapping[Column, str]

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(split for _, split in self.claims))


def read_list(path: Path) -> list[Published]:
    """The checkpoints of a file such as benchmarks/published.yaml."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: give --out a folder with the list of published checkpoints")
    found = []
    for variant, about in recipes.read_yaml(path).items():
        try:
            found += [_entry(variant, about, data, one) for data, one in about["files"].items()]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: the entry '{variant}' is not complete or not right ({error!r:.80}): correct it"
            ) from None
    return found


def _entry(variant: str, about: Mapping[str, Any], data: str, one: Mapping[str, Any]) -> Published:
    claims = {
        (metric, split): f"{value:.2f}" for split, values in one["claims"].items() for metric, value in values.items()
    }
    return Published(
        model=about["model"],
        variant=variant,
        data=data,
        protocol=about["protocol"],
        file=Path(one["file"]),
        where=one["where"],
        source=about["source"],
        note=about.get("note", ""),
        claims=claims,
    )


# -- what lies in a folder --------------------------------------------------------------------------------------------


def find_file(entry: Published, folder: Path, listed: Sequence[Published]) -> Path | None:
    """The file of an entry, under its path or, if no other file of the variant has it, under its name alone."""
    path = folder / entry.file
    if path.is_file():
        found = variant_of(path)
        if found != entry.variant:
            raise UserError(f"{path} is {found or 'not a published checkpoint'}, not '{entry.variant}': move it")
        return path
    names = Counter((other.variant, other.file.name) for other in listed)
    alone = folder / entry.file.name
    is_unique = names[entry.variant, entry.file.name] == 1
    return alone if is_unique and alone.is_file() and variant_of(alone) == entry.variant else None


def variant_of(path: Path) -> str | None:
    """The published format of a checkpoint, also of a converted one; None for another file."""
    from riszoo.training.checkpoints import read_checkpoint
    from riszoo.training.exchange import published

    about = published(read_checkpoint(path))
    return None if about is None else str(about["format"])


# -- the plan ---------------------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """The checkpoints of a data set: those that were found, as jobs that test them, and those that are missing."""

    folder: Path
    found: list[tuple[Published, Job]]
    missing: list[Published]

    @property
    def jobs(self) -> list[Job]:
        return [job for _, job in self.found]

    def describe(self) -> str:
        """One line for each checkpoint."""
        lines = [f"found: {job.checkpoint} ({entry.variant})" for entry, job in self.found]
        for entry in self.missing:
            lines.append(f"missing: {self.folder / entry.file} ({entry.variant}), published at {entry.where}")
        return "\n".join(lines)


def make_plan(options: Any) -> Plan:
    """The plan of `riszoo bench --published FOLDER`, after checking every name."""
    for name in LEFT_OUT:
        if getattr(options, name):
            raise UserError(f"--published tests checkpoints as they are: leave --{name} out")
    data, folder = recipes.get("data", options.data).name, Path(options.published)
    if not folder.is_dir() and not (options.dry_run and not folder.exists()):
        raise UserError(f"--published {folder} is not a folder: give the folder of the downloaded checkpoints")
    listed = read_list(Path(options.out) / LIST)
    models = named_models(options) or [entry.model for entry in listed]
    chosen = [entry for entry in listed if entry.data == data and entry.model in models]
    if not chosen:
        sets = ", ".join(dict.fromkeys(entry.data for entry in listed if entry.model in models))
        raise UserError(f"no published checkpoint of these models is listed on '{data}': choose --data {sets or '...'}")
    files = [(entry, find_file(entry, folder, listed)) for entry in chosen]
    found = [(entry, _job(entry, path, options)) for entry, path in files if path is not None]
    return Plan(folder, found, [entry for entry, path in files if path is None])


def _job(entry: Published, path: Path, options: Any) -> Job:
    splits = options.splits.split(",") if options.splits else entry.splits
    return Job(
        entry.model,
        entry.data,
        "paper",
        variants=(PREFIX + entry.variant,),
        checkpoint=path,
        splits=tuple(splits),
        protocol=options.protocol or f"original,{entry.protocol}",
        controls=options.controls or "none",
        devices=options.devices,
        nodes=options.nodes,
    )
