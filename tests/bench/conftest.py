"""One browser for all tests of HTML pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.devtools import Tab


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    opened = Tab(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
