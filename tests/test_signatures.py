"""Options read from source files are those that the imported classes have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from riszoo import recipes
from riszoo.cli.request import Request
from riszoo.data.datamodule import RISData
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.signatures import is_known, options_of
from riszoo.training.checkpoint_checks import import_class

CLASSES = sorted({str(recipe.content["class_path"]) for _, recipe in recipes.listing()})


def imported_options(section: str, class_path: str) -> Iterator[str]:
    """The same options from the imported classes."""
    for base in import_class(class_path).__mro__:
        if issubclass(base, RISModule | RISData) and "__init__" in vars(base):
            for option, annotation in get_type_hints(base.__init__).items():
                yield f"--{section}.{option}"
                for group in filter(is_dataclass, (annotation, *get_args(annotation))):
                    yield from (f"--{section}.{option}.{field.name}" for field in fields(group))


@pytest.mark.parametrize("class_path", CLASSES)
def test_the_source_and_the_imported_class_have_the_same_options(class_path: str) -> None:
    read = options_of("model", class_path)
    assert read is not None
    assert set(read) == set(imported_options("model", class_path)) - {"--model.kwargs", "--model.return"}


def test_a_class_whose_bases_cannot_be_found_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text("from elsewhere import Base\nclass Theirs(Base):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert options_of("model", "theirs.Theirs") is None
    assert options_of("model", "theirs.Missing") is None
    assert options_of("model", "there.is.none") is None


def test_an_option_that_takes_a_mapping_takes_any_key() -> None:
    options = ["--model.vision", "--model.vision.options", "--model.width"]
    assert is_known("--model.vision.options.peft", options)
    assert not is_known("--model.vision.option", options)
    assert not is_known("--model.widht", options)


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--model.widht", "--model.width"),
        ("--model.lr", "--model.optim.lr"),
        ("--model.fusion.knd", "--model.fusion.kind"),
        ("--data.batchsize", "--data.batch_size"),
    ],
)
def test_a_misspelt_option_is_reported_with_the_nearest(option: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"unknown option {option}: did you mean {nearest}?"):
        Request.read("fit", ["--model", "vipa", option, "1"])


def test_a_known_option_is_accepted_in_every_form() -> None:
    words = ["--model.init_args.width=64", "--model.vision.options.depth", "2", "--data.test_splits+=[val]"]
    assert Request.read("fit", ["--model", "vipa", *words]).options == words


def test_a_wrong_option_and_the_list_of_models_import_nothing_heavy() -> None:
    """The list reads the metadata of the shipped weights, for which safetensors imports NumPy."""
    code = (
        "import sys; from riszoo.cli.main import main\n"
        "assert main(['fit', '--model', 'vipa', '--model.widht', '8']) == 2 and 'numpy' not in sys.modules\n"
        "assert main(['list']) == 0\n"
        "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
