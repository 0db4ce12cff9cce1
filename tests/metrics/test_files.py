"""The files of a result, and what is read from them again."""

from __future__ import annotations

import csv
import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from riszoo.cli.compare import main as compare_verb
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.metrics.bootstrap import FIXED, by_image, ratio_interval, sign_flip
from riszoo.metrics.compare import compare
from riszoo.metrics.console import render
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.results import CIRCUMSTANCES, Evaluation, read_evaluation, report, write_results
from riszoo.metrics.summary import sentence_value
from tests.support.fake_batches import NAMES, Blobs, evaluated


@pytest.fixture(scope="module")
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def folder(blobs: Blobs, tmp_path: Path) -> Path:
    write_results(tmp_path, {"val": evaluated(blobs)}, {"geometry": "letterbox", "device": "cpu"})
    return tmp_path


# ---- files


def test_a_run_read_again_gives_the_same_numbers(folder: Path):
    again = read_evaluation(folder, "val")
    written = json.loads((folder / "metrics.json").read_text())["splits"]["val"]
    assert json.loads(json.dumps(report(again))) == written
    assert written["sentences"] == 21
    assert written["images"] == 7
    assert written["no_target_sentences"] == 4
    assert written["chosen"] == {"expressions": "all"}
    assert {p.name: p for p in again.rows.protocols} == {p.name: p for p in get_protocols(NAMES)}


def test_the_record_carries_what_a_result_must(folder: Path):
    stated = json.loads((folder / "run.json").read_text())
    assert set(CIRCUMSTANCES) <= set(stated)
    assert stated["geometry"] == "letterbox"
    assert stated["train_sets"] == "not stated"
    entry = json.loads((folder / "metrics.json").read_text())["splits"]["val"]["protocols"]["original"]
    assert entry["definition"]["eval_size"] == "original"
    assert entry["definition"]["no_target_said_by"] == "empty mask"
    low, high = entry["intervals"]["mIoU"]
    assert low < entry["values"]["mIoU"] < high


def test_sentences_are_counted_by_first_tag_and_phrasecut_by_every_tag(folder: Path):
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


def test_the_sentence_table_has_a_line_each_with_what_was_counted(folder: Path, blobs: Blobs):
    with (folder / "sentences-val.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == [s.sentence_id for s in blobs.samples]
    for line in lines:
        inside, union = int(line["original.I"]), int(line["original.U"])
        assert union == int(line["original.P"]) + int(line["original.G"]) - inside
        if line["no_target"] == "0":
            assert float(line["original.IoU"]) == (inside / union if union else 0)
        assert line["original.pred_nt"] == str(int(line["original.P"] == "0"))
    assert lines[1]["tags"] == "colour;big"


def test_a_text_may_hold_commas_quotes_and_line_ends(blobs: Blobs, tmp_path: Path):
    odd = replace(blobs.samples[0], text='the "red", one;\nleft')
    result = evaluated(blobs, "original")
    write_results(tmp_path, {"val": Evaluation(result.rows, [odd, *blobs.samples[1:]])}, {})
    assert read_evaluation(tmp_path, "val").asked()[0] == odd


def test_a_split_of_which_only_some_sentences_were_evaluated(blobs: Blobs):
    result = evaluated(blobs, "original")
    some = Evaluation(result.rows.take(result.rows.index % 2 == 1), blobs.samples)
    assert report(some)["sentences"] == 10
    assert [s.index for s in some.asked()] == list(range(1, 21, 2))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "deep" / "file"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(UserError, match=r"cannot write .*deep/file: no space"):
            write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    with pytest.raises(UserError, match=r"cannot write .*file/below"):
        write_atomically(path / "below", "a file is in the way")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "holds no metrics.json"), ("{", "not valid JSON"), ("[]", "not a result of riszoo")]
)
def test_a_folder_without_results_is_named(content: str | None, message: str, tmp_path: Path):
    if content:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=message):
        compare(tmp_path, tmp_path)


def test_a_damaged_sentence_table_is_named(folder: Path):
    table = folder / "sentences-val.csv"
    table.write_text(table.read_text().replace("original.I,", "original.X,"))
    with pytest.raises(UserError, match="does not fit"):
        read_evaluation(folder, "val")
    table.unlink()
    with pytest.raises(UserError, match="is missing"):
        read_evaluation(folder, "val")
    with pytest.raises(UserError, match="no results on split 'testA'; it has val"):
        read_evaluation(folder, "testA")


def test_tables_fit_the_console_and_show_general_numbers_only_where_they_mean_something(blobs: Blobs, tmp_path: Path):
    text = render(write_results(tmp_path, {"val": evaluated(blobs, "original,mcn,refzom")}, {}))
    assert max(map(len, text.splitlines())) <= 100
    assert "N-acc" in text
    assert "acc" in text.split("refzom")[1]
    targeted = evaluated(blobs, "original")
    targeted = replace(targeted, rows=targeted.rows.take(~targeted.rows.no_target))
    assert "N-acc" not in render(write_results(tmp_path, {"val": targeted}, {}))


