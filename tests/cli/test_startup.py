"""Imports without garbage collection: paused while a verb's module is imported, and resumed before it runs."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import ModuleType

import pytest

from riszoo.cli.main import VERBS, Verb, main
from riszoo.cli.startup import collection_paused

MODULE = """
import gc

enabled = [gc.isenabled()]


def main(options):
    enabled.append(gc.isenabled())
    return 0
"""


def test_the_collection_is_as_before_afterwards() -> None:
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            pass
        assert not gc.isenabled(), "it was not enabled before"
    assert gc.isenabled()
    with pytest.raises(ImportError), collection_paused():
        raise ImportError
    assert gc.isenabled()


def test_what_is_imported_is_not_visited_by_the_next_collection() -> None:
    with collection_paused():
        imported = [object()]
    assert any(each is imported for each in gc.get_objects(generation=2))
    assert not any(each is imported for each in gc.get_objects(generation=0))


def test_a_verb_is_imported_without_collection_and_runs_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "verb_that_records.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(VERBS, "record", Verb("verb_that_records", "", ""))
    assert main(["record"]) == 0
    assert sys.modules.pop("verb_that_records").enabled == [False, True]


class Absent(ModuleType):
    """A module without content, which records whether garbage is collected while something is imported from it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.enabled: list[bool] = []

    def __getattr__(self, name: str) -> None:
        self.enabled.append(gc.isenabled())
        raise AttributeError(name)


def test_segment_imports_the_model_without_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    absent = Absent("riszoo.cli.inference.files")
    monkeypatch.setitem(sys.modules, absent.__name__, absent)
    with pytest.raises(ImportError, match="Results"):
        main(["segment", "--model", "lts", "--example"])
    assert set(absent.enabled) == {False}
    assert gc.isenabled()
