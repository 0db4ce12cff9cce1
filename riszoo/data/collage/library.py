"""The cut-outs of a folder: which files, what they show, and their pixels.

The stamps of Tux Paint (Debian's package tuxpaint-stamps-default) are described by `stamps.csv` beside this file. Any
other folder may contain `cutouts.csv` or `cutouts.json` with the columns `file`, `noun` and, if known, `plural`,
`kinds` (separated by semicolons, nearest first), `size` (1 to 5), `medium`, `unseen` and `sha256`. Without such a file,
the name of an image is its noun and the names of its folders, in the singular, are its kinds.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from riszoo.data.collage.nouns import ANYTHING, plural_of, singular_of
from riszoo.data.generated.rng import RandomStream
from riszoo.errors import LONGEST_NAME, UserError, nearest_name
from riszoo.files import states_hash

Level = NDArray[np.uint8]  # (h, w, 4): premultiplied RGB and alpha

VARIABLE = "RISZOO_CUTOUTS"
PACKAGE = "tuxpaint-stamps-default"
AGAIN = f"install {PACKAGE} 2022.06.04 again"
FOLDERS = (
    "/usr/share/tuxpaint/stamps",
    "/usr/local/share/tuxpaint/stamps",
    "/opt/homebrew/share/tuxpaint/stamps",
    "/Library/Application Support/TuxPaint/stamps",
)
"""Where packages install the stamps."""
STAMPS = Path(__file__).with_name("stamps.csv")
TABLES = ("cutouts.csv", "cutouts.json")
SUFFIXES = (".png", ".webp")
LARGEST_TABLE, LARGEST_SIDE, STORED_SIDE = 4 << 20, 8192, 512
SIZES = range(1, 6)
WORDS = {"noun", "plural", "kinds"}
UNSEEN_SHARE = 6
"""One noun in so many is held out where a table says nothing of it."""
YES_OR_NO = {"": False, "no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}
OPAQUE = 128
COLUMNS = ("file", "noun", "plural", "kinds", "size", "medium", "unseen", "sha256")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one cut-out shows.

    kinds   what its noun is a kind of, nearest first
    size    from 1 (a mouse) to 5 (an elephant)
    unseen  whether its noun is kept out of training
    """

    file: str
    noun: str
    plural: str
    kinds: tuple[str, ...] = ()
    size: int = 3
    unseen: bool = False
    sha256: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Every word for it: its noun, then its kinds."""
        return self.noun, *self.kinds


@dataclass(frozen=True, slots=True)
class Cutout:
    """The pixels of a cut-out, cropped to what is opaque: at full size, at half of it, at a quarter ..."""

    levels: tuple[Level, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the largest level."""
        return self.levels[0].shape[0], self.levels[0].shape[1]

    @property
    def opaque(self) -> int:
        """The opaque pixels of the largest level."""
        return int((self.levels[0][..., 3] >= OPAQUE).sum())


class Library:
    """The cut-outs of a folder, each decoded once, when first used.

    `state` is a hash of the files whose content the table does not fix; empty where it fixes all.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry]) -> None:
        self.folder = folder
        self.entries = tuple(entries)
        self.state = states_hash(folder / entry.file for entry in self.entries if not entry.sha256)
        self._cutouts: dict[int, Cutout] = {}

    @cached_property
    def digest(self) -> str:
        """A hash of the table."""
        rows = [[str(getattr(entry, field.name)) for field in fields(Entry)] for entry in self.entries]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @cached_property
    def by_noun(self) -> Mapping[str, tuple[int, ...]]:
        """The cut-outs of each noun."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for index, entry in enumerate(self.entries):
            found[entry.noun].append(index)
        return {noun: tuple(indices) for noun, indices in found.items()}

    @cached_property
    def kinds(self) -> Mapping[str, tuple[str, ...]]:
        """The kinds of each noun."""
        return {noun: self.entries[indices[0]].kinds for noun, indices in self.by_noun.items()}

    @cached_property
    def unseen(self) -> frozenset[str]:
        """The nouns that are kept out of training."""
        return frozenset(entry.noun for entry in self.entries if entry.unseen)

    @cached_property
    def plurals(self) -> Mapping[str, str]:
        """The plural of every noun and kind."""
        words = {kind: plural_of(kind) for entry in self.entries for kind in entry.kinds}
        return words | {entry.noun: entry.plural for entry in self.entries}

    def cutout(self, index: int) -> Cutout:
        """The pixels of a cut-out."""
        if index not in self._cutouts:
            entry = self.entries[index]
            self._cutouts[index] = _read_cutout(self.folder / entry.file, entry.sha256, _advice(self.folder))
        return self._cutouts[index]


