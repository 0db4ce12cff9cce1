"""`fit --budget N` trains on N sentences, in steps of the total batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from riszoo import recipes
from riszoo.cli.main import main
from riszoo.cli.request import Request
from tests.support.tiny_training import checkpoint, few_images, fit


def trainer(*options: str) -> dict[str, Any]:
    """The section `trainer` of the last configuration of `riszoo fit`."""
    config: dict[str, Any] = {}
    for part in Request.read("fit", ["--model", "lts", *options]).base:
        config = recipes.merge(config, part)
    section: dict[str, Any] = config["trainer"]
    return section


def test_a_budget_is_divided_by_the_total_batch() -> None:
    assert trainer("--budget", "6400")["max_steps"] == 100
    assert trainer("--budget", "6400", "--data.total_batch_size", "32")["max_steps"] == 200
    file = json.dumps({"data": {"init_args": {"total_batch_size": 128}}, "trainer": {"max_steps": 7}})
    assert trainer("--budget=6400", "--config", file)["max_steps"] == 50


def test_a_budget_replaces_the_epochs_of_a_recipe() -> None:
    section = trainer("--data", "refcoco", "--budget", "36000")
    assert (section["max_steps"], section["max_epochs"]) == (1000, -1)


def test_a_training_ends_with_its_budget_and_continues_to_a_larger_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_images(monkeypatch)
    assert fit("--budget", "8", "--data.total_batch_size", "4") == 0
    assert checkpoint()["global_step"] == 2
    (folder,) = Path("runs").iterdir()
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_steps"] == 2
    assert main(["fit", "--ckpt_path", "last", "--budget", "12"]) == 0
    assert checkpoint()["global_step"] == 3
    assert "changed from the saved configuration: trainer.max_steps 2 -> 3" in capsys.readouterr().out
