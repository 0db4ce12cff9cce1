"""Reading untrusted files: pickles that cannot run code, and shapes that cannot crash a C library."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from riszoo.data.masks import Points, Runs, Size
from riszoo.errors import UserError
from riszoo.files import Unpickler

CAP = 2 << 30  # bytes; the largest genuine annotation file is well under it
PIXELS = 1 << 27  # the largest image, in pixels
SIDE = 65_535  # the longest side of a JPEG
LONGEST_OUTLINE = 100  # times the image's height and width; the mask library steps along it in C


class RecordError(ValueError):
    """An invalid record; the reader reports which one."""


def reason(error: Exception) -> str:
    """Why a record is left out, in words."""
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


class _Plain(Unpickler):
    """An unpickler without classes: annotation files contain lists, dicts, text and numbers only."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise RecordError(f"it asks for '{module}.{name}', which no annotation file needs")


def load_pickle(path: Path, cap: int = CAP) -> Any:
    """The plain values in a pickle; text of Python 2 is read as UTF-8 where it is, otherwise as Latin-1."""
    check_bytes(path, cap)
    for encoding in ("utf-8", "latin-1"):
        try:
            return _Plain(path.read_bytes(), encoding).load()
        except UnicodeDecodeError:
            continue
        except RecordError as error:
            raise UserError(f"{path} is refused: {error}; get the file from its publisher") from error
        except Exception as error:  # a broken pickle raises nearly anything
            raise _broken(path, "pickle", error) from error
    raise UserError(f"{path} is refused: its text is neither UTF-8 nor Latin-1; get the file from its publisher")


def load_json(path: Path, cap: int = CAP) -> Any:
    """The values in a JSON file."""
    check_bytes(path, cap)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError, MemoryError) as error:
        raise _broken(path, "JSON", error) from error


def read(path: Path) -> Any:
    """An annotation file of either kind."""
    return load_pickle(path) if path.suffix in (".p", ".pkl", ".pickle") else load_json(path)


def check_bytes(path: Path, cap: int = CAP) -> None:
    """Raise UserError for a file that is too large to be one of annotations."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error
    if size > cap:
        raise UserError(f"{path} is refused: {size:,} bytes are more than the {cap:,} an annotation file may have")


def _broken(path: Path, kind: str, error: Exception) -> UserError:
    return UserError(f"{path} is not a readable {kind} file ({type(error).__name__}: {error}); get it again")


class Table(NamedTuple):
    """The rows of a file by their id, and the ids under which it has several that differ."""

    file: str
    rows: dict[Any, dict[str, Any]]
    repeated: set[Any]

    def row(self, kind: str, number: int) -> dict[str, Any]:
        """The row of an image or an annotation; RecordError where it is missing or not the only one."""
        if number in self.repeated:
            raise RecordError(f"{self.file} has several {kind}s with the id {number}")
        if number not in self.rows:
            raise RecordError(f"its {kind} {number} is not in {self.file}")
        return self.rows[number]


def table(rows: Any, key: str, path: Path) -> Table:
    """A list of rows by their value of `key`, the id."""
    found = Table(path.name, {}, set())
    refusal = UserError(f"{path} has no list of rows with '{key}': get the file again")
    if not isinstance(rows, list):
        raise refusal
    try:
        for row in rows:
            if found.rows.setdefault(row[key], row) != row:
                found.repeated.add(row[key])
    except (LookupError, TypeError) as error:
        raise refusal from error
    return found


# -- single values ----------------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """Text as filed; numbers are not converted to text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise RecordError(f"{value!r:.80} is not text")
    return value.encode("utf-8", "replace").decode("utf-8")  # without lone surrogates, which UTF-8 cannot store


def relative_path(value: Any) -> str:
    """A path below the data set's folder; one that leaves the folder is refused."""
    name = text(value)
    if "\0" in name or posixpath.isabs(name) or posixpath.normpath(name).split("/")[0] == "..":
        raise RecordError(f"{name!r:.80} is outside the folder of the data set: give a path inside it")
    return name


def path_in(folder: Path, name: str) -> Path:
    """The path of a file below a folder. Raises UserError for a name that leaves it, such as in an edited index."""
    try:
        return folder / relative_path(name)
    except RecordError as error:
        raise UserError(f"a file of the data set in {folder} is refused: {error}") from None


def number(value: Any) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise RecordError(f"{value!r:.80} is not a whole number")
    return int(value)


def size(height: Any, width: Any) -> Size:
    """(h, w) of an image that fits into memory."""
    h, w = number(height), number(width)
    if h < 1 or w < 1 or max(h, w) > SIDE or h * w > PIXELS:
        raise RecordError(f"an image of {w} x {h} pixels is not possible")
    return h, w


