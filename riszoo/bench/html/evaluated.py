"""The results of tests, validations and scored masks, as the report compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from riszoo import recipes
from riszoo.bench.rows import circumstances, read_csv
from riszoo.build import instantiate
from riszoo.data.datamodule import RISData
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.files import file_hash
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.results import Evaluation, protocols_of, read_evaluation, read_metrics, result_folder
from riszoo.metrics.summary import sentence_value
from riszoo.training import runs


@dataclass(frozen=True)
class EvaluatedRun:
    """A folder of results and the name that the report shows."""

    name: str
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The file that the test names, or the best checkpoint of the run that contains the test, with its weights."""
        tested = circumstances(self.folder).get("checkpoint") or {}
        named, sha256 = tested.get("path"), tested.get("sha256")
        candidates = [Path(str(named))] * bool(named) + [runs.checkpoint(self.folder.parent)]
        existing = [path for path in candidates if path.is_file()]
        found = next((path for path in existing if sha256 is None or file_hash(path) == sha256), None)
        if found is None:
            state = f"changed since: {existing[0]} has other weights" if existing else "missing"
            raise UserError(f"the checkpoint of {self.folder} is {state}; restore {named} to draw its masks")
        return found

    @property
    def predictions(self) -> Path | None:
        """The masks of other code that `riszoo score` measured; None for a model's run."""
        path = circumstances(self.folder).get("predictions")
        return None if path is None else Path(str(path))

    @property
    def splits(self) -> list[str]:
        """The splits measured with their own sentences, without a control."""
        splits = read_metrics(self.folder)["splits"]
        return [name for name, entry in splits.items() if entry["chosen"].get("control", "none") == "none"]

    @property
    def protocols(self) -> list[Protocol]:
        """The protocols in the order they were asked for; they are the same for all splits."""
        return [protocol for split in self.splits[:1] for protocol in protocols_of(self.metrics(split))]

    def metrics(self, split: str) -> dict[str, Any]:
        """The split's entry of metrics.json."""
        entry: dict[str, Any] = read_metrics(self.folder)["splits"][split]
        return entry

    def control(self, split: str, name: str) -> dict[str, Any] | None:
        """The entry of the same split with its sentences replaced by this control, if the test measured it."""
        entries = read_metrics(self.folder)["splits"].values()
        wanted = (self.metrics(split)["split"], name)
        return next((e for e in entries if (e["split"], e["chosen"].get("control")) == wanted), None)

    def evaluation(self, split: str) -> Evaluation:
        return read_evaluation(self.folder, split)

    def split(self, name: str) -> Split:
        """A split as the test opened it; raises UserError where it is another one now."""
        split = self._data().split(name)
        tested = circumstances(self.folder).get("data")
        known = tested.get(name) if isinstance(tested, dict) else None
        if known is not None and split.fingerprint() != known:
            raise UserError(
                f"split '{name}' is not the one that {self.folder} was measured on: restore it, or test again"
            )
        return split

    def _data(self) -> RISData:
        """The data module with the test's own configuration; that of the recipe for scored masks."""
        config, origin = self.folder.parent / runs.CONFIG, circumstances(self.folder)
        if self.predictions is not None:
            section = recipes.data_section(str(origin.get("data")), origin.get("root"))
        elif "data_section" in origin:
            section = origin["data_section"]
        elif config.is_file():
            section = recipes.read_yaml(config)["data"]
        else:
            card = runs.card(self.folder.parent) or {}
            section = recipes.resolve(str(card.get("model")), str(card.get("data")), str(card.get("scale")))["data"]
        return instantiate(RISData, section)  # type: ignore[type-abstract]

    def curve(self, column: str) -> list[tuple[float, float]]:
        """(step, value) logged during training, without the final validation, which uses other images."""
        if self.predictions is not None:
            return []
        steps = (runs.card(self.folder.parent) or {}).get("training", {}).get("steps", float("inf"))
        points = [(float(row["step"]), row.get(column)) for row in read_csv(self.folder.parent / "metrics.csv")]
        return [(step, float(value)) for step, value in points if value and step < steps]


def find_runs(paths: Sequence[Path]) -> list[EvaluatedRun]:
    """One run for each path; runs of the same model get numbers."""
    found = [find_run(path) for path in paths]
    names = [run.name for run in found]
    return [
        EvaluatedRun(name if names.count(name) == 1 else f"{name} {names[: index + 1].count(name)}", run.folder)
        for index, (name, run) in enumerate(zip(names, found, strict=True))
    ]


def find_run(path: Path) -> EvaluatedRun:
    """The results of a run's, a test's or a score's folder; named by the model, or by the file of the scored masks."""
    folder = result_folder(path)
    masks = EvaluatedRun("", folder).predictions
    if masks is not None:
        return EvaluatedRun(masks.stem, folder)
    return EvaluatedRun(str((runs.card(folder.parent) or {}).get("model", folder.parent.name)), folder)


def common_protocols(found: Sequence[EvaluatedRun]) -> list[Protocol]:
    """Every protocol of the runs, in the order they were asked for; those that all runs share come first."""
    by_name: dict[str, Protocol] = {}
    for run in found:
        for protocol in run.protocols:
            if by_name.setdefault(protocol.name, protocol) != protocol:
                raise UserError(
                    f"protocol '{protocol.name}' has another definition in {run.folder}: test that run again"
                )
    return sorted(by_name.values(), key=lambda protocol: not all(protocol in run.protocols for run in found))


def sentence_ious(result: Evaluation, protocol: Protocol) -> list[float]:
    """Each sentence's IoU under a protocol; 1 or 0 for sentences without a target."""
    return [float(value) for value in np.nan_to_num(sentence_value(result.table, protocol))]
