"""The picture of the README is drawn from checkpoints, in one version for light and one for dark pages."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from riszoo.data.dataset import RISDataset
from riszoo.data.scenes import ScenesSplit
from riszoo.training import runs
from tests.support.bench_runs import make_run
from tests.support.scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(ROOT / "benchmarks" / "picture.py")


def test_the_picture_has_a_version_for_light_and_one_for_dark_pages(script: ModuleType, tmp_path: Path) -> None:
    checkpoint = runs.checkpoint(make_run(tmp_path).parent)
    script.main([f"tests.support.toys.Early={checkpoint}", "--out", str(tmp_path)])
    light, dark = (np.asarray(Image.open(tmp_path / f"masks-{page}.png").convert("RGBA")) for page in ("light", "dark"))
    assert light.shape == dark.shape
    assert light[0, 0, 3] == dark[0, 0, 3] == 0, "no background"
    heading = slice(0, int(160 * script.HEADING))
    opaque = light[heading, :, 3] > 200
    assert opaque.any()
    assert light[heading][opaque][:, :3].mean() < 100
    assert dark[heading][dark[heading, :, 3] > 200][:, :3].mean() > 180


def test_the_sentences_are_the_first_of_their_kinds_on_different_images(script: ModuleType) -> None:
    dataset = RISDataset(ScenesSplit("val", size=64), (64, 64), "squeeze")
    shown = script.first_of_each_kind(dataset)
    assert [sample.tags[0] for sample, _ in shown] == list(script.KINDS)
    assert len({image for _, image in shown}) == len(shown)


def test_the_readme_shows_a_picture_that_exists_in_both_versions() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in ("light", "dark"):
        path = f"docs/results/plots/masks-{page}.png"
        assert f'"{path}"' in readme
        assert (ROOT / path).stat().st_size < 250_000
