"""What a benchmark measures: one job for each model, seed and ablation row, and what it will cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from riszoo import recipes
from riszoo.data.controls import parse_controls
from riszoo.errors import UserError, unknown_name
from riszoo.metrics.protocols import get_protocols
from riszoo.recipes import Config

VALIDATION_SHARE, TEST_SHARE = 1.25, 0.3
"""What validations add to a training, and what a test costs beside it: rough, for time left only."""


@dataclass(frozen=True)
class Job:
    """One model to be trained (unless a checkpoint is given) and tested.

    variant     `table/row` of an ablation, or nothing
    over        what it changes in the recipe, as configuration
    splits      left out, the data recipe's own
    """

    model: str
    data: str
    scale: str
    seed: int = 0
    variant: str = ""
    over: Config = field(default_factory=dict)
    checkpoint: Path | None = None
    splits: tuple[str, ...] = ()
    protocol: str = "original"
    controls: str = "none"
    devices: int | None = None
    nodes: int | None = None

    @property
    def config(self) -> Config:
        return recipes.merge(recipes.resolve(self.model, self.data, self.scale), self.over)

    @property
    def digest(self) -> str:
        """Of everything its training depends on: a job whose recipe has changed is another job."""
        facts = json.dumps([self.config, self.seed, str(self.checkpoint or "")], sort_keys=True, default=str)
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        variant = f"-{self.variant.replace('/', '-')}" if self.variant else ""
        return f"{self.model}-{self.data}-{self.scale}{variant}-seed{self.seed}-{self.digest}".replace(" ", "_")

    @property
    def title(self) -> str:
        parts = [f"{self.model} on {self.data}", f"scale {self.scale}", self.variant, f"seed {self.seed}"]
        return ", ".join(filter(None, parts))

    @property
    def batch(self) -> int:
        options = self.config["data"]["init_args"]
        return int(options.get("total_batch_size") or options.get("batch_size") or 32)

    @property
    def steps(self) -> int | None:
        """Optimiser steps, where the configuration says so."""
        steps = int(self.config["trainer"].get("max_steps", -1))
        return steps if steps > 0 else None

    def sentences(self) -> int | None:
        """Sentences seen in training; from published counts where the recipe counts epochs; None when not known."""
        if self.checkpoint is not None:
            return 0
        if self.steps is not None:
            return self.steps * self.batch
        epochs, targets = self.config["trainer"].get("max_epochs", -1), _targets(self.config)
        return None if targets is None or epochs < 1 else int(epochs) * targets


def _targets(config: Config) -> int | None:
    """Objects of the training split as published."""
    from riszoo.data.readers.catalogue import READERS

    source = READERS.get(config["run"]["data"])
    counts = source.published.get(config["data"]["init_args"].get("train_split", "train")) if source else None
    return None if counts is None else counts.targets


def make(options: Any) -> list[Job]:
    """The jobs that the command line asks for, every name checked; a whole round of one seed before the next."""
    _refuse(options)
    data = recipes.get("data", options.data).name
    scale = "controlled" if options.controlled else options.scale or recipes.default_scale(data)
    common: dict[str, Any] = {
        "data": data,
        "scale": scale,
        "splits": tuple(options.splits.split(",")) if options.splits else (),
        "protocol": options.protocol or ("original,published" if scale == "paper" else "original"),
        "controls": options.controls,
        "devices": options.devices,
        "nodes": options.nodes,
    }
    checkpoints = _checkpoints(options.checkpoints)
    jobs = []
    for model, variant, over in _variants(options, scale):
        over = recipes.merge(over, _budget(model, data, scale, options.budget))
        path = checkpoints.get(f"{model}/{variant}" if variant else model)
        jobs.append(Job(model, variant=variant, over=over, checkpoint=path, **common))
    return [replace(job, seed=seed) for seed in range(options.seeds) for job in jobs]


def _refuse(options: Any) -> None:
    """Options that contradict each other, and names that only a test would find unknown, after hours of training."""
    for one, other in (("controlled", "scale"), ("ablation", "models")):
        if getattr(options, one) and getattr(options, other):
            raise UserError(f"--{one} says which {other} to take: leave --{one} or --{other} out")
    if options.protocol:
        get_protocols(options.protocol, published="original")
    parse_controls(options.controls)


def _variants(options: Any, scale: str) -> Iterator[tuple[str, str, Config]]:
    """Model, `table/row` and override; the plain models where no ablation is asked for."""
    if options.ablation:
        for chosen in options.ablation.split(","):
            name, _, table = chosen.partition("/")
            yield from ((_with_scale(name, scale, options.data), *row) for row in ablation_rows(name, table))
        return
    models = options.models.split(",") if options.models else _having(scale, options.data)
    if not models:
        raise UserError(f"no model has a scale '{scale}': choose another --scale, or name --models")
    yield from ((_with_scale(name, scale, options.data), "", {}) for name in models)


def left_out(options: Any, jobs: list[Job]) -> str:
    """Which models are not measured, and why; nothing where the command line named them."""
    if options.models or options.ablation:
        return ""
    data, scale = jobs[0].data, jobs[0].scale
    without = [name for name in recipes.names("models") if name not in _having(scale, data)]
    return f"left out, having no scale '{scale}' in their recipes: {', '.join(without)}" if without else ""


def _having(scale: str, data: str) -> list[str]:
    return [name for name in recipes.names("models") if scale in recipes.scales(name, data)]


def _with_scale(name: str, scale: str, data: str) -> str:
    recipes.checked_scale(name, data, scale)
    return name


def ablations(name: str) -> dict[str, Any]:
    """The tables of configs/ablations/NAME.yaml: `{title, claim, rows: {row: {model: {...}}}}` each.

    `claim` lists rows as the paper orders them; a row without anything is the recipe itself.
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
    """Every row, or those of one table."""
    tables = ablations(name)
    if only and only not in tables:
        raise unknown_name(f"table of ablation '{name}'", only, tables)
    for table, content in {only: tables[only]}.items() if only else tables.items():
        for row, change in content["rows"].items():
            change = change or {}
            over = {part: {"init_args": change[part]} for part in ("model", "data") if part in change}
            yield f"{table}/{row}", over | ({"trainer": change["trainer"]} if "trainer" in change else {})


