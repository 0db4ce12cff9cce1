"""What a continued training keeps of its first part: the curves, and the configuration except what the user changes."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger

from riszoo.files import write_atomically
from riszoo.recipes import Config

NOT_COMPARED = ("ckpt_path", "weights_only", "run.root", "model.vision.weights", "model.text.weights")
"""Options that differ by themselves: a checkpoint contains the weights that a training starts from."""


def changed_options(saved: Config, current: Config) -> str:
    """One line that names the options whose values differ from the saved configuration; empty where none does."""
    before, after = _flat(saved), _flat(current)
    changes = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in after.items()
        if name not in NOT_COMPARED and before.get(name) != value
    ]
    return f"changed from the saved configuration: {', '.join(changes)}" if changes else ""


def _flat(config: Config, prefix: str = "") -> dict[str, Any]:
    """Every option by its name on the command line."""
    options: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".lstrip(".")
        options |= _flat(value, name) if isinstance(value, dict) and value else {name: value}
    return options


def keep_curves(logger: CSVLogger, path: Path, step: int) -> None:
    """Keep the rows of the first `step` steps, which Lightning's logger would delete.

    The validation after the last of these steps is repeated, so its row is left out.
    """
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    kept = [row for row in rows if _is_kept(row, step)]
    experiment = logger.experiment  # deletes the file
    if kept:
        experiment.metrics_keys = list(rows[0])
        text = io.StringIO()
        writer = csv.DictWriter(text, experiment.metrics_keys)
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(path, text.getvalue())


def _is_kept(row: dict[str, str], step: int) -> bool:
    """Whether a row belongs to the first `step` steps; a row that a crash has cut off does not."""
    index = row.get("step")
    if not index or int(index) >= step:
        return False
    return int(index) < step - 1 or not row.get("val/mIoU")