@lru_cache(maxsize=4)
def open_library(folder: str) -> Library:
    """The cut-outs of a folder, shared by the splits of a process."""
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"--data.cutouts {folder} is not a folder: give one with cut-outs (PNG with transparency)")
    entries = _entries(root)
    for entry in entries:
        if not (root / entry.file).is_file():
            raise UserError(f"{root / entry.file} is missing: {_advice(root)}")
    if len({entry.noun for entry in entries}) < 4:
        raise UserError(f"{root} has cut-outs of fewer than four nouns: add PNG files with transparency")
    return Library(root, _with_held_out(entries))


def find_folder(folder: str | None = None) -> str:
    """The folder of cut-outs: the one given, that of the variable RISZOO_CUTOUTS, or the installed stamps."""
    named = os.environ.get(VARIABLE)
    given = folder or named
    candidates = [str(Path(given).expanduser())] if given else FOLDERS
    found = next((one for one in candidates if Path(one).is_dir()), None)
    if found is None:
        where = f" at {folder}" if folder else f" at {named}, which {VARIABLE} names" if named else ""
        raise UserError(
            f"no folder of cut-outs{where}: install the stamps of Tux Paint (apt-get install {PACKAGE}), or give your "
            f"own folder with --data.cutouts or {VARIABLE}"
        )
    return found


# -- tables -----------------------------------------------------------------------------------------------------------


def _entries(root: Path) -> list[Entry]:
    """The photographs of a folder, by its own table, by that of the stamps, or by the names of files and folders."""
    table = _own_table(root)
    if table is None and (root / _rows(STAMPS)[0].values["file"]).is_file():
        table = STAMPS
    if table is None:
        return [_from_name(root, file) for file in sorted(root.rglob("*")) if file.suffix.lower() in SUFFIXES]
    rows = [row for row in _rows(table) if row.values.get("medium", "").lower() in ("", "photograph")]
    if table != STAMPS:  # which has names such as Easter egg
        for row in rows:
            row.values.update({name: row.values[name].lower() for name in WORDS & row.values.keys()})
    return [_entry(row.values, row.where) for row in rows]


def _own_table(root: Path) -> Path | None:
    return next((root / name for name in TABLES if (root / name).is_file()), None)


def _advice(root: Path) -> str:
    """What to do about a file that is not as the table says."""
    table = _own_table(root)
    return f"correct {table}, or the file" if table is not None else AGAIN


class Row(NamedTuple):
    """A row of a table: its cells by the names of their columns, and where it is."""

    values: dict[str, str]
    where: str


def _rows(table: Path) -> list[Row]:
    """The rows of a CSV or JSON file as text; names of columns without capitals, a list joined by semicolons."""
    try:
        if table.stat().st_size > LARGEST_TABLE:
            raise UserError(f"{table} is larger than {LARGEST_TABLE >> 20} MiB: give a table of cut-outs")
        text = table.read_text(encoding="utf-8-sig")
        rows = _json_rows(text, table) if table.suffix == ".json" else _csv_rows(text, table)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{table} cannot be read ({type(error).__name__}): give CSV or JSON with file and noun"
        ) from None
    if not rows:
        raise UserError(f"{table} has no rows: give one for each cut-out, with its file and noun")
    for row in rows:
        for name in row.values:
            meant = nearest_name(name, COLUMNS)
            if meant not in (None, *row.values):
                raise UserError(f"{row.where} has '{name[:LONGEST_NAME]}': did you mean '{meant}'?")
    return rows


def _json_rows(text: str, table: Path) -> list[Row]:
    content = json.loads(text)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        return []
    return [
        Row({name.strip().lower(): _text(value) for name, value in row.items()}, f"{table}, row {number}")
        for number, row in enumerate(content, 1)
    ]


def _csv_rows(text: str, table: Path) -> list[Row]:
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    header = [name.strip().lower() for name in next(reader, [])]
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{table} has two columns '{repeated[:LONGEST_NAME]}': keep one of them")
    rows = []
    for cells in filter(None, reader):
        where = f"{table}:{reader.line_num}"
        if len(cells) > len(header):
            raise UserError(f"{where} has {len(cells)} cells for {len(header)} columns: quote a cell with a comma")
        rows.append(Row(dict(zip(header, map(str.strip, cells), strict=False)), where))
    return rows


def _text(value: Any) -> str:
    """A cell's value as text; that of an empty cell is empty."""
    if isinstance(value, list):
        return ";".join(map(_text, value))
    return "" if value is None else str(value).strip()


