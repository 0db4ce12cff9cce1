"""Every wrong call is answered by one short sentence and exit code 2; names and numbers without heavy imports."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from riszoo import recipes
from riszoo.cli.main import main
from riszoo.data.collage import PLANS as COLLAGE_PLANS
from riszoo.data.readers.catalogue import READERS
from riszoo.data.scenes import PLANS
from tests.reliability.wrong_calls import FAST, LOADED, files

RUNNER = """
import contextlib, io, json, shlex, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "lightning", "timm", "transformers", "torchmetrics", "jsonargparse"}:
            raise RuntimeError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
from riszoo.cli.main import main

answers = {}
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(shlex.split(line))
        except Exception as error:
            code = f"{type(error).__name__}: {error}"
    answers[line] = [code, err.getvalue()]
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Exit code and stderr of every call of FAST, from one process in which no heavy module can be imported."""
    folder = tmp_path_factory.mktemp("calls")
    files(folder)
    root = Path(recipes.__file__).parent.parent
    calls = json.dumps([line for line, _ in FAST])
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{RUNNER}"]
    done = subprocess.run(command, input=calls, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_answer(code: object, error: str, fragment: str) -> None:
    assert code == 2, code
    assert error.startswith("riszoo: ")
    assert len(error.strip().splitlines()) == 1, error
    assert len(error) < 400, len(error)
    assert "Traceback" not in error
    assert fragment in error


@pytest.mark.parametrize(("line", "fragment"), FAST, ids=[line for line, _ in FAST])
def test_a_wrong_call_is_answered_without_heavy_imports(line: str, fragment: str, answers: dict[str, Any]) -> None:
    code, error = answers[line]
    check_answer(code, error, fragment)


@pytest.mark.parametrize(("line", "fragment"), LOADED, ids=[line for line, _ in LOADED])
def test_a_wrong_call_is_one_sentence(
    line: str, fragment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files(tmp_path)
    code = main(shlex.split(line))
    check_answer(code, capsys.readouterr().err, fragment)


def test_the_table_has_at_least_120_calls() -> None:
    assert len({line for line, _ in FAST + LOADED}) == len(FAST + LOADED) >= 120


@pytest.mark.parametrize(
    "name", [name for name in recipes.names("data", plugins=False) if name not in ("folder", "mixed")]
)
def test_the_splits_of_a_data_recipe_are_those_of_its_data_set(name: str) -> None:
    known = set(recipes.get("data", name).content["splits"])
    generated = {"scenes": PLANS, "collage": COLLAGE_PLANS}
    published = set(generated[name] if name in generated else READERS[name].published)
    assert published <= known
    assert known - published <= {"trainval", "test", "val_miniv"}, "unions of published splits"
