"""The commit that is stored with every result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from riszoo.training.provenance import commit


def git(*words: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", *author, *words], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one commit of a package, a table and a list of ignored folders; the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("riszoo").mkdir()
    Path("riszoo/__init__.py").write_text("x = 1\n")
    Path("table.csv").write_text("a,b\n")
    Path(".gitignore").write_text(".venv\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "First")
    return tmp_path / "riszoo"


def test_the_commit_of_a_checkout_says_whether_its_code_was_changed(package: Path) -> None:
    head = git("rev-parse", "--short=12", "HEAD")
    assert commit(package) == head
    Path("table.csv").write_text("a,b,c\n")
    assert commit(package) == head
    Path("riszoo/__init__.py").write_text("x = 2\n")
    assert commit(package) == head + "+changed"


def test_an_installation_inside_another_project_has_no_commit(package: Path) -> None:
    installed = Path(".venv/site-packages/riszoo").absolute()
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert commit(installed) == "installed"


def test_an_installation_outside_any_checkout_has_no_commit(tmp_path: Path) -> None:
    assert commit(tmp_path) == "installed"
