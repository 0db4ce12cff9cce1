"""Atomic writes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from riszoo.errors import UserError
from riszoo.files import write_atomically


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