def _entry(row: Mapping[str, str], where: str) -> Entry:
    """The cut-out of a row."""
    for name in ("file", "noun"):
        if not row.get(name):
            others = "" if name in row else f"; it has {', '.join(row)[:120]}"
            raise UserError(f"{where} has no {name}{others}: give file and noun of each cut-out")
    noun, file = _word(row["noun"], where), row["file"]
    if Path(file).is_absolute() or ".." in Path(file).parts or Path(file).suffix.lower() not in SUFFIXES:
        raise UserError(f"{where}: the file '{file[:80]}' is not a PNG or WebP below the folder: correct it")
    size = row.get("size") or "3"
    if size not in map(str, SIZES):
        raise UserError(f"{where}: the size '{size[:20]}' is not a number from 1 to 5: correct it")
    kinds = tuple(_word(kind, where) for kind in row.get("kinds", "").split(";") if kind.strip())
    plural = _word(row.get("plural") or plural_of(noun), where)
    unseen = YES_OR_NO.get(row.get("unseen", "").lower())
    if unseen is None:
        raise UserError(f"{where}: unseen is '{row['unseen'][:20]}': write yes or no")
    return Entry(file, noun, plural, kinds, int(size), unseen, row.get("sha256", "").lower())


def _word(text: str, where: str) -> str:
    """A noun, which becomes part of a sentence."""
    word = " ".join(text.split())
    if not re.fullmatch(r"[A-Za-z][A-Za-z' -]{0,39}", word):
        raise UserError(f"{where}: '{text[:60]}' is not a noun of one or a few English words: correct it")
    if singular_of(word.lower()) in ANYTHING:
        raise UserError(f"{where}: sentences say '{word}' of anything: give another noun or kind, or leave it out")
    return word


def _from_name(root: Path, file: Path) -> Entry:
    """A cut-out described by its path: animals/birds/owl-2.png is an owl, a bird, an animal."""
    path = file.relative_to(root)
    noun = _plain(path.stem)
    kinds = dict.fromkeys(singular_of(_plain(folder)) for folder in reversed(path.parent.parts))
    described = ";".join(kind for kind in kinds if kind not in (noun, *ANYTHING))
    return _entry({"file": path.as_posix(), "noun": noun, "kinds": described}, str(file))


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[\d_\-]+", " ", name).split()).lower()


def _with_held_out(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries, a sixth of the nouns held out where the table holds out none."""
    if any(entry.unseen for entry in entries):
        return entries
    nouns = sorted({entry.noun for entry in entries})
    held_out = RandomStream("riszoo collage unseen").sample(nouns, max(1, len(nouns) // UNSEEN_SHARE))
    return [replace(entry, unseen=entry.noun in held_out) for entry in entries]


# -- pixels -----------------------------------------------------------------------------------------------------------


def _read_cutout(path: Path, sha256: str, advice: str) -> Cutout:
    """Decode a cut-out. Everything after Pillow's decoder, which is exact, is integer arithmetic."""
    try:
        blob = path.read_bytes()
        with Image.open(io.BytesIO(blob), formats=("PNG", "WEBP")) as image:
            if max(image.size) > LARGEST_SIDE:
                raise UserError(f"{path} has a side of more than {LARGEST_SIDE} pixels: make it smaller")
            pixels = np.asarray(image.convert("RGBA")).astype(np.uint16)
    except UserError:
        raise
    except Exception as error:  # a hostile file raises nearly anything
        raise UserError(f"{path} cannot be read as a cut-out ({type(error).__name__}): replace the file") from error
    if sha256 and hashlib.sha256(blob).hexdigest() != sha256:
        raise UserError(f"{path} differs from the file that the table describes: {advice}")
    solid = pixels[..., 3] >= OPAQUE
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if len(rows) < 2 or len(columns) < 2:
        raise UserError(f"{path} has no opaque pixels: give an image with transparency around an object")
    pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels[..., :3] = (pixels[..., :3].astype(np.uint32) * pixels[..., 3:] + 127) // 255
    levels = [pixels.astype(np.uint8)]
    while max(levels[-1].shape[:2]) > STORED_SIDE:
        levels = [_halved(levels[-1])]
    while min(levels[-1].shape[:2]) >= 8:
        levels.append(_halved(levels[-1]))
    return Cutout(tuple(levels))


def _halved(level: Level) -> Level:
    """The means of 2 x 2 pixels; an odd row or column counts with transparent ones beside it."""
    height, width = level.shape[:2]
    padded = np.pad(level, ((0, height % 2), (0, width % 2), (0, 0))).astype(np.uint16)
    total = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
