"""Atomic writes, file hashes, and file names for ids from untrusted files."""

from __future__ import annotations

import hashlib
import os
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
    if path.exists():
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
