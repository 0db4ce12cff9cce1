"""The files of a result: written and read again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from riszoo.errors import UserError
from riszoo.metrics.console import render
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.results import (
    CIRCUMSTANCES,
    Evaluation,
    pooled_reports,
    read_evaluation,
    read_metrics,
    report,
    result_folder,
    write_results,
)
from riszoo.metrics.sentence_table import SentenceTable, width
from tests.support.fake_batches import NAMES, Blobs, evaluated


@pytest.fixture
def folder(blobs: Blobs, tmp_path: Path) -> Path:
    write_results(tmp_path, {"val": evaluated(blobs)}, {"geometry": "letterbox", "device": "cpu"})
    return tmp_path


def test_a_run_read_again_gives_the_same_numbers(folder: Path):
    again = read_evaluation(folder, "val")
    written = json.loads((folder / "metrics.json").read_text())["splits"]["val"]
    assert json.loads(json.dumps(report(again))) == written
    assert written["sentences"] == 21
    assert written["images"] == 7
    assert written["no_target_sentences"] == 4
    assert written["chosen"] == {"expressions": "all"}
    assert again.table.protocols == get_protocols(NAMES)


def test_a_runs_folder_stands_for_its_newest_test_or_else_its_newest_validation(blobs: Blobs, tmp_path: Path):
    with pytest.raises(UserError, match=r"contains no results: name a folder with metrics\.json"):
        result_folder(tmp_path)
    result = {"val": evaluated(blobs, "original")}
    order = (
        "validate-scenes-20260103-000000",
        "test-scenes-20260101-000000",
        "test-refcoco-20260102-000000",  # newer, although its name sorts before
    )
    for name in order:
        write_results(tmp_path / name, result, {})
        assert result_folder(tmp_path) == result_folder(tmp_path / name) == tmp_path / name


def test_protocols_are_read_in_the_order_they_were_asked_for(blobs: Blobs, tmp_path: Path):
    write_results(tmp_path, {"val": evaluated(blobs, "original,lavt480")}, {})
    assert list(read_metrics(tmp_path)["splits"]["val"]["protocols"]) == ["original", "lavt480"]
    assert read_evaluation(tmp_path, "val").table.protocols == get_protocols("original,lavt480")


def test_a_result_has_its_circumstances_and_definitions(folder: Path):
    stated = json.loads((folder / "run.json").read_text())
    assert set(CIRCUMSTANCES) <= set(stated)
    assert stated["geometry"] == "letterbox"
    assert stated["train_sets"] == "not stated"
    entry = json.loads((folder / "metrics.json").read_text())["splits"]["val"]["protocols"]["original"]
    assert entry["definition"]["eval_size"] == "original"
    assert entry["definition"]["no_target_from"] == "empty mask"
    low, high = entry["intervals"]["mIoU"]
    assert low < entry["values"]["mIoU"] < high


def test_types_are_first_tags_and_phrasecut_uses_every_tag(folder: Path):
    protocols = json.loads((folder / "metrics.json").read_text())["splits"]["val"]["protocols"]
    assert {k: v["sentences"] for k, v in protocols["original"]["by_type"].items()} == {
        "colour": 8,
        "none": 4,
        "place": 9,
    }
    assert protocols["original"]["by_type"]["none"]["mIoU"] is None
    assert protocols["phrasecut"]["by_type"]["big"]["sentences"] == 8
    whole = protocols["lavt480"]
    weighted = sum(v["mIoU"] * v["sentences"] for v in whole["by_type"].values()) / 21
    assert weighted == pytest.approx(whole["values"]["mIoU"])


def test_the_csv_has_one_line_a_sentence_with_its_counts(folder: Path, blobs: Blobs):
    with (folder / "sentences-val.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == [s.sentence_id for s in blobs.samples]
    for line in lines:
        intersection, union = int(line["original.I"]), int(line["original.U"])
        assert union == int(line["original.P"]) + int(line["original.G"]) - intersection
        if line["no_target"] == "0":
            assert float(line["original.IoU"]) == (intersection / union if union else 0)
        assert line["original.predicts_no_target"] == str(int(line["original.P"] == "0"))
    assert lines[1]["tags"] == "colour;big"


def test_a_text_may_contain_commas_quotes_and_newlines(blobs: Blobs, tmp_path: Path):
    odd = replace(blobs.samples[0], text='the "red", one;\nleft')
    result = evaluated(blobs, "original")
    write_results(tmp_path, {"val": Evaluation(result.table, [odd, *blobs.samples[1:]])}, {})
    assert read_evaluation(tmp_path, "val").row_samples()[0] == odd


def test_a_carriage_return_in_a_text_does_not_end_the_line(blobs: Blobs, tmp_path: Path):
    result = evaluated(blobs, "original")
    odd = replace(blobs.samples[0], text="the cat\ron the left")
    write_results(tmp_path, {"val": Evaluation(result.table, [odd, *blobs.samples[1:]])}, {})
    assert read_evaluation(tmp_path, "val").row_samples()[0].text == "the cat on the left"


def test_a_part_of_a_split_can_be_evaluated(blobs: Blobs):
    result = evaluated(blobs, "original")
    some = Evaluation(result.table.take(result.table.index % 2 == 1), blobs.samples)
    assert report(some)["sentences"] == 10
    assert [s.index for s in some.row_samples()] == list(range(1, 21, 2))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "has no metrics.json"), ("{", "not valid JSON"), ("[]", "not a result of riszoo")]
)
def test_a_folder_without_results_is_an_error(content: str | None, message: str, tmp_path: Path):
    if content:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_metrics(tmp_path)


def test_a_damaged_sentence_table_is_an_error(folder: Path):
    table = folder / "sentences-val.csv"
    table.write_text(table.read_text().replace("original.I,", "original.X,"))
    with pytest.raises(UserError, match="do not belong together"):
        read_evaluation(folder, "val")
    table.write_bytes(b"id,image\n\xff")
    with pytest.raises(UserError, match="is damaged"):
        read_evaluation(folder, "val")
    table.unlink()
    with pytest.raises(UserError, match="is missing"):
        read_evaluation(folder, "val")
    with pytest.raises(UserError, match="no results on split 'testA'; it has val"):
        read_evaluation(folder, "testA")


# -- several splits of one run: ReLA's `full` ------------------------------------------------------------------------


def split_of(name: str, *cases: tuple, control: str = "none") -> Evaluation:
    """Cases are (I, |P|, |G|, no_target, head) under `rela`, after as many zeros for `original`."""
    protocols = get_protocols("original,rela")
    values = np.zeros((len(cases), width(protocols)), np.int64)
    for i, (intersection, predicted, true, no_target, head) in enumerate(cases):
        values[i, :3] = i, no_target, head
        values[i, 16:19] = intersection, predicted, true
    samples = [replace(sample, split=name) for sample in Blobs(images=2).samples[: len(cases)]]
    return Evaluation(SentenceTable.sort(protocols, values), samples, {"control": control})


A = ((6, 8, 10, 0, 0), (0, 5, 0, 1, 0))  # U = 12; a false alarm of 5
B = ((9, 9, 10, 0, 0), (6, 8, 10, 0, 1), (0, 3, 0, 1, 1))  # 9/10; rejected: 0 and U = 12; rightly rejected


def test_splits_are_also_pooled_under_rela():
    run = {"val": split_of("val", *A), "testA": split_of("testA", *B)}
    full = pooled_reports(run)["full"]
    values = full["protocols"]["rela"]["values"]
    assert values["gIoU"] == pytest.approx(100 * (0.5 + 0 + 0.9 + 0 + 1) / 5)
    assert values["cIoU"] == 100 * (6 + 0 + 9 + 0) / (12 + 5 + 10 + 12)
    assert (values["N-acc"], values["T-acc"]) == (50, pytest.approx(200 / 3))
    assert values["Pr@0.9"] == pytest.approx(100 / 3)
    assert (full["of"], full["sentences"], full["no_target_sentences"]) == (["testA", "val"], 5, 2)
    assert list(full["protocols"]) == ["rela"]


def test_a_single_split_or_a_control_is_not_pooled(tmp_path: Path):
    one, other = split_of("val", *A), split_of("val", *B, control="shuffled")
    assert pooled_reports({"val": one}) == {}
    assert pooled_reports({"val": one, "val-shuffled": other}) == {}
    assert "pooled" not in write_results(tmp_path, {"val": one}, {})


def test_the_pooled_row_does_not_depend_on_the_order_of_splits(tmp_path: Path):
    run = {"val": split_of("val", *A), "testA": split_of("testA", *B)}
    metrics = write_results(tmp_path / "one", run, {})
    write_results(tmp_path / "two", dict(reversed(run.items())), {})
    first, second = ((tmp_path / name / "metrics.json").read_bytes() for name in ("one", "two"))
    assert first == second
    original, rela = render(metrics).split("rela: ")
    assert "full" not in original
    assert [line.split()[0] for line in rela.splitlines() if line.startswith("full")] == ["full", "full"]
    assert len(read_evaluation(tmp_path / "one", "testA").table) == 3
