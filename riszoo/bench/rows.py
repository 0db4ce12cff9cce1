"""The CSV files of measurements: rows are inserted or replaced by key, safely for several processes at once."""

from __future__ import annotations

import csv
import fcntl
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from riszoo import shipped
from riszoo.bench.plan import Job
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.metrics.results import RUN, read_metrics
from riszoo.training import runs

Row = dict[str, str]
PROVENANCE = (
    "commit",
    "versions",
    "device",
    "devices",
    "precision",
    "weights",
    "config",
    "command",
    "training_command",
)


LONGEST_CELL = 1 << 24
"""Characters of a cell: `images.csv.gz` has a number for each image of a split in one."""


@dataclass(frozen=True)
class Table:
    """One CSV file: its name, the columns that identify a row, and the other columns."""

    file: str
    key: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.key + self.values

    def row(self, values: Mapping[str, Any]) -> Row:
        """The values of its columns as the file has them."""
        return {name: as_text(values.get(name)) for name in self.columns}

    def read(self, folder: Path) -> list[Row]:
        """Every row of the folder's file; none if it does not exist."""
        return read_csv(folder / self.file, self.columns)


KEY = ("data", "model", "scale", "trained", "variant")
ACCURACY = Table(
    "accuracy.csv",
    (*KEY, "split", "control", "protocol", "seed"),
    (
        "oIoU", "oIoU_low", "oIoU_high", "mIoU", "mIoU_low", "mIoU_high",
        "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9", "gIoU", "cIoU", "N-acc", "T-acc",
        "sentences", "images", "images_trained_on", "training_sentences", "training_seconds", *PROVENANCE,
    ),
)  # fmt: skip
TYPES = Table("types.csv", (*KEY, "split", "protocol", "seed", "type"), ("mIoU", "oIoU", "sentences", "weights"))
SPEED = Table(
    "speed.csv",
    ("data", "model", "scale", "variant", "device"),
    (
        "parameters", "trained_parameters", "gflop_1_sentence", "gflop_7_sentences",
        "ms_1_sentence", "ms_1_sentence_spread", "ms_7_sentences", "ms_7_sentences_spread",
        "train_images_per_s", "train_sentences_per_s", "train_batch", "train_gflop", "matrix_share", "peak_memory_mib",
        "commit", "versions", "precision", "config", "command",
    ),
)  # fmt: skip


def pages_of(folder: Path) -> Path:
    """The folder of the pages made from the CSV files: docs/results in a checkout, otherwise the files' own folder."""
    pages = folder.resolve().parent / "docs" / "results"
    return pages if pages.is_dir() else folder


