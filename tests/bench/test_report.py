"""The report: which sentences it selects, and how the page behaves in a real browser without network."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riszoo.bench.html import gallery, report
from riszoo.bench.html.evaluated import common_protocols, find_runs
from riszoo.cli.results.compare import main as compare_verb
from riszoo.cli.results.report import main as report_verb
from riszoo.data.dataset import RISDataset
from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError
from riszoo.files import write_atomically
from riszoo.inference.evidence import read_evidence
from tests.support.accessibility import assert_accessible, assert_table_says_that_it_scrolls
from tests.support.bench_runs import make_run, make_score
from tests.support.devtools import Tab, browser


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A good run and a bad one."""
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root, name, shift=shift, splits=("val", "general")) for name, shift in (("near", 1), ("far", 9))]


@pytest.fixture(scope="module")
def page(tests: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    report.write_report(tests, out, size=24)
    return out


def content(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


# -- the selection ----------------------------------------------------------------------------------------------------


def test_the_worst_the_best_and_the_most_disputed_sentences_are_selected(tests: list[Path]) -> None:
    found = find_runs(tests)
    everything = gallery.shared_examples(found, "val")
    means, spreads = sorted(example.mean for example in everything), sorted(example.spread for example in everything)
    shown: Counter[str] = Counter()
    selected = gallery.select(found, "val", 12, shown)
    assert len(selected) <= 12
    by_reason = {reason: [example for example in selected if reason in example.reasons] for reason in gallery.REASONS}
    assert sorted(example.mean for example in by_reason["worst"]) == means[:3]
    assert sorted(example.mean for example in by_reason["best"]) == means[-3:]
    assert sorted(example.spread for example in by_reason["disagreement"]) == spreads[-3:]
    types = {tag for example in everything for tag in example.sample.tags}
    assert {tag for example in selected for tag in example.sample.tags} == set(shown) == types


def test_a_sentence_is_found_in_data_of_another_order() -> None:
    dataset = RISDataset(ScenesSplit("val", (64, 96)), (8, 8), "squeeze")
    samples = list(dataset.samples((0, 1, 7)))
    own, moved = (
        [gallery.Example(replace(sample, index=sample.index + shift), {}) for sample in samples] for shift in (0, 9000)
    )
    assert gallery.sample_keys(own, dataset) == gallery.sample_keys(moved, dataset)
    gone = gallery.Example(replace(samples[0], sentence_id="x-1"), {})
    with pytest.raises(UserError, match="no sentence 'x-1' any more"):
        gallery.sample_keys([gone], dataset)


def test_a_split_shows_the_types_that_the_splits_before_it_did_not(tests: list[Path]) -> None:
    found = find_runs(tests)
    types = {tag for example in gallery.shared_examples(found, "val") for tag in example.sample.tags}
    missing = sorted(types)[0]
    selected = gallery.select(found, "val", 4, Counter(dict.fromkeys(types - {missing}, 9)))
    assert any(missing in example.sample.tags for example in selected if "types" in example.reasons)


def test_runs_of_one_model_get_different_names(tests: list[Path]) -> None:
    assert [run.name for run in find_runs([tests[0], tests[0].parent])] == ["near 1", "near 2"]


def test_a_folder_without_a_test_and_an_unshared_split_are_errors(tests: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no results"):
        report_verb([str(tmp_path)])
    with pytest.raises(UserError, match="not every run measured split 'testB'; common are general, val"):
        report_verb([str(tests[0]), "--split", "testB"])


def test_the_validation_of_a_fit_is_reported_and_compared(
    tests: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's folder, a test's and a validation's are taken alike."""
    run = tmp_path / tests[1].parent.name
    shutil.copytree(tests[1].parent, run)
    validation = (run / tests[1].name).rename(run / "validate-scenes-20260101-000001")
    for folder in (run, validation):
        out = tmp_path / "report.html"
        assert report_verb([str(tests[0].parent), str(folder), "--out", str(out), "--count", "2"]) == 0
        assert content(out)["models"] == ["near", "far"]
        assert compare_verb([str(tests[0]), str(folder), "--split", "val"]) == 0
        assert "difference" in capsys.readouterr().out


def test_scored_masks_are_reported_and_compared_as_a_test_is(
    tests: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = make_score(tmp_path, shift=3)
    out = tmp_path / "report.html"
    assert report_verb([str(tests[0]), str(scored), "--out", str(out), "--count", "4"]) == 0
    shown = content(out)
    assert shown["models"] == ["near", "othercode"]
    assert all(item["masks"].keys() == {"near", "othercode"} for item in shown["items"])
    assert not any(item["empty"] for item in shown["items"])
    assert "riszoo score othercode" in out.read_text()
    assert compare_verb([str(tests[0]), str(scored)]) == 0
    assert f"B = {scored}" in capsys.readouterr().out


def test_a_checkpoint_with_other_weights_is_an_error(tmp_path: Path) -> None:
    test = make_run(tmp_path)
    best = test.parent / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"is changed since: .*best.ckpt has other weights; restore"):
        report_verb([str(test), "--out", str(tmp_path / "report.html")])


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    test = make_run(tmp_path)
    (test.parent / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(UserError, match=r"checkpoint of .* is missing"):
        report_verb([str(test), "--out", str(tmp_path / "report.html")])


# -- protocols --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models that were tested with `--protocol original,published`, whose papers use different protocols."""
    root = tmp_path_factory.mktemp("published")
    asked = {"near": "original,lavt480", "far": "original,mcn"}
    return [make_run(root, name, shift=shift, protocols=asked[name]) for name, shift in (("near", 1), ("far", 9))]


def tables_of(page: Path) -> dict[str, str]:
    """The text of each protocol's table."""
    found = re.findall(r'aria-label="results under (\S+?)">\s*<table>(.*?)</table>', page.read_text(), re.DOTALL)
    return {protocol: _plain(table) for protocol, table in found}


def _plain(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", markup))


def test_a_class_of_your_own_is_imported_only_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mymodels.py").write_text("from tests.support.toys import Early\n\n\nclass Mine(Early): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    test = make_run(tmp_path / "runs", "mine", class_path="mymodels.Mine")
    argv = [str(test), "--out", str(tmp_path / "report.html"), "--count", "2"]
    with pytest.raises(UserError, match=r"checkpoint of mymodels\.Mine, .*: name the class with --model"):
        report_verb(argv)
    assert report_verb([*argv, "--model", "mymodels.Mine"]) == 0
    assert (tmp_path / "report.html").is_file()


def test_the_protocol_asked_for_first_is_the_main_one(tmp_path: Path) -> None:
    test = make_run(tmp_path, protocols="original,lavt480")
    report.write_report([test], tmp_path / "report.html", size=4)
    written = json.loads((test / "metrics.json").read_text())["splits"]["val"]["protocols"]
    tables = tables_of(tmp_path / "report.html")
    assert list(tables) == ["original", "lavt480"]
    for protocol, table in tables.items():
        assert f"{written[protocol]['values']['mIoU']:.2f}" in table
    assert content(tmp_path / "report.html")["protocols"] == ["original", "lavt480"]


def test_models_under_different_protocols_are_never_in_one_table(published: list[Path], tmp_path: Path) -> None:
    report.write_report(published, tmp_path / "report.html", size=4)
    tables = tables_of(tmp_path / "report.html")
    assert list(tables) == ["original", "lavt480", "mcn"]
    assert " near " in tables["original"]
    assert " far " in tables["original"]
    assert "Not measured under it: far." in tables["lavt480"]
    assert tables["lavt480"].count(" val ") == 1
    assert "Not measured under it: near." in tables["mcn"]
    assert tables["mcn"].count(" val ") == 1
    for item in content(tmp_path / "report.html")["items"]:
        assert {protocol: set(ious) for protocol, ious in item["iou"].items()} == {
            "original": {"near", "far"},
            "lavt480": {"near"},
            "mcn": {"far"},
        }


def test_the_page_shows_controls_and_the_circumstances_of_every_run(tests: list[Path], page: Path) -> None:
    text = page.read_text()
    controls = re.search(r'aria-label="controls under original">(.*?)</table>', text, re.DOTALL)
    assert controls
    for test in tests:
        splits = json.loads((test / "metrics.json").read_text())["splits"]
        own, shuffled = (splits[s]["protocols"]["original"]["values"]["mIoU"] for s in ("val", "val-shuffled"))
        name = test.parent.name.split("-")[0]
        assert f"{name} val {own:.2f} {shuffled:.2f} {own - shuffled:.2f} " in _plain(controls[1])
        origin = json.loads((test / "run.json").read_text())
        assert origin["command"] in text
        assert origin["checkpoint"]["sha256"][:12] in text
        assert "640 sentences in 0.1 minutes" in text
        assert time.strftime("%Y-%m-%d %H:%M", time.gmtime(origin["started"])) in text
    assert "general" not in controls[1], "a split without controls has no line"


def test_a_protocol_that_all_runs_share_comes_first(tmp_path: Path) -> None:
    asked = {"near": "lavt480,original", "far": "mcn,original"}
    found = find_runs([make_run(tmp_path, name, protocols=protocols) for name, protocols in asked.items()])
    assert [protocol.name for protocol in common_protocols(found)] == ["original", "lavt480", "mcn"]


def test_one_protocol_with_two_definitions_is_an_error(published: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / published[0].parent.name
    shutil.copytree(published[0].parent, copy)
    metrics = copy / published[0].name / "metrics.json"
    changed = json.loads(metrics.read_text())
    for split in changed["splits"].values():
        split["protocols"]["original"]["definition"]["threshold"] = 0.35
    write_atomically(metrics, json.dumps(changed))
    with pytest.raises(UserError, match="protocol 'original' has another definition"):
        common_protocols(find_runs([published[1], copy / published[0].name]))


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_needs_no_other_file_and_is_small(page: Path) -> None:
    text = page.read_text()
    assert len(text) < 1.5e6
    assert len(content(page)["items"]) <= 24
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "http" not in re.sub(r"http://www.w3.org/\S+|data:[^\"]*", "", text)
    assert "{{" not in text


def test_each_sentence_has_image_ground_truth_and_every_models_mask_and_evidence(page: Path) -> None:
    data = content(page)
    assert data["models"] == ["near", "far"]
    assert {item["split"] for item in data["items"]} == {"val", "general"}
    for item in data["items"]:
        assert item["image"].startswith("data:image/webp;base64,")
        assert set(item["masks"]) == set(item["evidence"]) == set(item["iou"]["original"]) == {"near", "far"}
        assert item["evidence"]["near"][0][0] == "salience"
        hits = {hit for maps in item["evidence"].values() for _, _, hit in maps}
        assert hits <= ({None} if item["no_target"] else {True, False})


def test_the_page_shows_the_evidence_of_whole_splits_and_the_guess_by_type(tests: list[Path], page: Path) -> None:
    text = re.sub(r"\s+", " ", page.read_text())
    for run in find_runs(tests):
        pointing = read_evidence(run.folder, "val")["evidence"]["all"]["pointing of salience"]
        cells = f'<td>pointing of salience</td> <td class="number">{pointing:.1f}<small>chance 5.0</small></td>'
        assert f'<th scope="row">{run.name}</th>{cells}' in text
    plots = re.findall(
        r'alt="mIoU by type of sentence, val, protocol original" src="data:image/svg\+xml;base64,([^"]+)"', text
    )
    assert [report.GUESS in base64.b64decode(plot).decode() for plot in plots] == [True] * len(plots) != []


def test_a_sentence_cannot_inject_html(tests: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / tests[0].parent.name
    shutil.copytree(tests[0].parent, copy)
    table = copy / tests[0].name / "sentences-val.csv"
    lines = table.read_text().splitlines()
    cells = lines[1].split(",")
    cells[5] = "</script><script>alert(1)</script>{{ models }}"
    write_atomically(table, "\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    out = tmp_path / "report.html"
    report.write_report([copy / tests[0].name], out, ["val"], size=200)
    assert "<script>alert" not in out.read_text()
    assert any(item["text"] == "</script><script>alert(1)</script>{{ models }}" for item in content(out)["items"])


# -- in a browser -----------------------------------------------------------------------------------------------------


@browser
@pytest.mark.parametrize("reason", ["worst", "disagreement"])
def test_a_filter_shows_its_sentences_in_order(page: Path, tab: Tab, reason: str) -> None:
    def rank(item: dict[str, Any]) -> float:
        ious: list[float] = list(item["iou"]["original"].values())
        return sum(ious) if reason == "worst" else min(ious) - max(ious)

    wanted = sorted((item for item in content(page)["items"] if reason in item["reasons"]), key=rank)
    tab.open(page, {"reason": reason, "i": 1})
    assert tab.text("#sentence") == wanted[1]["text"]
    assert tab.text("#count") == f"2 of {len(wanted)}"
    captions = tab.texts("#views > figure figcaption")
    assert captions[2:] == [f"{name} IoU {iou:.1f}" for name, iou in wanted[1]["iou"]["original"].items()]


@browser
def test_the_evidence_says_whether_its_peak_is_inside_the_target(page: Path, tab: Tab) -> None:
    item = content(page)["items"][0]
    tab.open(page)
    said = {True: "✓ inside", False: "✗ outside", None: ""}
    wanted = [f"{label} {said[hit]}".strip() for maps in item["evidence"].values() for label, _, hit in maps]
    assert tab.texts(".evidence figcaption") == wanted


@browser
def test_the_switch_shows_one_protocol_at_a_time(published: list[Path], tab: Tab, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    report.write_report(published, page, size=4)
    tab.open(page)
    tab.click("#protocol button[value=mcn]")
    assert tab.run("[...document.querySelectorAll('.tables')].filter(e => !e.hidden).map(e => e.dataset.protocol)") == [
        "mcn"
    ]
    assert all(
        alt.endswith("mcn")
        for alt in tab.run("[...document.querySelectorAll('.plot[data-protocol]:not([hidden])')].map(e => e.alt)")
    )
    assert tab.texts("#protocol button[aria-pressed=true]") == ["mcn"]
    assert "protocol=mcn" in tab.run("location.hash")
    near, far = tab.texts("#views > figure figcaption")[2:]
    assert near == "near not measured under mcn"
    assert far.startswith("far IoU ")


@browser
def test_type_and_split_filter_the_sentences(page: Path, tab: Tab) -> None:
    items = [i for i in content(page)["items"] if "place" in i["types"] and i["split"] == "val"]
    tab.open(page)
    tab.choose("#type", "place")
    tab.choose("#split", "val")
    assert tab.text("#count") == f"1 of {len(items)}"
    assert tab.text("#about").startswith("val · ")


@browser
@pytest.mark.parametrize(
    ("keys", "reason", "split", "position"),
    [
        (["ArrowRight", "j", "k"], None, None, 2),
        (["ArrowLeft", "2", "j"], "worst", None, 2),
        (["j", "s", "s"], None, 1, 1),
    ],
    ids=["two forward and one back", "the worst, one forward", "the second split"],
)
def test_keys_move_through_the_gallery(
    page: Path, tab: Tab, keys: list[str], reason: str | None, split: int | None, position: int
) -> None:
    data = content(page)
    items = [item for item in data["items"] if reason is None or reason in item["reasons"]]
    if split is not None:
        items = [item for item in items if item["split"] == data["splits"][split]]
    tab.open(page)
    tab.press(*keys)
    assert tab.text("#count") == f"{position} of {len(items)}"


@browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1440], ids=["phone", "laptop", "desktop"])
def test_the_page_is_accessible_on_every_screen(page: Path, tab: Tab, width: int, dark: bool) -> None:
    """No element is wider than the window; every text has contrast, every control a name; nothing is loaded."""
    tab.open(page, {"reason": "best"}, width=width, dark=dark)
    assert_accessible(tab, width, (page.as_uri(), "data:"))
    assert_table_says_that_it_scrolls(tab, width)
