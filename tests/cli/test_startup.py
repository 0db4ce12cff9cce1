"""Imports without garbage collection and unused packages: both are as before when the verb runs."""

from __future__ import annotations

import gc
import importlib.util
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from riszoo.cli import startup
from riszoo.cli.main import VERBS, Verb, main
from riszoo.cli.startup import fast_imports

MODULE = """
import gc

enabled = [gc.isenabled()]


def main(options):
    enabled.append(gc.isenabled())
    return 0
"""


def test_the_collection_is_as_before_afterwards() -> None:
    assert gc.isenabled()
    with fast_imports():
        assert not gc.isenabled()
        with fast_imports():
            pass
        assert not gc.isenabled(), "it was not enabled before"
    assert gc.isenabled()
    with pytest.raises(ImportError), fast_imports():
        raise ImportError
    assert gc.isenabled()


@pytest.mark.parametrize("presses", [1, 2])
def test_an_interrupt_waits_for_the_end_of_the_imports_or_for_a_second_one(presses: int) -> None:
    done: list[int] = []

    def imports() -> None:
        with fast_imports():
            for press in range(presses):
                signal.raise_signal(signal.SIGINT)
                done.append(press)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            imports()
        assert done == [0]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_imported_is_not_visited_by_the_next_collection() -> None:
    with fast_imports():
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


def test_unused_packages_are_absent_until_the_imports_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("unused_package", "loaded_package"):
        (tmp_path / f"{name}.py").write_text("present = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(startup, "UNUSED", ("unused_package", "loaded_package", "package_that_is_not_installed"))
    loaded = importlib.import_module("loaded_package")
    try:
        with fast_imports():
            with fast_imports(), pytest.raises(ModuleNotFoundError):
                importlib.import_module("unused_package")
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module("unused_package")
            assert importlib.import_module("loaded_package") is loaded
        with pytest.raises(ModuleNotFoundError, match="unused_package"), fast_imports():
            importlib.import_module("unused_package")
        assert importlib.import_module("unused_package").present
        assert importlib.util.find_spec("package_that_is_not_installed") is None
    finally:
        for name in ("unused_package", "loaded_package"):
            sys.modules.pop(name, None)


def test_segment_imports_the_model_without_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    absent = Absent("riszoo.cli.inference.files")
    monkeypatch.setitem(sys.modules, absent.__name__, absent)
    with pytest.raises(ImportError, match="Results"):
        main(["segment", "--model", "lts", "--example"])
    assert set(absent.enabled) == {False}
    assert gc.isenabled()
