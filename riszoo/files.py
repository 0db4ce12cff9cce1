"""Atomic writes, file hashes, and of untrusted files: names for their ids, and an unpickler."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import pickletools
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from riszoo.errors import UserError

ALLOWED = "-_.+=@,() "
"""Characters of a file name besides letters and digits."""
LONGEST = 120
"""Bytes of a file name, which leaves room for suffixes and temporary names."""
LFS_POINTER = b"version https://git-lfs"
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))}
"""Names of devices on Windows, with any suffix."""


def file_names(ids: Sequence[str]) -> list[str]:
    """A name for each id, without suffix, that is safe on every file system; no two names differ in case only.

    An id that is safe and unique is its own name. Other characters become `_`, and names that would be equal are
    numbered with `~`, in the order of the ids.
    """
    names = [_safe_name(text) for text in ids]
    folded = [_folded(name) for name in names]
    counts = Counter(folded)
    numbers: Counter[str] = Counter()
    for i, key in enumerate(folded):
        if counts[key] > 1:
            numbers[key] += 1
            names[i] += f"~{numbers[key]}"
    return names


def _safe_name(text: str) -> str:
    """The id with unsafe characters replaced, cut to a length that every file system takes."""
    kept = "".join(c if c.isalnum() or c in ALLOWED else "_" for c in unicodedata.normalize("NFC", text))
    kept = kept.encode()[:LONGEST].decode(errors="ignore").strip(" ")
    if kept[:1] in ("", ".", "-"):
        kept = f"_{kept[1:]}"
    if kept.endswith("."):
        kept = f"{kept[:-1]}_"
    return f"_{kept}" if kept.partition(".")[0].strip().upper() in RESERVED else kept


def _folded(name: str) -> str:
    """What a file system that ignores case and Unicode's forms compares."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def check_not_pointer(path: Path) -> None:
    """Raise UserError for the text that git-lfs leaves in place of a file that was not fetched."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path} is a git-lfs pointer instead of the file: get the file with `git lfs pull`")


def check_writable(path: Path, option: str) -> None:
    """Raise UserError where no file can be created at `path`, before the work that it is for."""
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{option} {path} cannot be written: give the path of a file")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file through a temporary one in the same folder: a reader never sees a partial file."""
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_and_rename(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _write_and_rename(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that gets its name when the block ends, and is removed where it fails."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already: choose a new folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot create the folder {path}: {error.strerror}; choose another") from error
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def file_hash(path: Path) -> str:
    """SHA-256 of the whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_state(path: Path) -> str:
    """Size and modification time, which show that a file has changed; `absent` where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return "absent"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def states_hash(paths: Iterable[Path]) -> str:
    """SHA-256 of the paths and states of files; empty where there are none."""
    states = [f"{path} {file_state(path)}" for path in paths]
    return hashlib.sha256("\n".join(states).encode()).hexdigest() if states else ""


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


# -- pickles of untrusted files ---------------------------------------------------------------------------------------

ARGUMENTS = {ord(op.code): op.arg.n if op.arg else 0 for op in pickletools.opcodes}
"""The number of bytes that follow each opcode; a negative one says how they end, as pickletools defines it."""
WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Arguments that begin with their own size, in so many bytes."""
TWO_LINES = b"ci"
"""Opcodes that are followed by a module and a name, each on its line."""
PUT, LONG_BINPUT, STOP = b"pr."


class Unpickler(pickle.Unpickler):
    """An unpickler whose subclass decides which classes it gives; `pickle.Unpickler` sizes its memo by any index."""

    def __init__(self, content: bytes | bytearray, encoding: str = "ASCII") -> None:
        _check_memo(content)
        super().__init__(io.BytesIO(content), encoding=encoding)


def _check_memo(content: bytes | bytearray) -> None:
    """Raise UnpicklingError where an object is stored in the memo at an index that no pickle of this size reaches.

    The arguments are skipped, not decoded: pickletools.genops refuses text of Python 2 that is not ASCII.
    """
    position, size = 0, len(content)
    while position < size:
        code = content[position]
        if code == STOP:  # what follows is never read
            return
        start, length = position + 1, ARGUMENTS.get(code)
        if length is None:
            raise pickle.UnpicklingError(f"an unknown opcode {code}")
        if length in WIDTHS:
            width = WIDTHS[length]
            end = start + width + int.from_bytes(content[start : start + width], "little")
        elif length < 0:
            end = _after_lines(content, start, 2 if code in TWO_LINES else 1)
        else:
            end = start + length
        if code in (PUT, LONG_BINPUT) and _index(code, content[start:end]) > size:
            raise pickle.UnpicklingError("a memo that is larger than the pickle")
        position = end


def _index(code: int, argument: bytes | bytearray) -> int:
    return int(argument) if code == PUT else int.from_bytes(argument, "little")


def _after_lines(content: bytes | bytearray, start: int, lines: int) -> int:
    for _ in range(lines):
        start = content.find(b"\n", start) + 1
        if not start:
            raise pickle.UnpicklingError("a line without an end")
    return start
