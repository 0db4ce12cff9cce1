"""Checkpoints of models' authors: which lie in a folder, and what is measured and shown of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from riszoo import recipes
from riszoo.bench import rows
from riszoo.bench.published import PREFIX, make_plan, read_list
from riszoo.bench.runner import Bench
from riszoo.bench.tables.entries import REPRODUCED, read_entries
from riszoo.bench.tables.pages import table
from riszoo.bench.tables.results import Results
from riszoo.cli.bench import main, parser
from riszoo.cli.main import main as riszoo
from riszoo.errors import UserError
from riszoo.metrics.protocols import PROTOCOLS
from riszoo.training.checkpoint_checks import import_class
from tests.support import data_trees, lavt_small

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CLAIMS = {"val": {"oIoU": 20.0, "mIoU": 30.0}}


def listed(**files: Any) -> dict[str, Any]:
    """A list of published checkpoints with the given variants of LAVT on refcoco."""
    about = {"model": "lavt", "protocol": "lavt480", "source": "the README"}
    return {
        variant: about | {"files": {"refcoco": {"file": file, "where": f"https://{variant}", "claims": CLAIMS}}}
        for variant, file in files.items()
    }


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an empty folder of checkpoints, a list of two, a data set and a small BERT."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RISZOO_DATA", str(data_trees.refcoco(tmp_path / "data")))
    lavt_small.save_bert(tmp_path / "bert-base-uncased", lavt_small.reference().config["bert"])
    for folder in ("files", "out"):
        (tmp_path / folder).mkdir()
    content = listed(lavt="lavt/refcoco.pth", lavt_one="lavt_one/refcoco.pth")
    (tmp_path / "out" / "published.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def save(path: Path, layout: str) -> None:
    path.parent.mkdir(exist_ok=True)
    torch.save(lavt_small.container(lavt_small.reference().weights, layout), path)


COMMAND = ["--published", "files", "--data", "refcoco", "--out", "out", "--root", "runs", "--report", ""]


def planned(*words: str) -> Any:
    return make_plan(parser().parse_args([*COMMAND, *words]))


# -- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_names_recipes_data_sets_and_the_papers_protocols() -> None:
    entries = read_list(BENCHMARKS / "published.yaml")
    assert len({(entry.variant, entry.data) for entry in entries}) == len(entries)
    for entry in entries:
        model = import_class(recipes.get("models", entry.model).content["class_path"])
        assert entry.protocol == model.published
        assert entry.protocol in PROTOCOLS
        recipes.check_splits(entry.data, entry.splits)
        assert entry.where.startswith("https://")
        assert entry.source
        assert all(0 < float(value) < 100 for value in entry.claims.values())


def test_an_incomplete_list_is_reported(work: Path) -> None:
    (work / "out" / "published.yaml").write_text("lavt: {model: lavt}\n")
    with pytest.raises(UserError, match="the entry 'lavt' is not complete"):
        planned()


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_is_missing_and_where_it_is_published(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "missing: files/lavt/refcoco.pth (lavt), published at https://lavt",
        "missing: files/lavt_one/refcoco.pth (lavt_one), published at https://lavt_one",
    ]
    assert main(COMMAND) == 0, "nothing to measure is not an error"
    absent = ["--published", "absent", *COMMAND[2:]]
    assert main([*absent, "--dry-run"]) == 0
    assert "missing: absent/lavt/refcoco.pth" in capsys.readouterr().out
    with pytest.raises(UserError, match="--published absent is not a folder"):
        main(absent)


def test_a_file_is_found_by_its_path_or_by_its_name_and_content(work: Path) -> None:
    save(work / "files" / "refcoco.pth", "lavt_one")
    ((entry, job),) = planned().found
    assert (entry.variant, job.checkpoint) == ("lavt_one", Path("files/refcoco.pth"))
    assert (job.model, job.scale, job.variants) == ("lavt", "paper", (PREFIX + "lavt_one",))
    assert (job.protocol, job.splits, job.controls) == ("original,lavt480", ("val",), "none")
    save(work / "files" / "lavt" / "refcoco.pth", "lavt")
    assert [entry.variant for entry, _ in planned().found] == ["lavt", "lavt_one"]
    shutil.copy(work / "files" / "refcoco.pth", work / "files" / "lavt" / "refcoco.pth")
    with pytest.raises(UserError, match=r"lavt/refcoco\.pth is lavt_one, not 'lavt': move it"):
        planned()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "refcoco+"], "choose --data refcoco"),
        (["--published", "nowhere"], "--published nowhere is not a folder"),
        (["--scale", "tiny"], "leave --scale out"),
        (["--out", "files"], "files/published.yaml does not exist"),
    ],
)
def test_wrong_options_are_reported(words: list[str], message: str, work: Path) -> None:
    with pytest.raises(UserError, match=message):
        planned(*words)


# -- the results ------------------------------------------------------------------------------------------------------


def test_a_published_file_is_measured_and_compared_with_its_claims(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_bench: Bench, _job: Any, arguments: list[str], launched: bool = True) -> None:
        options = ["--trainer.accelerator", "cpu", "--data.workers", "0", "--run.images", "0"]
        assert riszoo([*arguments, *options]) == 0

    monkeypatch.setattr(Bench, "execute", run)
    save(work / "files" / "lavt" / "refcoco.pth", "lavt")
    assert main(COMMAND) == 0
    measured = rows.ACCURACY.read(work / "out")
    assert {(row["variant"], row["protocol"], row["split"]) for row in measured} == {
        ("published/lavt", "original", "val"),
        ("published/lavt", "lavt480", "val"),
    }
    entries = {entry.protocol: entry for entry in read_entries(work / "out") if entry.kind == REPRODUCED}
    assert entries["original"].claims == {}
    own = entries["lavt480"]
    assert own.claims == {("oIoU", "val"): "20.00", ("mIoU", "val"): "30.00"}
    found = own.numbers["oIoU", "val"]
    assert f"oIoU val {found.value - 20:+.2f}" in own.facts["difference"]
    text = table(Results.read(work / "out"), "refcoco")
    original = entries["original"].numbers["oIoU", "val"].text
    assert f"| lavt | lavt480 | val | oIoU | 20.00 | {found.text} | {found.value - 20:+.2f} | {original} |" in text
