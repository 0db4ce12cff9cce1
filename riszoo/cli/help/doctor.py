"""`riszoo doctor`: versions, devices, data, weights and common faults, one line each, to copy into an issue."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

from riszoo import recipes, shipped
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.training import runs

VARIABLES = (
    *("RISZOO_DATA", "RISZOO_DOWNLOAD", "HF_HUB_OFFLINE", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME", "WANDB_MODE"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONPATH"),
)
LEAST_DISK, LEAST_SHARED = 2 << 30, 1 << 30
"""Bytes below which a disk or the shared memory of loading processes is reported."""


class Finding(NamedTuple):
    """One line of the report; a fault says what to do."""

    subject: str
    text: str
    fault: bool = False

    def __str__(self) -> str:
        return f"{'FAULT' if self.fault else 'ok   '} {self.subject:<10}{self.text}"


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo doctor", description=__doc__)
    parser.add_root()
    parser.add_argument(
        "--run.root", dest="runs", type=Path, default=Path("runs"), help="the folder of the run folders"
    )
    return parser


def main(argv: list[str]) -> int:
    """Exit code 1 where anything is at fault."""
    args = parser().parse_args(argv)
    faults = 0
    for finding in findings(args.root, args.runs):
        faults += finding.fault
        print(finding, flush=True)
    return 1 if faults else 0


def findings(data_root: str | None, run_root: Path) -> Iterator[Finding]:
    """Every line of the report."""
    yield from installation()
    yield from packages()
    yield from devices()
    yield from data_sets(data_root)
    yield from weights(run_root)
    yield from disks(run_root)
    given = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    yield Finding("variables", " ".join(given) or "none that riszoo reads")


def installation() -> Iterator[Finding]:
    """riszoo itself, its recipes, Python and the operating system."""
    from riszoo.training.provenance import commit, versions

    package = Path(recipes.__file__).parent
    code = commit()
    yield Finding("riszoo", f"{versions()['riszoo']}, {code if code == 'installed' else f'commit {code}'}, {package}")
    if not recipes.folders():
        yield Finding("recipes", f"{package} has no configs folder: install riszoo again", True)
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")


def packages() -> Iterator[Finding]:
    """The versions of the dependencies, and those that do not fit."""
    from packaging.requirements import Requirement

    from riszoo.training.provenance import versions

    yield Finding(
        "packages",
        ", ".join(f"{name} {found}" for name, found in versions().items() if name not in ("riszoo", "python")),
    )
    try:
        needed = [Requirement(line) for line in requires("riszoo") or []]
    except PackageNotFoundError:
        needed = []  # run from a checkout that is not installed
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _misfit(requirement.name, str(requirement.specifier))
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # builds of torch and torchvision that do not match raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Finding("packages", f"torchvision cannot be imported ({reason}): install it together with torch", True)


def _misfit(name: str, specifier: str) -> Iterator[Finding]:
    """A fault where a package is missing or its version is not allowed."""
    from packaging.specifiers import SpecifierSet

    try:
        found = version(name)
    except PackageNotFoundError:
        yield Finding("packages", f"{name} is missing: pip install '{name}{specifier}'", True)
        return
    if not SpecifierSet(specifier).contains(found, prereleases=True):
        yield Finding("packages", f"{name} {found} does not fit: pip install '{name}{specifier}'", True)


def devices() -> Iterator[Finding]:
    """Processor, memory shared by loading processes, and GPUs."""
    import torch

    yield Finding("cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}")
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).total < LEAST_SHARED:
        size = _gigabytes(shutil.disk_usage(shared).total)
        yield Finding("memory", f"/dev/shm has {size}: give docker --shm-size 8g, or riszoo --data.workers 0", True)
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield Finding("gpu", f"{index}: {about.name}, {_gigabytes(about.total_memory)}, CUDA {torch.version.cuda}")
    if not torch.cuda.is_available():
        yield _without_gpu(torch.version.cuda)


def _without_gpu(cuda: str | None) -> Finding:
    """Why torch finds no GPU; a fault where the machine has one that was not hidden."""
    if not Path("/dev/nvidia0").exists() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return Finding("gpu", "none")
    if cuda is None:
        return Finding("gpu", "there is an NVIDIA GPU, and torch is built without CUDA: install a CUDA build", True)
    return Finding("gpu", f"torch does not find the NVIDIA GPU: the driver may be older than CUDA {cuda}", True)


def data_sets(root: str | None) -> Iterator[Finding]:
    """The data sets whose annotation files exist."""
    from riszoo.data.readers.catalogue import READERS
    from riszoo.data.readers.opening import Options

    folder = Options(root=root).folder()
    found = [
        name
        for name, reader in READERS.items()
        if any(
            path.exists()
            for unit in reader.all_units(folder)
            for files in reader.choices(folder, unit)
            for path in files
        )
    ]
    yield Finding("data", f"{folder}: {', '.join(found) or 'no data set'}; scenes is embedded")


def weights(root: Path) -> Iterator[Finding]:
    """The newest run of each model and data set, and the caches of pretrained weights."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(root.glob(f"*/{runs.CARD}")) if root.is_dir() else []:
        card = runs.card(path.parent) or {}
        if runs.checkpoint(path.parent).is_file() or runs.checkpoint(path.parent, "last").is_file():
            found[str(card.get("model")), str(card.get("data"))] = path.parent
    names = [f"{model} on {data}" for model, data in found]
    yield Finding("runs", f"{root}: {', '.join(names) or 'no run with a checkpoint'}")
    yield from shipped_weights()
    import torch
    from huggingface_hub import constants

    hub, files = Path(constants.HF_HUB_CACHE), Path(torch.hub.get_dir()) / "checkpoints"
    repositories, count = len(list(hub.glob("models--*"))), len(list(files.glob("*.*")))
    download = "allowed" if os.environ.get("RISZOO_DOWNLOAD") == "1" else "off (RISZOO_DOWNLOAD=1 allows it)"
    yield Finding("cache", f"{hub}: {repositories} models; {files}: {count} files; download {download}")


def shipped_weights() -> Iterator[Finding]:
    """The weights that riszoo ships, and those of them that are damaged."""
    names = []
    for path in shipped.files().values():
        try:
            names.append(f"{path.stem} on {shipped.origin(path).data}")
        except UserError as error:
            yield Finding("weights", str(error), True)
    yield Finding("weights", f"{shipped.folder()}: {', '.join(names) or 'none'} (shipped)")


def disks(root: Path) -> Iterator[Finding]:
    """The disks of runs and cached features."""
    from riszoo.data.features import default_folder

    for subject, folder in (("disk", root), ("features", default_folder())):
        path = folder.expanduser().absolute()
        existing = next(each for each in (path, *path.parents) if each.exists())
        free = shutil.disk_usage(existing).free
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            yield Finding(subject, f"{path} cannot be written: choose another folder", True)
        elif free < LEAST_DISK:
            yield Finding(subject, f"{path} has {_gigabytes(free)} free: a training needs more", True)
        else:
            yield Finding(subject, f"{path}: {_gigabytes(free)} free")


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
