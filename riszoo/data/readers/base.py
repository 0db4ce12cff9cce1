"""What a data set is on disk: its files, its splits, what was published about it, and how it is read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from riszoo.data.index import Ref
from riszoo.errors import UserError

Report = Callable[[str, str], None]
"""Told the id of a record that is left out, and why."""

COCO_FOLDERS = (
    "images/mscoco/images/train2014", "images/mscoco/train2014", "images/train2014", "images/coco/train2014",
    "images/coco2014/train2014", "mscoco/images/train2014", "mscoco/train2014", "coco/train2014",
    "coco/images/train2014", "coco2014/train2014", "train2014",
)  # fmt: skip
COCO_FILE = re.compile(r"(?:COCO_(?:train|val)2014_)?0*(\d{1,12})(?:_\d+)?\.jpe?g", re.IGNORECASE)


class Counts(NamedTuple):
    """What a split holds; None where nothing was published."""

    targets: int | None
    sentences: int | None
    images: int | None


class Reader(ABC):
    """One data set under one partition.

    name        what results call it; `dataset` is the name of its folder, `by` of its partition
    publisher   who gives the files out, in words
    folders     spellings of the image folder, beneath the root
    published   counts that the check compares with
    absent      images that are listed and were never given out
    """

    name: str
    dataset: str
    by: str
    publisher: str
    images_from: str
    folders: tuple[str, ...]
    published: dict[str, Counts]
    absent: tuple[str, ...] = ()

    @abstractmethod
    def units(self, split: str) -> tuple[str, ...]:
        """The annotation units a split is read from; most sets file all splits in one."""

    @abstractmethod
    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        """The files of a unit, each with its accepted spellings, the usual one first."""

    @abstractmethod
    def refs(self, files: list[Path], unit: str, report: Report) -> Iterator[Ref]:
        """Every sound record of a unit; the others are reported."""

    def refuse(self, split: str) -> None:  # noqa: B027 - most sets refuse nothing
        """A UserError for a split that is known not to exist, with the reason."""

    def all_units(self, root: Path) -> tuple[str, ...]:
        """Every unit that a check or a preparation visits."""
        return tuple(dict.fromkeys(unit for split in self.published for unit in self.units(split)))

    def files(self, root: Path, unit: str) -> list[Path]:
        """The files of a unit, or a UserError that names what is needed, where, and who publishes it."""
        found = [next((path for path in spellings if path.is_file()), None) for spellings in self.choices(root, unit)]
        missing = [
            " or ".join(path.name for path in spellings)
            for spellings, path in zip(self.choices(root, unit), found, strict=True)
            if path is None
        ]
        if missing:
            folder = self.choices(root, unit)[0][0].parent
            raise UserError(
                f"{self.name}: {' and '.join(missing)} not found in {folder}: {self.advice}, or name another root with "
                "--data.root or the variable RISZOO_DATA"
            )
        return [path for path in found if path is not None]

    @property
    def advice(self) -> str:
        """What to do about missing files."""
        return f"get the files from {self.publisher} and put them there"

    def masks_folder(self, files: list[Path]) -> Path:
        """Where masks in files of their own are named from."""
        return files[0].parent

    def index_file(self, root: Path, unit: str, prepared: Path | None) -> Path:
        """Where the prepared index of a unit lies: beside the annotations, or in a folder of one's own."""
        folder = prepared or self.choices(root, unit)[0][0].parent
        return folder / f"riszoo-{self.dataset}({unit}).index"


def matches(filed: str, wanted: str) -> bool:
    """Whether a record filed under one split belongs to the wanted one, by the official rules.

    A letter is enough for testA, testB and testC (ReferIt files `testAB`), the word for `test`; the rest is exact.
    """
    if wanted in ("testA", "testB", "testC"):
        return wanted[-1] in filed
    if wanted == "test":
        return "test" in filed
    if wanted == "trainval":
        return filed in ("train", "val")
    return filed in ("val", "miniv") if wanted == "val_miniv" else filed == wanted


def coco_key(file: str) -> str | None:
    """The key of a COCO image by its file name, whatever set it comes in."""
    found = COCO_FILE.fullmatch(Path(file).name)
    return f"coco:{found[1]}" if found else None
