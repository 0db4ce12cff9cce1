"""Files of measurements that are large, damaged or elsewhere: each is read, or named in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from riszoo import recipes
from riszoo.bench import plots, published, rows
from riszoo.bench.tables import ablations, claims, pages
from riszoo.bench.tables.image_sums import IMAGES, LISTS, read_sums
from riszoo.bench.tables.results import Results
from riszoo.cli.results.tables import main as tables_verb
from riszoo.errors import UserError

ROW = {
    **{"data": "scenes", "model": "lts", "scale": "tiny", "trained": "scenes", "split": "val"},
    **{"protocol": "original", "control": "none", "seed": 0, "commit": "abc", "device": "cpu", "mIoU": 40.0},
}
CLAIM = {
    **{"method": "LTS", "encoders": "", "data": "refcoco", "training": "", "trust": "5", "source": "a page"},
    **{"paper": "", "year": "2024", "split": "val", "metric": "oIoU", "notes": ""},
}


def write_sums(folder: Path, numbers: list[int]) -> Path:
    lists = dict.fromkeys(LISTS, " ".join(map(str, numbers)))
    rows.upsert(folder, IMAGES, [ROW | lists])
    return folder / IMAGES.file


def test_a_split_may_have_many_images(tmp_path: Path) -> None:
    numbers = [1_000_000 + i for i in range(30_000)]
    write_sums(tmp_path, numbers)
    (found,) = read_sums(tmp_path).values()
    assert found.union.tolist() == numbers


def test_a_compressed_file_with_damaged_bytes_is_named(tmp_path: Path) -> None:
    file = write_sums(tmp_path, [1, 2])
    content = bytearray(file.read_bytes())
    content[10] = 0xFF  # the first after gzip's header: a kind of block that does not exist
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"images\.csv\.gz is damaged"):
        read_sums(tmp_path)


@pytest.mark.parametrize("value", ["", "n/a", "nan"])
def test_a_claim_that_is_not_a_number_is_named(tmp_path: Path, value: str) -> None:
    row = CLAIM | {"value": value}
    file = tmp_path / claims.FILE
    file.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    with pytest.raises(UserError, match=rf"'{value}' in the column value of the row LTS, refcoco, val, oIoU is not a"):
        claims.claims(file)


def test_a_published_claim_that_is_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / published.LIST
    file.write_text(
        "lavt: {model: lavt, protocol: lavt480, source: a page, files: {refcoco: "
        "{file: a.pth, where: there, claims: {val: {oIoU: '72.73'}}}}}\n"
    )
    with pytest.raises(UserError, match="the entry 'lavt' is not complete or not right"):
        published.read_list(file)


def test_a_type_whose_number_is_not_one_is_named(tmp_path: Path) -> None:
    rows.upsert(tmp_path, rows.ACCURACY, [ROW])
    rows.upsert(tmp_path, rows.TYPES, [ROW | {"type": "place", "mIoU": "forty"}])
    with pytest.raises(UserError, match=r"types\.csv: 'forty' in the column mIoU of the row data scenes"):
        plots.all_plots(tmp_path)


def test_footnotes_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "footnotes.yaml").write_text("methods:\nsources:\n")
    found = Results.read(tmp_path)
    assert (found.method_notes, found.source_notes) == ({}, {})


def test_a_folder_without_results_leaves_the_pages_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    page = tmp_path / "README.md"
    page.write_text("<!-- table:summary -->\nnumbers\n<!-- /table:summary -->\n")
    with pytest.raises(UserError, match="other has no results: give --out the folder that contains accuracy"):
        tables_verb(["--out", str(tmp_path / "other")])
    assert "numbers" in page.read_text()


def test_a_page_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"Gr\xf6\xdfe\n")
    (tmp_path / "own").mkdir()
    with pytest.raises(UserError, match=r"README\.md is not UTF-8 text: save it as UTF-8"):
        pages.render_pages(tmp_path / "own")


def ablation(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    tables = {"prior": {"title": "The prior", "claim": list(changes), "rows": changes}}
    monkeypatch.setattr(ablations, "ablations", lambda name: tables)
    monkeypatch.setattr(recipes, "names", lambda kind: ["lts"])


def test_an_ablation_does_not_show_rows_that_it_no_longer_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation(monkeypatch, {"none": {}})
    rows.upsert(tmp_path, rows.ACCURACY, [ROW | {"variant": "prior/renamed"}])
    assert "Not measured yet" in pages.table(Results.read(tmp_path), "ablations")


def test_an_ablation_ranks_only_rows_that_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation(monkeypatch, {"a": {}, "b": {}, "c": {}})
    measured = [("a", "val", 40.0), ("b", "val", 30.0), ("c", "testA", 50.0)]
    rows.upsert(
        tmp_path,
        rows.ACCURACY,
        [ROW | {"variant": f"prior/{name}", "split": split, "mIoU": value} for name, split, value in measured],
    )
    assert "Measured: b, a." in pages.table(Results.read(tmp_path), "ablations")
