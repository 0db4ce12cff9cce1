"""Execute the documentation's notebook and write it, with the page that shows it: python -m tests.docs.notebook"""

from __future__ import annotations

import base64
import io
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from riszoo.files import write_atomically
from tests.support.pages import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
PAGE = NOTEBOOK.with_suffix(".md")
SECONDS = 600
"""The most that a cell may take."""


def executed(folder: Path) -> NotebookNode:
    """The notebook with the outputs of its cells, run in a folder; a cell that fails raises CellExecutionError."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return tidied(notebook)


def tidied(notebook: NotebookNode) -> NotebookNode:
    """Without times, versions, messages and absolute paths, and with images of few bytes."""
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "text" in output:
                    output.text = output.text.replace(f"{ROOT}/", "")
                output.get("data", {}).pop("image/jpeg", None)  # IPython shows an image in both formats
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _with_few_colours(output.data["image/png"])
    return notebook


def _with_few_colours(encoded: str) -> str:
    """A PNG in base64, with a palette of 256 colours."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").quantize(256).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def page_of(notebook: NotebookNode) -> tuple[str, dict[str, bytes]]:
    """The notebook as Markdown, and its images by file name."""
    parts, images = [], {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"quickstart-{len(images) + 1}.png"
                images[name] = base64.b64decode(data["image/png"])
                parts.append(f"![output]({name})")
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(f"```text\n{text.rstrip()}\n```")
    parts.insert(1, "[Download the notebook](quickstart.ipynb)")
    return "\n\n".join(parts) + "\n", images


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    page, images = page_of(notebook)
    write_atomically(NOTEBOOK, re.sub(r"\n*$", "\n", nbformat.writes(notebook)))
    write_atomically(PAGE, page)
    for name, content in images.items():
        write_atomically(PAGE.parent / name, content)


if __name__ == "__main__":
    main()
