"""Every command and option that README and docs show is accepted by the real command line."""

from __future__ import annotations

import ast
import importlib
import json
import re
import textwrap
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from riszoo import recipes
from riszoo.cli import data
from riszoo.cli.help.runs import common_options
from riszoo.cli.main import LIGHTNING, VERBS, dispatch, help_text, main
from riszoo.cli.parser import CommandParser
from riszoo.cli.request import ALIASES, FLAGS, Request
from riszoo.cli.speed import split_changes
from riszoo.signatures import options_of
from riszoo.training.lightning_cli import RISCLI
from tests.support import pages
from tests.support.pages import Command

RUN_VERBS = [name for name, verb in VERBS.items() if verb.module == LIGHTNING]
SHOWN = [command for page in pages.PAGES for command in pages.commands(page)]
INVENTED = {"NAME": "lts", "MODEL": "lts", "SEED": "0", "N": "1", "mine": "lts", "shy": "lts"}
INVENTED["my.module.Mine"] = "tests.support.toys.Early"
"""Words that stand for a reader's own, each with one that riszoo accepts."""
OTHER_PROGRAMS = {"--eval_ori_size", "--signal", "--tiny"}
"""Options of other projects, and of scripts in benchmarks/, that a page names."""


class Parsed(BaseException):
    """Raised in place of running a command whose options were accepted; carries the parser."""


