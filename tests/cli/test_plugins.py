"""An installed package that adds recipes: found by its entry point, listed, trained, reported where it is broken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from riszoo import recipes
from riszoo.cli.main import main
from riszoo.training import runs
from tests.support.zoo import TOY

MODEL = '''
from riszoo.models.lts import LTS


class Example(LTS):
    """LTS with one more option."""

    def __init__(self, *, gain: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain
'''
RECIPE = {
    "title": "Example: a model of a plug-in",
    "class_path": "riszoo_example.model.Example",
    "tiny": {"model": {**TOY, "gain": 0.25, "fusion": {"width": 16}, "segment": {"width": 16, "head": "conv"}}},
}


def install(site: Path, name: str = "riszoo_example", package: bool = True) -> None:
    """Write what pip installs: the package, and its metadata with the entry point."""
    if package:
        (site / name / "models").mkdir(parents=True)
        (site / name / "data").mkdir()
        (site / name / "__init__.py").touch()
        (site / name / "model.py").write_text(MODEL)
        (site / name / "models" / "example.yaml").write_text(yaml.safe_dump(RECIPE))
    about = site / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[riszoo.recipes]\nexample = {name}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    recipes.plugin_folders.cache_clear()
    yield folder
    recipes.plugin_folders.cache_clear()
    for name in [name for name in sys.modules if name.startswith("riszoo_example")]:
        del sys.modules[name]


def test_recipes_of_a_plugin_are_listed_last(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site)
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert listed.index("  lts ") < listed.index("  example ") < listed.index("data sets")
    assert "Example: a model of a plug-in  [tiny]" in listed
    assert "riszoo_example" not in sys.modules, "listing must not import the plug-in"


def test_a_plugin_model_trains_and_loads(site: Path) -> None:
    install(site)
    quick = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "1", "--trainer.val_check_interval", "2",
             "--data.batch_size", "8", "--data.total_batch_size", "8", "--data.workers", "0",
             "--data.eval_images", "2", "--trainer.enable_progress_bar", "false", "--run.images", "0"]  # fmt: skip
    assert main(["fit", "--model", "example", *quick]) == 0
    made = runs.newest(Path("runs"), "example", "scenes", "best")
    from riszoo.training.checkpoints import from_checkpoint

    model = from_checkpoint(made)
    assert type(model).__module__ == "riszoo_example.model"
    assert model.gain == 0.25


def test_a_misspelt_plugin_recipe_is_reported(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site)
    assert main(["fit", "--model", "exampley"]) == 2
    assert "did you mean 'example'?" in capsys.readouterr().err


def test_a_plugin_whose_package_is_missing_is_reported(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "riszoo_gone", package=False)
    assert main(["list"]) == 2
    assert "the plug-in 'example' names riszoo_gone, which is not an installed package" in capsys.readouterr().err


def test_own_recipes_do_not_need_plugins(site: Path) -> None:
    install(site, "riszoo_gone", package=False)
    assert recipes.find("models", "lts") is not None, "a broken plug-in must not affect riszoo's own recipes"
