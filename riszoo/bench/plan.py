"""The plan of a benchmark: one job for each model, seed and ablation row, and its estimated cost."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from riszoo import recipes
from riszoo.data.controls import parse_controls
from riszoo.errors import UserError, unknown_name
from riszoo.metrics.protocols import get_protocols
from riszoo.recipes import Config

VALIDATION_FACTOR, TEST_SHARE, MIN_TEST_SECONDS = 1.25, 0.3, 20.0
"""Rough, for estimates only: training time with validations, and the time of a test relative to it."""


@dataclass(frozen=True)
class Job:
    """One model to be trained (unless a checkpoint is given) and tested.

    variants    `table/row` of each ablation row with this configuration; one empty text for the recipe itself
    overrides   what the variants and the budget change in the recipe
    splits      empty for the data recipe's own
    """

    model: str
    data: str
    scale: str
    seed: int = 0
    variants: tuple[str, ...] = ("",)
    overrides: Config = field(default_factory=dict)
    checkpoint: Path | None = None
    splits: tuple[str, ...] = ()
    protocol: str = "original"
    controls: str = "none"
    devices: int | None = None
    nodes: int | None = None

    @property
    def config(self) -> Config:
        return recipes.merge(recipes.resolve(self.model, self.data, self.scale), self.overrides)

    @property
    def digest(self) -> str:
        """Hash of everything that the training depends on; a changed recipe makes another job."""
        facts = json.dumps([self.config, self.seed, str(self.checkpoint or "")], sort_keys=True, default=str)
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """Of its folder; equal configurations have the same."""
        return f"{self.model}-{self.data}-{self.scale}-seed{self.seed}-{self.digest}".replace(" ", "_")

    @property
    def title(self) -> str:
        variants = " and ".join(filter(None, self.variants))
        parts = [f"{self.model} on {self.data}", f"scale {self.scale}", variants, f"seed {self.seed}"]
        return ", ".join(filter(None, parts))

    @property
    def protocols(self) -> set[str]:
        """The names of the protocols; the model's class, which is imported only then, says which `published` is."""
        published = "original"
        if "published" in self.protocol.split(","):
            module, _, name = str(self.config["model"]["class_path"]).rpartition(".")
            published = getattr(importlib.import_module(module), name).published
        return {protocol.name for protocol in get_protocols(self.protocol, published=published)}

    @property
    def batch(self) -> int:
        options = self.config["data"]["init_args"]
        return int(options.get("total_batch_size") or options.get("batch_size") or 32)

    @property
    def steps(self) -> int | None:
        """Optimiser steps, if the configuration limits them."""
        steps = int(self.config["trainer"].get("max_steps", -1))
        return steps if steps > 0 else None

    def sentences(self) -> int | None:
        """Training sentences; from published counts if the recipe counts epochs; None if unknown."""
        if self.checkpoint is not None:
            return 0
        if self.steps is not None:
            return self.steps * self.batch
        epochs, targets = self.config["trainer"].get("max_epochs", -1), _published_targets(self.config)
        return None if targets is None or epochs < 1 else int(epochs) * targets


def _published_targets(config: Config) -> int | None:
    """The published number of targets of the training split."""
    from riszoo.data.readers.catalogue import READERS

    source = READERS.get(config["run"]["data"])
    counts = source.published.get(config["data"]["init_args"].get("train_split", "train")) if source else None
    return None if counts is None else counts.targets


# -- from the command line to jobs ------------------------------------------------------------------------------------


def make_jobs(options: Any) -> list[Job]:
    """The jobs of `riszoo bench`'s options, after checking every name; all models of one seed before the next seed."""
    check_options(options)
    data = recipes.get("data", options.data).name
    scale = "controlled" if options.controlled else options.scale or recipes.default_scale(data)
    common: dict[str, Any] = {
        "data": data,
        "scale": scale,
        "splits": tuple(options.splits.split(",")) if options.splits else (),
        "protocol": options.protocol or ("original,published" if scale == "paper" else "original"),
        "devices": options.devices,
        "nodes": options.nodes,
    }
    checkpoints = _checkpoints(options.checkpoints)
    rows = list(_variants(options, scale))
    known = [f"{model}/{variant}".rstrip("/") for model, variant, _ in rows]
    unknown = next((name for name in checkpoints if name not in known), None)
    if unknown is not None:
        raise unknown_name(f"model in {options.checkpoints}", unknown, known)
    jobs = []
    for model, variant, overrides in rows:
        if options.budget is not None:
            batch = Job(model, data, scale, overrides=overrides).batch
            overrides = recipes.merge(overrides, recipes.length_of_budget(options.budget, batch))
        path = checkpoints.get(f"{model}/{variant}" if variant else model)
        controls = options.controls or _controls(model, variant)
        jobs.append(Job(model, variants=(variant,), overrides=overrides, checkpoint=path, controls=controls, **common))
    jobs = _merged(jobs)
    return [replace(job, seed=seed) for seed in range(options.seeds) for job in jobs]


def _merged(jobs: list[Job]) -> list[Job]:
    """One job for all rows with the same configuration, tested with the controls of each."""
    merged: dict[str, Job] = {}
    for job in jobs:
        first = merged.get(job.name)
        if first is not None:
            controls = dict.fromkeys([*first.controls.split(","), *job.controls.split(",")])
            job = replace(first, variants=first.variants + job.variants, controls=",".join(controls))
        merged[job.name] = job
    return list(merged.values())


