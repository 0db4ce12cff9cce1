"""Help of every verb, shell completion, `riszoo doctor` and `riszoo init-model`."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import riszoo.models
from riszoo import recipes
from riszoo.cli.help import doctor
from riszoo.cli.help.completion import SHELLS
from riszoo.cli.help.options import documented, options_of_class
from riszoo.cli.limits import ROOTS
from riszoo.cli.main import VERBS, main
from riszoo.models.lts import LTS
from riszoo.signatures import is_known, run_options, trainer_options
from tests.models import test_models as contract
from tests.support.zoo import Entry

# -- help -------------------------------------------------------------------------------------------------------------


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The output of a command that succeeds."""
    try:
        code = main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_describes_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "-h"):
        help_page = printed([verb, option], capsys)
        assert f"riszoo {verb}" in help_page
        assert "usage:" in help_page


def test_the_help_of_a_model_lists_its_options_with_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(["fit", "--model", "lts", "--help"], capsys).splitlines()
    (rate,) = [i for i, line in enumerate(lines) if line.strip().startswith("--model.optim.lr FLOAT")]
    assert "[0.002]" in " ".join(lines[rate : rate + 3]), "the recipe's value"
    (length,) = [i for i, line in enumerate(lines) if line.strip().startswith("--model.text.length")]
    assert "tokens a sentence is truncated to" in " ".join(lines[length : length + 2])
    starts = [line.split()[0] for line in lines if line.strip().startswith("--")]
    assert {"--model.locate.kind", "--model.size", "--data.image_size", "--run.save_steps"} <= set(starts)
    assert max(map(len, lines)) <= 160


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_every_option_of_a_run_is_known_before_lightning_is_imported(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = set(re.findall(r"^ +(?:-\w, )?(--[\w.]+)", printed([verb, "--model", "lts", "--help-all"], capsys), re.M))
    assert {option.removeprefix("--").partition(".")[0] for option in options} <= {*ROOTS}
    trainer, run = trainer_options(), run_options()
    assert trainer is not None
    assert {option for option in options if option.startswith("--run.")} == {*run}
    assert all(is_known(option, trainer) for option in options if option.startswith("--trainer."))
    assert {"--trainer.max_steps", "--run.root"} <= options


def test_every_option_of_a_model_is_listed_once() -> None:
    names = [option.name for option in options_of_class(LTS, "--model", {})]
    assert len(names) == len(set(names))


def test_descriptions_are_read_from_both_forms_of_docstrings() -> None:
    text = "What it does.\n\nsize, width   two of\n              them\n\nArgs:\n    one: the first\n        and more"
    assert documented(text) == {"size": "two of them", "width": "two of them", "one": "the first and more"}


# -- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("riszoo seg", ["segment"]),
        ("riszoo fit --model lt", ["lts", "lts-swin"]),
        ("riszoo fit --trainer.max", ["--trainer.max_steps"]),
        ("riszoo segment --exa", ["--example"]),
        ("riszoo data che", ["check"]),
        ("riszoo completion f", ["fish"]),
        ("riszoo test --ckpt_path s", ["shipped"]),
    ],
)
def test_bash_completes(line: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("complete.sh").write_text(printed(["completion", "bash"], capsys))
    words = line.split()
    script = (
        f"source complete.sh; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _riszoo; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_is_valid(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = printed(["completion", shell], capsys)
    assert all(verb in script for verb in VERBS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    Path("complete").write_text(script)
    subprocess.run([shell, "-n", "complete"], check=True)


# -- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_describes_the_installation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISZOO_DATA", "sets")
    Path("sets").mkdir()
    Path("sets/train.jsonl").touch()
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok    ", "FAULT ")) for line in lines)
    subjects = [line.split()[1] for line in lines]
    assert {"riszoo", "python", "packages", "cpu", "gpu", "data", "runs", "cache", "disk", "variables"} <= set(subjects)
    assert any("sets: folder; scenes is embedded" in line for line in lines)
    assert any(f"torch {torch.__version__.partition('+')[0]}" in line for line in lines)


def test_doctor_finds_a_folder_of_runs_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "runs"
    file.touch()
    found = [finding for finding in doctor.disks(file) if finding.subject == "disk"]
    assert [finding.fault for finding in found] == [True]
    assert f"{file} cannot be written" in found[0].text


def test_doctor_finds_a_version_that_does_not_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = ["timm<0.1", "nowhere-to-be-found>=2", "tensorboard>=99; extra == 'dev'"]
    monkeypatch.setattr(doctor, "requires", lambda _: needed)
    assert main(["doctor"]) == 1
    faults = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAULT packages")]
    assert len(faults) == 2
    assert "pip install 'timm<0.1'" in faults[0]
    assert "nowhere-to-be-found is missing" in faults[1]


# -- init-model -------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("riszoo/models", "configs/models", "tests/models"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_a_new_model_keeps_the_contract_at_once(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init-model", "my-model"]) == 0
    files = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("written: ")]
    assert files == ["riszoo/models/my_model.py", "configs/models/my-model.yaml", "tests/models/test_my_model.py"]
    monkeypatch.setattr(recipes, "plugin_folders", lambda: (checkout / "configs",))
    monkeypatch.setattr(riszoo.models, "__path__", [*riszoo.models.__path__, str(checkout / "riszoo/models")])
    entry = Entry("my-model", recipes.resolve("my-model", "scenes", "tiny")["model"])
    contract.test_shapes(entry, 64)
    contract.test_everything_trainable_is_trained(entry)
    contract.test_evaluation_is_deterministic(entry)
    contract.test_noise_in_the_padding_changes_nothing(entry)
    monkeypatch.syspath_prepend(str(checkout / "tests/models"))
    own = importlib.import_module("test_my_model")
    own.test_the_mask_depends_on_the_sentence()
    own.test_width_is_an_option()
    assert main(["init-model", "my-model"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init-model", "My Model"], "'My Model' cannot name a model"),
        (["init-model", "../mine"], "cannot name a model"),
        (["init-model", "class"], "cannot name a model"),
        (["init-model", "lts"], "there is a model 'lts' already"),
        (["init-model", "mine", "--root", "absent"], "absent/riszoo/models is not a folder"),
        (["init-model"], "name"),
        (["completion", "tcsh"], "tcsh"),
        (["doctor", "--rot"], "did you mean --root?"),
        (["fit", "--model", "ltz", "--help"], "did you mean 'lts'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_user_error_is_one_sentence(
    words: list[str], message: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
