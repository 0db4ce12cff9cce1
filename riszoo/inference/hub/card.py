"""The model card of a repository, and the results of a model in the Hub's form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from riszoo import recipes
from riszoo.errors import UserError
from riszoo.training.checkpoint_checks import same_class
from riszoo.training.checkpoints import NOT_RECORDED

TESTS = "test-*/run.json"
TEMPLATE = Path(__file__).with_name("card.md")
SCENES = " `scenes` are drawings of coloured shapes: such a model is for trying the software, not for photographs."
TRAINED = "The model was trained on `{data}` alone; on other images and sentences"
UNKNOWN_TRAINING = "On images and sentences unlike those of the training"
COLUMNS = ("mIoU", "oIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")
Row = tuple[str, str, dict[str, float]]


@dataclass(frozen=True)
class Results:
    """A test of a checkpoint: what was run, and the values of each split and protocol by metric."""

    command: str
    commit: str
    device: str
    rows: list[Row]


def results_of(run: Path, sha256: str) -> Results | None:
    """The newest test in a run's folder of the checkpoint with this hash, on any data; None where there is none."""
    found: list[tuple[float, str, Results]] = []
    for file in run.glob(TESTS):
        try:
            about = json.loads(file.read_bytes())
            if about["checkpoint"]["sha256"] == sha256:
                metrics = json.loads((file.parent / "metrics.json").read_bytes())
                results = Results(about["command"], about["commit"], about["device"], _rows(metrics))
                found += [(float(about.get("started", 0)), file.parent.name, results)] if results.rows else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file.parent} is not a result of `riszoo test` ({error!s:.80}): remove it") from None
    return max(found, key=lambda each: each[:2])[2] if found else None


def _rows(metrics: dict[str, Any]) -> list[Row]:
    """The values of each split and protocol, without those under changed sentences (a control)."""
    return [
        (split, protocol, each["values"])
        for split, part in metrics["splits"].items()
        if part.get("chosen", {}).get("control", "none") == "none"
        for protocol, each in part["protocols"].items()
    ]


def results_yaml(results: Results, dataset: str) -> str:
    """The content of a file in `.eval_results/`: the mIoU of each split and protocol that has one."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{split}_{protocol}_miou",
            value=round(values["mIoU"], 2),
            notes=f"mIoU in percent, split {split}, protocol {protocol} of riszoo, {values['n']:.0f} sentences",
        )
        for split, protocol, values in results.rows
        if values["mIoU"] is not None
    ]
    content: str = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    return content


def model_card(config: dict[str, Any], results: Results | None, about: dict[str, str]) -> str:
    """The README.md of a repository: card.md with the model's configuration, its results and `about`."""
    run = config["run"]
    recipe = recipes.find("models", run["model"])
    own = recipe is None or not same_class(config["class_path"], str(recipe.content["class_path"]))
    named = config["class_path"] if own else run["model"]
    paper = {} if recipe is None or own else recipe.content
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        **about,
        model=run["model"],
        named=named,
        loaded=f'"{named}", "{about["address"]}"' if own else f'"{about["address"]}"',
        kind=(f"A model of the class `{named}`" if own else f"The recipe `{named}` of riszoo") + _training(run),
        trained=TRAINED.format(**run) if run["data"] != NOT_RECORDED else UNKNOWN_TRAINING,
        title=paper.get("title", config["class_path"]),
        reference=paper.get("reference", "-"),
        class_path=config["class_path"],
        size=config["init_args"].get("size", "-"),
        results=_results_text(results),
        scenes=SCENES if run["data"] == "scenes" else "",
    )


def _training(run: dict[str, str]) -> str:
    """What is recorded of a model's training."""
    parts = {"scale": f" at scale `{run['scale']}`", "data": f", trained on `{run['data']}`"}
    return "".join(text for name, text in parts.items() if run[name] != NOT_RECORDED)


def _results_text(results: Results | None) -> str:
    if results is None:
        return "Not measured: no test of this checkpoint was found beside it."
    header = f"| split | protocol | sentences | {' | '.join(COLUMNS)} |\n|---|---|---:|{'---:|' * len(COLUMNS)}"
    lines = [
        f"| {split} | {protocol} | {values['n']:.0f} | " + " | ".join(_number(values, name) for name in COLUMNS) + " |"
        for split, protocol, values in results.rows
    ]
    made = f"In percent, measured by `{results.command}` at commit {results.commit} on {results.device}."
    return "\n".join([header, *lines, "", made])


def _number(values: dict[str, float], name: str) -> str:
    return f"{values[name]:.2f}" if values.get(name) is not None else "-"
