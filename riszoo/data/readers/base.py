"""What a reader of one data set must provide: its files, splits and published counts, and its records."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from riszoo.data.record import Record
from riszoo.errors import UserError

Report = Callable[[str, str], None]
"""Called with the id of a record that is left out, and the reason."""

COCO_FOLDERS = (
    "images/mscoco/images/train2014", "images/mscoco/train2014", "images/train2014", "images/coco/train2014",
    "images/coco2014/train2014", "mscoco/images/train2014", "mscoco/train2014", "coco/train2014",
    "coco/images/train2014", "coco2014/train2014", "train2014",
)  # fmt: skip
COCO_FILE = re.compile(r"(?:COCO_(?:train|val)2014_)?0*(\d{1,12})(?:_\d+)?\.jpe?g", re.IGNORECASE)


class Counts(NamedTuple):
    """The published size of a split; None where nothing was published."""

    targets: int | None
    sentences: int | None
    images: int | None


class Reader(ABC):
    """One data set under one partition.

    name        its name in results; `dataset` is the name of its folder, `by` of its partition
    publisher   who publishes the files
    archive     the address of an archive copy, where the publisher's own server no longer answers
    folders     spellings of the image folder, below the root
    published   counts that `riszoo data check` compares with
    absent      images that are listed and were never published
    own_masks   whether the mask files are the user's own, all of which `riszoo data check` reads
    """

    name: str
    dataset: str
    by: str
    publisher: str
    archive: str = ""
    images_from: str
    folders: tuple[str, ...]
    published: dict[str, Counts]
    absent: tuple[str, ...] = ()
    own_masks: bool = False

    def has(self, filed: str, split: str) -> bool:
        """Whether a record filed under one split belongs to the requested one."""
        return matches(filed, split)

    @abstractmethod
    def units(self, split: str) -> tuple[str, ...]:
        """The annotation units a split is read from; most sets file all splits in one."""

    @abstractmethod
    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        """The files of a unit, each with its accepted spellings, the usual one first."""

    @abstractmethod
    def records(self, files: list[Path], unit: str, report: Report) -> Iterator[Record]:
        """Every valid record of a unit, usually one a target; the others are reported."""

    def check_split(self, split: str) -> None:  # noqa: B027 - most sets have nothing to check
        """Raises a UserError for a split that is known not to exist, with the reason."""

    def extract(self, root: Path) -> Path | None:
        """Write images that the annotation files contain to the image folder; None if nothing is to be written."""
        return None

    def all_units(self, root: Path) -> tuple[str, ...]:
        """Every unit that `riszoo data check` and `prepare` read."""
        return tuple(dict.fromkeys(unit for split in self.published for unit in self.units(split)))

    def files(self, root: Path, unit: str) -> list[Path]:
        """The files of a unit, or a UserError that names the missing ones, their folder and their publisher."""
        found = [next((path for path in spellings if path.is_file()), None) for spellings in self.choices(root, unit)]
        missing = [
            " or ".join(path.name for path in spellings)
            for spellings, path in zip(self.choices(root, unit), found, strict=True)
            if path is None
        ]
        if missing:
            folder = self.choices(root, unit)[0][0].parent
            raise UserError(
                f"{self.name}: {' and '.join(missing)} not found in {folder}: {self.advice}, or name another root "
                "(--data.root in a run, --root in other verbs, or the variable RISZOO_DATA)"
            )
        return [path for path in found if path is not None]

    def optional_files(self, files: list[Path]) -> list[Path]:
        """What the records depend on beside a unit's files, as far as it exists."""
        return []

    @property
    def advice(self) -> str:
        """What to do about missing files."""
        return f"get the files from {self.publisher} and put them there"

    def masks_folder(self, files: list[Path]) -> Path:
        """The folder that paths of mask files are relative to."""
        return files[0].parent

    def index_file(self, root: Path, unit: str, prepared: Path | None) -> Path:
        """The path of a unit's prepared index: beside the annotations, or in the folder given."""
        folder = prepared or self.choices(root, unit)[0][0].parent
        return folder / f"riszoo-{self.dataset}({unit}).index"


def matches(filed: str, requested: str) -> bool:
    """Whether a record filed under one split belongs to the requested one, by the official rules.

    A letter is enough for testA, testB and testC (ReferIt files `testAB`), the word for `test`; the rest is exact.
    """
    if requested in ("testA", "testB", "testC"):
        return requested[-1] in filed
    if requested == "test":
        return "test" in filed
    if requested == "trainval":
        return filed in ("train", "val")
    return filed in ("val", "miniv") if requested == "val_miniv" else filed == requested


def coco_key(file: str) -> str | None:
    """The key of a COCO image by its file name, in any data set."""
    found = COCO_FILE.fullmatch(Path(file).name)
    return f"coco:{found[1]}" if found else None


def lower_tokens(text: str) -> str:
    """A sentence lower-cased, its words joined by single blanks, where a data set does not file this form itself."""
    return " ".join(text.lower().split())