# ---- intervals and comparison


def test_an_interval_keeps_a_images_sentences_together():
    """Sixteen equal sentences about each of 20 images say no more than one each."""
    rng = np.random.default_rng(0)
    value = rng.integers(0, FIXED, 20)
    one = ratio_interval(value, np.full(20, FIXED), np.arange(20))
    many = ratio_interval(np.repeat(value, 16), np.full(320, FIXED), np.repeat(np.arange(20), 16))
    assert many == one
    apart = ratio_interval(np.repeat(value, 16), np.full(320, FIXED), np.arange(320))
    assert apart[1] - apart[0] < 0.4 * (one[1] - one[0])


def test_sentences_of_a_image_are_added_up():
    sums = by_image(np.array([[1, 10], [2, 20], [4, 40]]), np.array([1, 0, 1]))
    assert sums.tolist() == [[2, 20], [5, 50]]


def test_an_interval_is_as_wide_as_theory_says():
    values = np.random.default_rng(1).uniform(size=400)
    low, high = ratio_interval(np.rint(values * FIXED).astype(np.int64), np.full(400, FIXED), np.arange(400))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_chance_explains_noise_and_not_a_steady_gain():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=200) * 1000
    images = np.arange(200) // 4
    assert sign_flip(noise.astype(np.int64), images) > 0.05
    assert sign_flip((noise + 800).astype(np.int64), images) < 0.01
    assert sign_flip(np.zeros(200, np.int64), images) == 1


@pytest.fixture
def two_runs(blobs: Blobs, tmp_path: Path) -> tuple[Path, Path]:
    worse = Blobs()
    worse.logits = worse.logits.clone()
    worse.logits[0] = -1  # sentence s0 is lost; the rest is blurred
    worse.logits[1:] = torch.nn.functional.avg_pool2d(worse.logits[1:], 5, stride=1, padding=2)
    for name, own in (("a", worse), ("b", blobs)):
        write_results(tmp_path / name, {"val": evaluated(own, "original,lavt480")}, {})
    return tmp_path / "a", tmp_path / "b"


def test_compare_says_what_differs_and_where(two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    assert compare_verb([*map(str, two_runs)]) == 0
    text = capsys.readouterr().out
    a, b = (read_evaluation(folder, "val") for folder in two_runs)
    (original,) = get_protocols("original")
    counts = [r.rows.counts(original) for r in (a, b)]
    targeted = ~a.rows.no_target
    values = [sentence_value(r.rows, original) for r in (a, b)]
    shares = [c.both[targeted].sum() / c.either[targeted].sum() for c in counts]
    assert f"difference {100 * (shares[1] - shares[0]):+.2f}" in text
    assert "21 sentences about 7 images" in text
    gains = text.split("B gains most on:")[1]
    assert gains.split()[1] == a.samples[int(np.argmax(values[1] - values[0]))].sentence_id
    assert "by type:" in text
    assert "none" in text
    assert "p = " in text


def test_compare_by_length_and_other_protocol(two_runs: tuple[Path, Path]):
    text = compare(*two_runs, protocol="lavt480", by="length")
    assert "1 to 2 words" in text
    assert "3 to 5 words" in text
    with pytest.raises(UserError, match="not evaluated with protocol 'rela'; it has lavt480, original"):
        compare(*two_runs, protocol="rela")


def test_a_run_compared_with_itself_does_not_differ(two_runs: tuple[Path, Path]):
    text = compare(two_runs[0], two_runs[0])
    assert text.count("difference +0.00  95 % interval [+0.00, +0.00]") == 2
    assert "equal on 21" in text
    assert "most on" not in text


def test_sentences_of_one_run_only_are_left_out_and_counted(two_runs: tuple[Path, Path], blobs: Blobs, tmp_path: Path):
    result = evaluated(blobs, "original")
    part = replace(result, rows=result.rows.take(result.rows.index > 4))
    write_results(tmp_path / "part", {"val": part}, {})
    text = compare(two_runs[0], tmp_path / "part")
    assert "16 sentences about" in text
    assert "5 sentences that only A answered, 0 that only B" in text


def test_runs_with_different_ground_truths_or_sentences_are_not_compared(two_runs: tuple[Path, Path], tmp_path: Path):
    other = Blobs()
    other.masks = [~mask for mask in other.masks]
    write_results(tmp_path / "other", {"val": evaluated(other, "original")}, {})
    with pytest.raises(UserError, match="different ground truths"):
        compare(two_runs[0], tmp_path / "other")
    other.samples = [replace(s, sentence_id=f"x{s.sentence_id}") for s in other.samples]
    write_results(tmp_path / "other", {"test": evaluated(other, "original")}, {})
    with pytest.raises(UserError, match="no split is in both runs: A has val, B has test"):
        compare(two_runs[0], tmp_path / "other")
