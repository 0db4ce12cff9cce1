"""The wheel has every file that an installed riszoo reads."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from riszoo import __version__, recipes

ROOT = Path(recipes.__file__).parents[1]
INSTALLED = {"riszoo": "riszoo", "configs": "riszoo/configs", "benchmarks/weights": "riszoo/weights"}
"""The folders of a checkout, and where they are in an installation."""


def test_the_wheel_has_all_files_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules, templates, style sheets, tables of data, recipes and weights."""
    build = pytest.importorskip("hatchling.build", reason="pip install hatchling")
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("riszoo/")}
        commands = wheel.read(f"riszoo-{__version__}.dist-info/entry_points.txt").decode()
    expected = {
        f"{target}/{path.relative_to(ROOT / source).as_posix()}"
        for source, target in INSTALLED.items()
        for path in (ROOT / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == expected
    assert {"riszoo/configs/models/lts.yaml", "riszoo/weights/lts.safetensors"} < packed
    assert {"riszoo/bench/templates/report.html.j2", "riszoo/inference/hub/card.md", "riszoo/py.typed"} < packed
    assert "riszoo = riszoo.cli.main:main" in commands
