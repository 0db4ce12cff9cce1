"""The small split that most tests of this folder evaluate."""

from __future__ import annotations

import pytest

from tests.support.fake_batches import Blobs


@pytest.fixture(scope="module")
def blobs() -> Blobs:
    return Blobs()
