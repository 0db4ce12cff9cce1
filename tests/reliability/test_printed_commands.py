"""Commands that pages and tables print are accepted, and sizes of published models need no download."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from riszoo import recipes
from riszoo.bench.cost import parameters, skeleton
from riszoo.cli.main import main

ROOT = Path(recipes.__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "benchmarks.md", *sorted((ROOT / "docs" / "results").glob("*.md"))]


def printed() -> list[str]:
    """Every `riszoo bench` command on the pages, without comments and launchers."""
    texts = (re.sub(r"\s+#.*", "", page.read_text()) for page in PAGES)
    found = (match[0].strip() for text in texts for match in re.finditer(r"riszoo bench( +--[^`\n|;]*)", text))
    return sorted(set(found))


@pytest.mark.parametrize("command", printed())
def test_a_printed_bench_command_is_planned(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path) if word == "checkpoints" else word for word in shlex.split(command)[1:]]
    assert main([*words, "--dry-run", "--out", str(ROOT / "benchmarks")]) == 0
    assert ("missing: " if "--published" in words else "job(s)") in capsys.readouterr().out


def test_the_size_of_a_published_model_needs_no_download() -> None:
    model = skeleton("vipa", "scenes", "paper")
    total, trained = parameters(model)
    assert parameters(model.text)[0] == 108_891_648 - 3 * 7_087_872, (
        "BERT base without pooler and its last three layers"
    )
    assert total > trained > 200e6
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
