"""The notebook runs from its first cell to its last, and its page shows what it contains."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.docs.notebook import NOTEBOOK, PAGE, executed, page_of


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = executed(tmp_path)
    page, images = page_of(notebook)
    assert len(images) == 3
    assert "original: mIoU" in page


def test_the_page_shows_the_notebook() -> None:
    page, images = page_of(nbformat.read(NOTEBOOK, as_version=4))
    assert PAGE.read_text() == page
    assert {name: (PAGE.parent / name).read_bytes() for name in images} == images