class OnlyParser(RISCLI):
    """The command line of fit, validate, test and predict, which stops before anything is built."""

    def before_instantiate_classes(self) -> None:
        raise Parsed(self.parser)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of every model on every data set, as far as the command line reads one."""
    root = tmp_path_factory.mktemp("checkpoints")
    (root / "evf-sam").mkdir()
    (root / "mine.yaml").write_text("{}")
    for published in ("best_model.pth", "refcoco.pth", "evf-sam/pytorch_model.bin"):
        (root / published).touch()
    for model, dataset in product(recipes.names("models"), recipes.names("data")):
        folder = root / "runs" / f"{model}-{dataset}"
        (folder / "checkpoints").mkdir(parents=True)
        for which in ("best", "last"):
            (folder / "checkpoints" / f"{which}.ckpt").touch()
        (folder / "run.json").write_text(json.dumps({"model": model, "data": dataset}))
    return root


@cache
def run_parser(verb: str) -> LightningArgumentParser:
    """The parser of fit, validate, test or predict."""
    with pytest.raises(Parsed) as stopped:
        OnlyParser(replace(Request.read("fit", ["--model", "lts"]), verb=verb))
    parser: LightningArgumentParser = stopped.value.args[0]
    return parser


def parser_of(words: list[str]) -> CommandParser:
    """The argument parser of a verb that is not a run."""

    def stop(parser: CommandParser, *_: Any) -> None:
        raise Parsed(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandParser, "parse_args", stop)
        with pytest.raises(Parsed) as stopped:
            dispatch(words)
    parser: CommandParser = stopped.value.args[0]
    return parser


def accept(verb: str, words: list[str], *, whole: bool) -> None:
    """Parse a command with the parser that its verb uses, and go no further."""
    if verb in RUN_VERBS:
        words = [word for word in words if word not in ("--help", "--print_config")]  # which print and exit
        request = Request.read(verb, words if "--model" in words else ["--model", "lts", *words])
        run_parser(verb).parse_args(request.argv)
        return
    parser = parser_of([verb, *words])
    for action in parser._actions:
        action.required = action.required and whole
    if verb == "speed":
        words, _ = split_changes(words)
    parser.parse_args(words[1:] if verb == "data" else words)


@cache
def known_options() -> set[str]:
    """Every option of every verb, and those of every model and data set."""
    parsers = [parser_of([verb]) for verb in VERBS if verb not in [*RUN_VERBS, "data", "list"]]
    parsers += [parser_of(["data", verb]) for verb in data.VERBS]
    parsers += [run_parser(verb)._subcommands_action._name_parser_map[verb] for verb in RUN_VERBS]
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    for kind, recipe in recipes.listing():
        known |= set(options_of({"models": "model"}.get(kind, kind), recipe.content["class_path"]) or ())
    return known | set(ALIASES) | set(FLAGS) | {"--help-all", "--version"}


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_is_accepted(command: Command, checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoints)
    verb, *words = [INVENTED.get(word, word) for word in command.words]
    assert verb in VERBS
    if words:
        accept(verb, words, whole=command.whole)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_an_option_in_running_text_exists(page: Path) -> None:
    missing = [f"{where} {option}" for where, option in pages.options(page) if not exists(option)]
    assert not missing


def exists(option: str) -> bool:
    """Whether a verb has the option; encoders take any name below `options`."""
    return option in known_options() | OTHER_PROGRAMS or ".options." in option


def test_the_help_shows_options_and_commands_that_exist(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoints)
    assert [option for option in pages.option_names(help_text()) if not exists(option)] == []
    assert [option for verb in RUN_VERBS for option in common_options(verb) if not exists(option)] == []
    for known in VERBS.values():
        verb, *words = pages.command_words(known.example)
        if words:
            accept(verb, words, whole=True)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_a_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (pages.ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^(?:make |.*`make )(\w+)", page.read_text(), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_a_link_leads_to_a_file(page: Path) -> None:
    assert [link for link in pages.links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_python_examples_import_what_exists(page: Path) -> None:
    for block in pages.blocks(page.read_text()):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(block.text))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("riszoo."):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_model_of_the_page_about_models_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (pages.ROOT / "docs" / "your-model.md").read_text()
    (example,) = [block for block in pages.blocks(page) if block.language == "python"]
    (tmp_path / "example.py").write_text(textwrap.dedent(example.text))
    monkeypatch.syspath_prepend(str(tmp_path))
    vision = {"name": "resnet18", "options": {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}}
    own = {"size": 64, "vision": vision, "text": {"options": {"embedding": 8, "width": 8}}}
    (tmp_path / "example.yaml").write_text(json.dumps({"model": {"class_path": "example.Mine", "init_args": own}}))
    short = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--data.test_images", "2"]
    short += ["--data.val_images", "2", "--data.batch_size", "4", "--data.workers", "0"]
    assert main(["fit", "--model", "example.Mine", "--config", "example.yaml", *short]) == 0
    (run,) = Path("runs").glob("*/run.json")
    assert json.loads(run.read_text())["training"]["steps"] == 2


def test_a_strategy_is_named_by_class_path() -> None:
    """The file for Ray, which is not installed here, with Lightning's own classes in place of Ray's."""
    page = (pages.ROOT / "docs" / "cluster.md").read_text()
    (example,) = [block.text for block in pages.blocks(page) if block.language == "yaml"]
    own = {"ray.train.lightning.RayDDPStrategy": "lightning.pytorch.strategies.DDPStrategy"}
    own["ray.train.lightning.RayLightningEnvironment"] = "lightning.fabric.plugins.environments.LightningEnvironment"
    for ray, lightning in own.items():
        example = example.replace(ray, lightning)
    request = Request.read("fit", ["--model", "lts", "--config", json.dumps(yaml.safe_load(example))])
    trainer = run_parser("fit").parse_args(request.argv).fit.trainer
    assert [trainer.strategy.class_path, trainer.plugins[0].class_path] == list(own.values())


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["--help"],
        ["fit", "--help"],
        ["--version"],
        ["info", "lts"],
        ["data", "show", "scenes", "--split", "val", "--count", "2"],
        ["bench", "--dry-run"],
        ["bench", "--controlled", "--dry-run"],
        ["tables", "--check", "--out", str(pages.ROOT / "benchmarks")],
    ],
    ids=" ".join,
)
def test_a_command_that_needs_nothing_runs(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert "Traceback" not in capsys.readouterr().err