def read_csv(path: Path, columns: Iterable[str] = ()) -> list[Row]:
    """Every row of a file, which must have these columns; none if it does not exist."""
    if not path.is_file():
        return []
    csv.field_size_limit(LONGEST_CELL)
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="") as file
        ):
            rows = [{name: value or "" for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise UserError(f"{path} is not a readable CSV file ({error}): restore it") from None
    missing = next((column for column in columns if rows and column not in rows[0]), None)
    if missing is not None:
        raise UserError(f"{path} has no column '{missing}': restore the file")
    return rows


def upsert(
    folder: Path, table: Table, rows: Iterable[Mapping[str, Any]], keep: Callable[[Row], bool] = lambda row: True
) -> None:
    """Replaces the row with the same key, or adds the row; the file stays sorted by key, with the old rows to keep."""
    path = folder / table.file
    with _locked(path):
        kept = {_key(row, table): row for row in table.read(folder) if keep(row)}
        for row in map(table.row, rows):
            kept[_key(row, table)] = row
        content = _csv(table, [kept[key] for key in sorted(kept)])
        write_atomically(path, gzip.compress(content.encode(), mtime=0) if path.suffix == ".gz" else content)


def _key(row: Mapping[str, str], table: Table) -> tuple[str, ...]:
    return tuple(row.get(name, "") for name in table.key)


def as_text(value: Any) -> str:
    """A value as the files have it: floats with six digits, None as an empty text."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _csv(table: Table, rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, table.columns, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time. The lock is a file of its own because every change replaces the CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def of_one_device(speed: Sequence[Row]) -> list[Row]:
    """The rows of the device on which most rows were measured: times of different devices do not compare."""
    count = Counter(row["device"] for row in speed)
    most = max(sorted(count), key=lambda device: count[device], default="")
    return [row for row in speed if row["device"] == most]


def number_in(row: Row, column: str, table: Table) -> float:
    """The number in a column of a table's row, which must have one."""
    try:
        return float(row[column])
    except ValueError:
        name = ", ".join(f"{key} {row[key]}" for key in table.key if row.get(key))
        raise UserError(
            f"{table.file}: '{row[column]:.40}' in the column {column} of the row {name} is not a number: correct the "
            "row, or remove it and measure again"
        ) from None


# -- rows of a test ---------------------------------------------------------------------------------------------------


def circumstances(folder: Path) -> dict[str, Any]:
    """The content of a test's run.json."""
    try:
        content: dict[str, Any] = json.loads((folder / RUN).read_bytes())
    except (OSError, json.JSONDecodeError):
        raise UserError(f"{folder} contains no readable {RUN}: test the run again") from None
    return content


def measured(job: Job, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of a test for accuracy.csv and for types.csv."""
    accuracy, types = [], []
    run = circumstances(folder)
    card = training_card(folder, run)
    for entry in read_metrics(folder)["splits"].values():
        shared = key_columns(job, entry) | _provenance(job, run, card, str(entry["split"]))
        for protocol, result in entry["protocols"].items():
            row = shared | {"protocol": protocol, "control": entry["chosen"].get("control", "none")}
            numbers = {name: result["values"].get(name) for name in ACCURACY.values if name in result["values"]}
            sizes = {"sentences": entry["sentences"], "images": entry["images"]}
            accuracy.append(row | numbers | _bounds(result["intervals"]) | sizes)
            if row["control"] == "none":
                types += [row | {"type": name} | values for name, values in result["by_type"].items()]
    return _of_variants(job, accuracy), _of_variants(job, types)


def record(
    folder: Path, accuracy: Sequence[Mapping[str, Any]], types: Sequence[Mapping[str, Any]], job: Job | None = None
) -> int:
    """Replace or add the rows of a test; returns how many rows were removed because they do not belong beside them.

    Rows of the same seed are of one training, and rows of other seeds of trainings of the same length and, where a
    bench has trained them, of the recipe that the job has now: otherwise a short trial would be averaged with them,
    and its language gap taken from theirs.
    """
    accuracy = [*map(ACCURACY.row, accuracy)]
    seeds = {(*(row[name] for name in KEY), row["seed"]): row["weights"] for row in accuracy}
    lengths = {tuple(row[name] for name in KEY): row["training_sentences"] for row in accuracy}
    replaced = {_key(row, ACCURACY) for row in accuracy}
    removed: list[Row] = []

    def belongs(row: Row) -> bool:
        group = tuple(row[name] for name in KEY)
        length, trained = lengths.get(group, ""), row["training_sentences"]
        same_training = seeds.get((*group, row["seed"]), row["weights"]) == row["weights"]
        same_recipe = group not in lengths or job is None or not _is_of_another_recipe(row, job)
        if same_training and same_recipe and (length == trained or not length or not trained):
            return True
        removed.extend([row] * (_key(row, ACCURACY) not in replaced))
        return False

    upsert(folder, ACCURACY, accuracy, belongs)
    gone = {(*(row[name] for name in KEY), row["seed"], row["weights"]) for row in removed}

    def is_of_a_row(row: Row) -> bool:
        training = (*(row[name] for name in KEY), row["seed"])
        return (*training, row["weights"]) not in gone and seeds.get(training, row["weights"]) == row["weights"]

    upsert(folder, TYPES, types, is_of_a_row)
    return len(removed)


def _is_of_another_recipe(row: Row, job: Job) -> bool:
    """Whether a bench has trained the row with another recipe than the one of a job of the same model."""
    own = replace(job, seed=int(row["seed"]))
    checkpoint = row["command"].partition("--ckpt_path ")[2].partition(" --")[0]
    is_of_a_bench = f"-seed{row['seed']}-{row['config']}/" in checkpoint
    return is_of_a_bench and job.checkpoint is None and row["config"] != own.digest


def _of_variants(job: Job, measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same rows under the name of each variant."""
    return [{**row, "variant": variant} for variant in job.variants for row in measured]


def training_card(test: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """The run.json of the training: as the tested .safetensors file carries it, or that of the run with the test."""
    tested = Path((run["checkpoint"] or {}).get("path", ""))
    carried = shipped.card(tested) if tested.suffix == shipped.SUFFIX and tested.is_file() else {}
    return carried or runs.card(test.parent) or {}


def key_columns(job: Job, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The key columns. A split of mixed data is named `set/split` and belongs to that set."""
    data, _, split = str(entry["split"]).rpartition("/")
    who = {"model": job.model, "scale": job.scale, "trained": job.data, "seed": job.seed}
    return {**who, "data": data or job.data, "split": split}


def _provenance(job: Job, run: Mapping[str, Any], card: Mapping[str, Any], split: str) -> dict[str, Any]:
    training = card.get("training", {})
    return {
        "images_trained_on": run.get("images_trained_on", {}).get(split),
        "training_sentences": training.get("sentences"),
        "training_seconds": training.get("seconds"),
        "commit": run["commit"],
        "versions": " ".join(f"{name} {number}" for name, number in run["versions"].items()),
        "device": run["device"],
        "devices": run["devices"],
        "precision": run["precision"],
        "weights": (run["checkpoint"] or {}).get("sha256"),
        "config": job.digest,
        "command": run["command"],
        "training_command": card.get("command"),
    }


def _bounds(intervals: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {
        f"{name}_{end}": float(value)
        for name, pair in intervals.items()
        for end, value in zip(("low", "high"), pair, strict=True)
    }