def check_options(options: Any) -> None:
    """Rejects contradictory options, and names that otherwise only a test after the training would reject."""
    for one, other in (("controlled", "scale"), ("ablation", "models")):
        if getattr(options, one) and getattr(options, other):
            raise UserError(f"--{one} already sets --{other}: leave one of them out")
    for one in ("checkpoints", "published"):
        if getattr(options, one, None) and options.seeds > 1:
            raise UserError(f"--{one} gives one checkpoint, not one of each seed: leave --seeds out")
    if options.protocol:
        get_protocols(options.protocol, published="original")
    if options.controls and "none" not in parse_controls(options.controls):
        raise UserError(
            f"--controls {options.controls} leaves out the sentences themselves: give none,{options.controls}"
        )
    if options.splits:
        recipes.check_splits(options.data, options.splits.split(","))


def _variants(options: Any, scale: str) -> Iterator[tuple[str, str, Config]]:
    """(model, `table/row`, overrides) of an ablation's rows, or of the plain models."""
    if options.ablation:
        for name, _, table in (chosen.partition("/") for chosen in options.ablation.split(",")):
            rows = list(ablation_rows(name, table))
            recipes.checked_scale(name, options.data, scale)
            yield from ((name, row, overrides) for row, overrides in rows)
        return
    models = dict.fromkeys(names) if (names := named_models(options)) else models_with(scale, options.data)
    if not models:
        raise UserError(f"no model has a scale '{scale}': choose another --scale, or name --models")
    for name in models:
        recipes.checked_scale(name, options.data, scale)
        yield name, "", {}


def _controls(model: str, variant: str) -> str:
    """The controls of a test: those that an ablation's table asks for, or the usual ones."""
    table = ablations(model)[variant.partition("/")[0]] if variant else {}
    return str(table.get("controls", "none,shuffled,blank"))


def named_models(options: Any) -> list[str]:
    """The models of the command line; none for `all`, which is the default."""
    return [] if options.models in (None, "all") else options.models.split(",")


def models_with(scale: str, data: str) -> list[str]:
    """The recipes of models that have a scale on a data set."""
    return [name for name in recipes.names("models") if scale in recipes.scales(name, data)]


def skipped_models(options: Any, jobs: list[Job]) -> list[str]:
    """The models without this scale; none if the command line names the models."""
    if named_models(options) or options.ablation:
        return []
    planned = models_with(jobs[0].scale, jobs[0].data)
    return [name for name in recipes.names("models") if name not in planned]


def _checkpoints(path: Path | None) -> dict[str, Path]:
    """A YAML file of `model: checkpoint` (or `model/table/row: checkpoint`)."""
    if path is None:
        return {}
    found = {str(name): Path(str(value)) for name, value in recipes.read_yaml(path).items()}
    for name, file in found.items():
        if not file.is_file():
            raise UserError(f"{path}: the checkpoint of '{name}', {file}, does not exist")
    return found


# -- ablations --------------------------------------------------------------------------------------------------------


def ablations(name: str) -> dict[str, Any]:
    """The tables of configs/ablations/NAME.yaml: `{title, claim, controls, base, rows: {row: {model: {...}}}}` each.

    `claim` lists the rows in the paper's order; `base` changes the recipe for every row; an empty row is that alone.
    """
    recipe = recipes.find("ablations", name)
    if recipe is None:
        raise unknown_name("ablation", name, recipes.names("ablations"))
    tables = {table: content for table, content in recipe.content.items() if isinstance(content, dict)}
    for table, content in tables.items():
        if not isinstance(content.get("rows"), dict):
            raise UserError(f"{recipe.path}: table '{table}' has no 'rows'; give each row's changes under its name")
    return tables


def ablation_rows(name: str, only: str = "") -> Iterator[tuple[str, Config]]:
    """(`table/row`, overrides) of every table, or of one."""
    tables = ablations(name)
    if only and only not in tables:
        raise unknown_name("table", only, tables, of=f"ablation '{name}'")
    for table in [only] if only else tables:
        for row, own in tables[table]["rows"].items():
            change = recipes.merge(tables[table].get("base") or {}, own or {})
            overrides = {part: {"init_args": change[part]} for part in ("model", "data") if part in change}
            yield f"{table}/{row}", overrides | ({"trainer": change["trainer"]} if "trainer" in change else {})


# -- cost -------------------------------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """Seconds."""

    training: float
    test: float


def estimate(job: Job, rates: Mapping[str, float]) -> Estimate | None:
    """The time of a job from each model's training sentences per second; None if length or speed is unknown."""
    sentences, rate = job.sentences(), rates.get(job.model)
    if sentences is None or not rate:
        return None
    training = sentences / (rate * (job.devices or 1) * (job.nodes or 1)) * VALIDATION_FACTOR
    return Estimate(training, max(MIN_TEST_SECONDS, training * TEST_SHARE))


def describe(jobs: list[Job], rates: Mapping[str, float]) -> str:
    """The plan as text, with the estimated time of each job."""
    lines, total, unknown = [], 0.0, 0
    for job in jobs:
        cost, sentences = estimate(job, rates), job.sentences()
        length = "unknown length" if sentences is None else f"{sentences:,} sentences"
        work = "checkpoint given" if job.checkpoint else length
        time = "time unknown until its speed is measured" if cost is None else f"about {_format_time(sum(cost))}"
        total, unknown = total + sum(cost or ()), unknown + (cost is None)
        lines.append(f"  {job.title}: {work}, {time}")
    summary = [f"about {_format_time(total)}"] * (total > 0) + [f"{unknown} of unknown time"] * (unknown > 0)
    return "\n".join([f"{len(jobs)} job(s), {' and '.join(summary)}", *lines])


def _format_time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