def outline(points: Any, within: Size) -> Points:
    """One flat outline. Points may lie outside the image by as much as the image's longer side."""
    flat = _numbers(points)
    if len(flat) < 2 or len(flat) % 2:
        raise RecordError(f"an outline of {len(flat)} numbers is not a list of points")
    far = 2.0 * max(within)
    if not np.isfinite(flat).all() or flat.min() < -far or flat.max() > far:
        raise RecordError(f"an outline reaches far outside its image of {within[1]} x {within[0]} pixels")
    steps = np.abs(flat[2:] - flat[:-2]).sum()
    if steps > LONGEST_OUTLINE * sum(within):
        raise RecordError(f"an outline of {len(flat) // 2} points is far longer than its image")
    return flat


def check_outlines(pool: Points, ends: NDArray[np.int64]) -> None:
    """The same checks for all outlines of a prepared index, which is as untrusted as an annotation file."""
    lengths = np.diff(ends)
    if len(lengths) and (lengths.min() < 2 or (lengths % 2).any()):
        raise RecordError("an outline is not a list of points")
    if len(pool) and not (np.isfinite(pool).all() and np.abs(pool).max() <= 2 * SIDE):
        raise RecordError("an outline reaches far outside its image")
    steps = np.concatenate(([0.0, 0.0], np.cumsum(np.abs(pool[2:] - pool[:-2]))))
    if len(lengths) and (steps[ends[1:] - 1] - steps[ends[:-1] + 1]).max() > LONGEST_OUTLINE * 2 * SIDE:
        raise RecordError("an outline is far longer than its image")


def _numbers(values: Any) -> Points:
    try:
        flat = np.asarray(values)
    except ValueError as error:
        raise RecordError("an outline is not a flat list of numbers") from error
    if flat.ndim != 1 or flat.dtype.kind not in "iuf":
        raise RecordError("an outline is not a flat list of numbers")
    return flat.astype(np.float64)


# -- run lengths ------------------------------------------------------------------------------------------------------


def read_rle(value: Any, size: Size | None = None) -> Runs:
    """The run lengths of a COCO RLE, compressed or not: down the columns, background first, filling the image exactly.

    `size` is the (h, w) of the image; left out, the size filed in the RLE is taken. `masks.decode_rle` draws the runs.
    """
    if not isinstance(value, dict) or "counts" not in value or "size" not in value:
        raise RecordError("an RLE lacks 'size' or 'counts'")
    height, width = _rle_size(value["size"], size)
    counts = value["counts"]
    runs = _listed_runs(counts) if isinstance(counts, (list, tuple)) else _compressed_runs(counts)
    if len(runs) == 0 or runs.min() < 0 or runs.max() > PIXELS or runs.sum() != height * width:
        raise RecordError(f"the runs of an RLE do not add up to the {height} x {width} pixels of its image")
    return runs.astype(np.uint32)


def _rle_size(value: Any, expected: Size | None) -> Size:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise RecordError(f"the size of an RLE is {value!r:.40}, not [height, width]")
    found = size(*value)
    if expected is not None and found != expected:
        raise RecordError(f"an RLE of size {value!r:.40} belongs to an image of (h, w) = {expected}")
    return found


def _listed_runs(counts: Any) -> NDArray[np.int64]:
    try:
        runs = np.asarray(counts)
    except (ValueError, OverflowError):
        runs = np.empty((0, 0))
    if runs.ndim != 1 or runs.dtype.kind not in "iu":
        raise RecordError("the counts of an RLE are not a list of whole numbers")
    return runs.astype(np.int64)


def _compressed_runs(counts: Any) -> NDArray[np.int64]:
    """COCO's text: five bits a character, the sixth says that the number goes on; from the fourth number on, the
    difference to the last but one. The mask API has no function that returns the runs for checking."""
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    if not isinstance(counts, bytes) or not counts:
        raise RecordError("the counts of an RLE are neither COCO's compressed text nor a list of whole numbers")
    characters = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    is_last = (characters & 32) == 0
    if characters.min() < 0 or characters.max() > 63 or not is_last[-1]:
        raise RecordError("the counts of an RLE contain characters outside COCO's alphabet or are cut short")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts).max() > 6:
        raise RecordError("a run of an RLE is longer than any image")
    shift = 5 * (np.arange(len(characters)) - np.repeat(starts, ends - starts + 1))
    runs = np.add.reduceat((characters & 31) << shift, starts)
    runs -= np.where(characters[ends] & 16, np.int64(1) << (5 * (ends - starts + 1)), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
