"""`riszoo tables`: the tables of the pages in docs/results and of the README, generated from the CSV files.

A page says `<!-- table:refcoco -->` ... `<!-- /table:refcoco -->`; the text between the markers is replaced. Names are
those of data sets, `overview`, `summary`, `speed` and `ablations`. Claimed and measured numbers have separate lines.
"""

from __future__ import annotations

import re
from pathlib import Path

from riszoo import recipes
from riszoo.bench.rows import pages_of
from riszoo.bench.tables.ablations import ablation_tables
from riszoo.bench.tables.data_table import DataTable
from riszoo.bench.tables.entries import MEASURED
from riszoo.bench.tables.measurements import speed_table, summary_table
from riszoo.bench.tables.overview import overview_table
from riszoo.bench.tables.results import Results
from riszoo.errors import UserError
from riszoo.files import write_atomically

MARKED = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- /table:\2 -->)", re.DOTALL)
README = "README.md"
HEADING = "# Benchmarks\n"


def render_pages(folder: Path, write: bool = True) -> list[Path]:
    """The pages whose tables changed: those made from the folder's CSV files, and the README.md beside the folder."""
    results, changed, pages = Results.read(folder), [], pages_of(folder)
    if write and pages == folder:
        _extend_page(folder / README, results)
    for path in (*sorted(pages.glob("*.md")), folder.resolve().parent / README):
        old = _text(path)
        new = MARKED.sub(lambda found: f"{found[1]}\n{table(results, found[2])}\n{found[3]}", old)
        if new != old:
            changed.append(path)
            if write:
                write_atomically(path, new)
    return changed


def _text(path: Path, default: str = "") -> str:
    """The text of a page, or the default where there is none."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else default
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def _extend_page(path: Path, results: Results) -> None:
    """Make the page of a folder of its own, and add markers for every measured table that it lacks."""
    old = _text(path, HEADING)
    if not old.startswith(HEADING):  # a page that somebody has written
        return
    names = [*dict.fromkeys(entry.data for entry in results.entries if entry.kind == MEASURED)]
    missing = [name for name in [*names, *["speed"] * bool(results.speed)] if f"<!-- table:{name} -->" not in old]
    if missing:
        made = "".join(f"\n<!-- table:{name} -->\n<!-- /table:{name} -->\n" for name in missing)
        write_atomically(path, old + made)


def table(results: Results, name: str) -> str:
    """The Markdown with the name of its markers."""
    if name == "overview":
        return overview_table(results)
    if name == "speed":
        return speed_table(results.speed)
    if name == "ablations":
        return "\n".join(ablation_tables(results, one) for one in recipes.names("ablations"))
    if name == "summary":
        return summary_table([entry for entry in results.entries if entry.data == "scenes"])
    return DataTable(results, recipes.get("data", name)).render()
