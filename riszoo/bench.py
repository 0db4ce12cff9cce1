"""`riszoo bench`: train and test every recipe on a data set, one process each, and print what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from riszoo import recipes, runs
from riszoo.arguments import OneSentence
from riszoo.errors import UserError

CONTROLS = "none,shuffled,blank"


def main(argv: list[str]) -> int:
    parser = OneSentence(prog="riszoo bench", description=__doc__)
    parser.add_argument("--models", help="recipes, with commas; all when left out")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--scale", help="the data set's own when left out")
    parser.add_argument("--root", default="runs/bench", help="where the runs are kept; a finished one is not repeated")
    args = parser.parse_args(argv)
    recipes.get("data", args.data)
    scale = args.scale or recipes.default_scale(args.data)
    wanted = args.models.split(",") if args.models else _with_scale(scale)
    for name in wanted:
        if scale not in recipes.get("models", name).scales:
            raise UserError(recipes.unknown(f"scale of '{name}'", scale, recipes.get("models", name).scales))
    root = Path(args.root)
    lines, failed = [], []
    for place, name in enumerate(wanted, 1):
        print(f"[{place}/{len(wanted)}] {name} on {args.data}, scale {scale}", flush=True)
        try:
            lines += _rows(name, _measured(name, args.data, scale, root))
        except RuntimeError as error:
            failed.append(f"{name}: {error}")
    print(_table(lines))
    for failure in failed:
        print(f"riszoo: {failure}", file=sys.stderr)
    return 1 if failed else 0


def _with_scale(scale: str) -> list[str]:
    return [name for name in recipes.names("models") if scale in recipes.get("models", name).scales]


def _measured(name: str, data: str, scale: str, root: Path) -> Path:
    """The folder of a finished test; training and testing are each done only where they are missing."""
    common = ["--model", name, "--data", data, "--scale", scale, "--run.root", str(root)]
    run = _finished(root, name, data, scale)
    if run is None:
        _riszoo("fit", *common)
        run = _finished(root, name, data, scale)
    if run is None:
        raise RuntimeError(f"training left no finished run under {root}")
    tests = sorted(folder for folder in run.glob(f"test-{data}-*") if (folder / "metrics.json").is_file())
    if not tests:
        _riszoo("test", *common, "--ckpt_path", str(runs.checkpoint(run)), "--control", CONTROLS)
        tests = sorted(folder for folder in run.glob(f"test-{data}-*") if (folder / "metrics.json").is_file())
    return tests[-1]


def _finished(root: Path, name: str, data: str, scale: str) -> Path | None:
    found = []
    for folder in root.glob(f"{name}-{data}-*"):
        card = runs.card(folder) or {}
        same = (card.get("model"), card.get("data"), card.get("scale")) == (name, data, scale)
        if same and "training" in card and runs.checkpoint(folder).is_file():
            found.append(folder)
    return max(found, default=None, key=lambda folder: folder.name)


def _riszoo(*words: str) -> None:
    """One process a model: what one loses, memory included, the others keep."""
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "riszoo", *words], check=False).returncode
    if code:
        raise RuntimeError(f"'riszoo {' '.join(words)}' ended with exit code {code}")
    print(f"  {words[0]}: {time.monotonic() - started:.0f} s", flush=True)


def _rows(name: str, folder: Path) -> list[list[str]]:
    """One row a split: the numbers of the first protocol, and the gap to the shuffled control."""
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    training = (runs.card(folder.parent) or {})["training"]
    rows = []
    for split, values in _plain_splits(metrics).items():
        shuffled, blank = (_value(metrics, f"{split}-{control}", "mIoU") for control in ("shuffled", "blank"))
        gap = None if shuffled is None else values["mIoU"] - shuffled
        numbers = [values["oIoU"], values["mIoU"], values["Pr@0.5"], gap, blank]
        rows.append([name, split, *("-" if n is None else f"{n:.2f}" for n in numbers),
                     f"{training['sentences']:,}", f"{training['seconds'] / 60:.1f}"])  # fmt: skip
    return rows


def _plain_splits(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    found = {
        key: _values(metrics, key) for key, entry in metrics["splits"].items() if entry["chosen"]["control"] == "none"
    }
    return {key: values for key, values in found.items() if values}


def _values(metrics: dict[str, Any], split: str) -> dict[str, float]:
    protocols = metrics["splits"].get(split, {}).get("protocols", {})
    return dict(next(iter(protocols.values()))["values"]) if protocols else {}


def _value(metrics: dict[str, Any], split: str, name: str) -> float | None:
    return _values(metrics, split).get(name)


def _table(rows: list[list[str]]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="measured, protocol 'original'", caption="gap: mIoU less mIoU with shuffled sentences")
    for heading in ("model", "split", "oIoU", "mIoU", "Pr@0.5", "gap", "blank", "sentences trained", "minutes"):
        table.add_column(heading, justify="left" if heading in ("model", "split") else "right")
    for row in rows:
        table.add_row(*row)
    console = Console(width=100, record=True, file=sys.stdout)
    with console.capture() as text:
        console.print(table)
    return text.get()
