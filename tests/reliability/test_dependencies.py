"""Dependencies: installed versions agree, malicious releases are excluded, lower bounds can be tested."""

from __future__ import annotations

import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.reliability.floors import dependencies, floors

DEPENDENCIES = dependencies()


def test_installed_packages_agree() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_the_malicious_releases_of_lightning_are_excluded(version: str) -> None:
    (lightning,) = (Requirement(text) for text in DEPENDENCIES if Requirement(text).name == "lightning")
    assert version not in lightning.specifier
    assert "2.6.1" in lightning.specifier
    assert "2.6.4" in lightning.specifier


def test_every_dependency_has_a_lower_bound() -> None:
    assert len(floors()) == len(DEPENDENCIES)
    assert "torch==2.8" in floors()
