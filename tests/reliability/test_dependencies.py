"""Dependencies: installed versions agree, malicious releases are excluded, lower bounds can be tested."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from packaging.requirements import Requirement

from tests.reliability.floors import dependencies, floors

DEPENDENCIES = dependencies()


PHOTOS = Path(__file__).parents[2] / "requirements" / "photos.txt"


def test_installed_packages_agree() -> None:
    """All but those of which only the files are read, installed without their dependencies."""
    alone = re.findall(r"^([\w-]+)==", PHOTOS.read_text(), re.MULTILINE)
    assert len(alone) == 2
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    conflicts = [line for line in done.stdout.splitlines() if line.partition(" ")[0] not in alone]
    assert conflicts in ([], ["No broken requirements found."])


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("version", ["2.6.1", "2.6.2", "2.6.3", "2.6.5"])
def test_malicious_and_vulnerable_releases_of_lightning_are_excluded(name: str, version: str) -> None:
    (requirement,) = (Requirement(text) for text in DEPENDENCIES if Requirement(text).name == name)
    assert version not in requirement.specifier
    assert "2.6.6" in requirement.specifier


@pytest.mark.parametrize("requirement", DEPENDENCIES)
def test_the_installed_version_is_an_allowed_one(requirement: str) -> None:
    parsed = Requirement(requirement)
    assert metadata.version(parsed.name) in parsed.specifier


def test_a_checkpoint_may_not_name_a_function_to_call(tmp_path: Path) -> None:
    """Lightning's own `load_from_checkpoint`, which riszoo never calls and every model inherits."""
    options, version = {"_instantiator": "subprocess.call"}, metadata.version("lightning")
    content = {"state_dict": {}, "hyper_parameters": options, "pytorch-lightning_version": version}
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="not in the allowlist"):
        LightningModule.load_from_checkpoint(tmp_path / "a.ckpt")


def test_every_dependency_has_a_lower_bound() -> None:
    assert len(floors()) == len(DEPENDENCIES)
    assert "torch==2.8" in floors()
