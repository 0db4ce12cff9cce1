"""Atomic writes, file names for ids, and the unpickler of untrusted files: its memory, and what it reads."""

from __future__ import annotations

import errno
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riszoo.errors import UserError
from riszoo.files import Unpickler, file_names, new_folder, write_atomically

PATHS = [
    "../../../x",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "a\0b",
    "-rf",
    ".hidden",
    "end.",
    "a" * 999,
    "é" * 999,
]
SAME = ["a_b", "A_B", "a_b", "straße", "STRASSE", "a\u0301", "á", "ﬁ", "fi"]
UNSAFE = [*PATHS, *SAME, "con", "NUL.txt", "\ud800"]


@given(st.lists(st.one_of(st.sampled_from(UNSAFE), st.text(max_size=200)), max_size=30))
def test_file_names_are_unique_and_stay_in_their_folder(ids: list[str]):
    names = file_names(ids)
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        assert Path(f"/folder/{name}.png").resolve().parent == Path("/folder")
        assert len(name.encode()) <= 140
        assert not set(name) & set('/\\\0:*?"<>|')
        assert name[0] not in "-. "
        assert name.partition(".")[0].upper() not in {"CON", "NUL", "COM1"}


def test_every_unsafe_id_can_be_written(tmp_path: Path):
    for name in file_names(UNSAFE):
        write_atomically(tmp_path / f"{name}.png", "mask")
    assert len(list(tmp_path.iterdir())) == len(UNSAFE)


def test_safe_and_unique_ids_are_their_own_file_names():
    ids = ["12.0", "IMG_1234-1", "2__10", "my photo (2)", "größe"]
    assert file_names(ids) == ids
    assert file_names(["a/b", "a_b", "c"]) == ["a_b~1", "a_b~2", "c"]


def test_a_link_to_nothing_is_not_a_new_folder(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(UserError, match="out exists already"), new_folder(tmp_path / "out"):
        raise AssertionError("the work begins")


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "deep" / "file"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(UserError, match=r"cannot write .*deep/file: no space"):
            write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    with pytest.raises(UserError, match=r"cannot write .*file/below"):
        write_atomically(path / "below", "a file is in the way")


# -- pickles of untrusted files ---------------------------------------------------------------------------------------

VALUE: Any = {
    "text": ["a\nb", "\u00e4 " * 200, b"raw\n"],
    "numbers": (1, -70_000, 1 << 80, 2.5, True, None),
    "set": {3},
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(protocol: int) -> None:
    value = [VALUE, VALUE, list(range(1000)), [str(number) for number in range(1000)]]
    content = pickle.dumps(value, protocol)
    assert Unpickler(content).load() == value
    assert Unpickler(content + b"r\xff\xff\xff\xff").load() == value, "what follows the end is not read"


def test_text_of_python_2_is_read() -> None:
    content = b"(lp1\nS'caf\\xe9'\np2\na."
    assert Unpickler(content, encoding="latin-1").load() == ["caf\u00e9"]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\x00\x00\x00\x7f.",
        b"]p99999999\n.",
        b"X\x01\x00\x00\x00a0cos\nname\n0]r\x00\x00\x00\x7f.",
        b"\xff]r\x00\x00\x00\x7f.",
        b"cos",
    ],
    ids=["binary", "text", "after a class", "unknown opcode", "cut"],
)
def test_a_memo_larger_than_the_pickle_is_refused(content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(pickle.UnpicklingError, match=r"larger than the pickle|unknown opcode|without an end"):
            Unpickler(content).load()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
