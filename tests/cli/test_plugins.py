"""An installed package that adds recipes: found by its entry point, listed, trained, and told of when it is broken."""

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


class Shy(LTS):
    """Believes in little: the prior is halved."""

    def __init__(self, *, doubt: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.doubt = doubt
'''
RECIPE = {
    "title": "Shy: an example of a plug-in",
    "class_path": "riszoo_shy.model.Shy",
    "tiny": {"model": {**TOY, "doubt": 0.25, "fusion": {"width": 16}, "segment": {"width": 16, "head": "conv"}}},
}


def install(site: Path, name: str = "riszoo_shy", package: bool = True) -> None:
    """What pip leaves behind: the package, and its metadata with the entry point."""
    if package:
        (site / name / "models").mkdir(parents=True)
        (site / name / "data").mkdir()
        (site / name / "__init__.py").touch()
        (site / name / "model.py").write_text(MODEL)
        (site / name / "models" / "shy.yaml").write_text(yaml.safe_dump(RECIPE))
    about = site / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[riszoo.recipes]\nshy = {name}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    recipes.plugin_folders.cache_clear()
    yield folder
    recipes.plugin_folders.cache_clear()
    for name in [name for name in sys.modules if name.startswith("riszoo_shy")]:
        del sys.modules[name]


def test_a_plugin_is_listed_after_our_own(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site)
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert listed.index("  lts ") < listed.index("  shy ") < listed.index("data sets")
    assert "Shy: an example of a plug-in  [tiny]" in listed
    assert "riszoo_shy" not in sys.modules, "listing must not import the plug-in"


def test_a_plugin_trains_and_answers(site: Path) -> None:
    install(site)
    quick = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "1", "--trainer.val_check_interval", "2",
             "--data.batch_size", "8", "--data.total_batch_size", "8", "--data.workers", "0",
             "--data.eval_images", "2", "--trainer.enable_progress_bar", "false", "--run.images", "0"]  # fmt: skip
    assert main(["fit", "--model", "shy", *quick]) == 0
    made = runs.newest(Path("runs"), "shy", "scenes", "best")
    from riszoo.training.checkpoints import from_checkpoint

    model = from_checkpoint(made)
    assert type(model).__module__ == "riszoo_shy.model"
    assert model.doubt == 0.25


def test_a_near_miss_of_a_plugins_name_is_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site)
    assert main(["fit", "--model", "shyy"]) == 2
    assert "did you mean 'shy'?" in capsys.readouterr().err


def test_a_plugin_that_is_not_there_is_named(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "riszoo_gone", package=False)
    assert main(["list"]) == 2
    assert "the plug-in 'shy' names riszoo_gone, which is not an installed package" in capsys.readouterr().err


def test_our_own_recipes_do_not_need_plugins(site: Path) -> None:
    install(site, "riszoo_gone", package=False)
    assert recipes.find("models", "lts") is not None, "a broken plug-in must not stop anybody from using riszoo"