def _budget(model: str, data: str, scale: str, sentences: int | None) -> Config:
    """So many training sentences instead of the recipe's, validated at the end at the latest."""
    if sentences is None:
        return {}
    job = Job(model, data, scale)
    steps = sentences // job.batch
    if steps < 1:
        raise UserError(f"--budget {sentences} is less than one batch of {job.batch} sentences of '{model}': raise it")
    interval = job.config["trainer"].get("val_check_interval") or steps
    interval = min(int(interval), steps) if interval >= 1 else interval
    return {"trainer": {"max_steps": steps, "val_check_interval": interval}}


def _checkpoints(path: Path | None) -> dict[str, Path]:
    """A YAML file of `model: checkpoint` (or `model/table/row: checkpoint`); each must be there."""
    if path is None:
        return {}
    found = {str(name): Path(str(value)) for name, value in recipes.read_yaml(path).items()}
    for name, file in found.items():
        if not file.is_file():
            raise UserError(f"{path}: the checkpoint of '{name}', {file}, does not exist")
    return found


def seconds(job: Job, rates: Mapping[str, float]) -> tuple[float, float] | None:
    """How long training and test will take, from measured sentences a second; None where that is not known."""
    sentences, rate = job.sentences(), rates.get(job.model)
    if sentences is None or not rate:
        return None
    training = sentences / (rate * (job.devices or 1) * (job.nodes or 1)) * VALIDATION_SHARE
    return training, max(20.0, training * TEST_SHARE)


def describe(jobs: list[Job], rates: Mapping[str, float]) -> str:
    """The plan as text, with what is known of its cost."""
    lines, total, unknown = [], 0.0, 0
    for job in jobs:
        cost, sentences = seconds(job, rates), job.sentences()
        work = "checkpoint given" if job.checkpoint else f"{sentences:,} sentences" if sentences else "length not known"
        time = "time not known before its speed is measured" if cost is None else f"about {_time(sum(cost))}"
        total, unknown = total + sum(cost or ()), unknown + (cost is None)
        lines.append(f"  {job.title}: {work}, {time}")
    known = [f"about {_time(total)}"] * (total > 0) + [f"{unknown} of unknown length"] * (unknown > 0)
    return "\n".join([f"{len(jobs)} job(s), {' and '.join(known)}", *lines])


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
