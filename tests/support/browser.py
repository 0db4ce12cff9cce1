"""HTML pages in a headless Chromium, without network; tests are skipped where no browser is installed."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

CHROMIUM = os.environ.get("CHROME") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
LISTEN = """<script>
const found = document.documentElement.dataset;
const record = text => { found.errors = (found.errors || "") + text; };
addEventListener("error", event => record(event.message));
addEventListener("unhandledrejection", event => record(event.reason));
console.error = console.warn = record;
</script>"""


def open_page(page: Path, state: dict[str, Any], *flags: str) -> str:
    """The page's document once its script has run."""
    assert CHROMIUM is not None
    profile = page.parent / "profile"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *flags]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=2000", f"{page.as_uri()}#{urlencode(state)}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def run_script(page: Path, script: str, state: dict[str, Any] | None = None, *flags: str) -> str:
    """What `script`, an expression, gives on the open page as text; a script error or a warning of the page fails."""
    changed = page.with_name("scripted.html")
    output = f"<pre id='result'></pre><script>document.getElementById('result').textContent = {script};</script>"
    text = page.read_text().replace("<head>", f"<head>{LISTEN}", 1).replace("</body>", f"{output}</body>")
    changed.write_text(text)
    document = open_page(changed, state or {}, "--dump-dom", *flags)
    errors = re.search(r'data-errors="([^"]*)"', document)
    assert errors is None, errors and errors[1]
    return shown(document, "result")


def shown(document: str, id: str) -> str:
    """The text of the element with this id."""
    found = re.search(rf'id="{id}"[^>]*>(.*?)</', document, re.DOTALL)
    assert found, f"the page has no {id}"
    return html.unescape(found[1])
