"""The report: which sentences it selects, and how the page behaves in a real browser without network."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riszoo.bench.html import gallery, report
from riszoo.bench.html.evaluated import common_protocols, find_runs
from riszoo.cli.results.report import main as report_verb
from riszoo.errors import UserError
from riszoo.files import write_atomically
from tests.support.bench_runs import make_run
from tests.support.browser import browser, open_page, shown


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A good run and a bad one."""
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root, name, shift=shift, splits=("val", "general")) for name, shift in (("near", 1), ("far", 9))]


@pytest.fixture(scope="module")
def page(tests: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    report.write_report(tests, out, count=24)
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
    selected = gallery.select(found, "val", 12)
    by_reason = {reason: [example for example in selected if reason in example.reasons] for reason in gallery.REASONS}
    assert sorted(example.mean for example in by_reason["worst"]) == means[:3]
    assert sorted(example.mean for example in by_reason["best"]) == means[-3:]
    assert sorted(example.spread for example in by_reason["disagreement"]) == spreads[-3:]
    kinds = {tag for example in everything for tag in example.sample.tags}
    assert {tag for example in selected for tag in example.sample.tags} == kinds, "every kind of sentence is shown"


def test_runs_of_one_model_get_different_names(tests: list[Path]) -> None:
    assert [run.name for run in find_runs([tests[0], tests[0].parent])] == ["near 1", "near 2"]


def test_a_folder_without_a_test_and_an_unshared_split_are_errors(tests: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no results"):
        report_verb([str(tmp_path)])
    with pytest.raises(UserError, match="not every run measured split 'testB'; common are general, val"):
        report_verb([str(tests[0]), "--split", "testB"])


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
    found = re.findall(r'data-protocol="(\S+?)"[^>]*>\s*<table>(.*?)</table>', page.read_text(), re.DOTALL)
    return {protocol: re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", table)) for protocol, table in found}


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
    report.write_report([test], tmp_path / "report.html", count=4)
    written = json.loads((test / "metrics.json").read_text())["splits"]["val"]["protocols"]
    tables = tables_of(tmp_path / "report.html")
    assert list(tables) == ["original", "lavt480"]
    for protocol, table in tables.items():
        assert f"{written[protocol]['values']['mIoU']:.2f}" in table
    assert content(tmp_path / "report.html")["protocols"] == ["original", "lavt480"]


def test_models_under_different_protocols_are_never_in_one_table(published: list[Path], tmp_path: Path) -> None:
    report.write_report(published, tmp_path / "report.html", count=4)
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


def test_the_table_shows_the_language_gap_and_the_page_the_command(tests: list[Path], page: Path) -> None:
    for test in tests:
        splits = json.loads((test / "metrics.json").read_text())["splits"]
        own, shuffled = (splits[s]["protocols"]["original"]["values"]["mIoU"] for s in ("val", "val-shuffled"))
        assert f" {own - shuffled:.2f} " in tables_of(page)["original"]
        assert json.loads((test / "run.json").read_text())["command"] in page.read_text()


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
    assert len(text) < 10e6
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


def test_a_sentence_cannot_inject_html(tests: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / tests[0].parent.name
    shutil.copytree(tests[0].parent, copy)
    table = copy / tests[0].name / "sentences-val.csv"
    lines = table.read_text().splitlines()
    cells = lines[1].split(",")
    cells[5] = "</script><script>alert(1)</script>{{ models }}"
    write_atomically(table, "\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    out = tmp_path / "report.html"
    report.write_report([copy / tests[0].name], out, ["val"], count=200)
    assert "<script>alert" not in out.read_text()
    assert any(item["text"] == "</script><script>alert(1)</script>{{ models }}" for item in content(out)["items"])


# -- in a browser -----------------------------------------------------------------------------------------------------


@browser
@pytest.mark.parametrize("reason", ["worst", "disagreement"])
def test_a_filter_shows_its_sentences_in_order(page: Path, reason: str) -> None:
    def rank(item: dict[str, Any]) -> float:
        ious = list(item["iou"]["original"].values())
        return sum(ious) if reason == "worst" else min(ious) - max(ious)

    wanted = sorted((item for item in content(page)["items"] if reason in item["reasons"]), key=rank)
    document = open_page(page, {"reason": reason, "i": 1}, "--dump-dom")
    assert shown(document, "sentence") == wanted[1]["text"]
    assert shown(document, "count") == f"2 of {len(wanted)}"
    for name, iou in wanted[1]["iou"]["original"].items():
        assert re.search(rf"<b>{name}</b> IoU {iou:.1f}", document)


@browser
def test_the_switch_shows_one_protocol_at_a_time(published: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    report.write_report(published, page, count=4)
    document = open_page(page, {"protocol": "mcn"}, "--dump-dom")
    hidden = re.findall(r'<section class="card scroll" data-protocol="(\S+)" hidden', document)
    assert hidden == ["original", "lavt480"]
    assert re.search(r'value="mcn" aria-pressed="true"', document)
    assert re.search(r"<b>near</b> not measured under mcn", document)
    assert re.search(r"<b>far</b> IoU ", document)


@browser
def test_kind_and_split_filter_the_sentences(page: Path) -> None:
    items = [i for i in content(page)["items"] if "place" in i["types"] and i["split"] == "val"]
    document = open_page(page, {"type": "place", "split": "val"}, "--dump-dom")
    assert shown(document, "count") == f"1 of {len(items)}"
    assert shown(document, "about").startswith("val · ")


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
    page: Path, keys: list[str], reason: str | None, split: int | None, position: int
) -> None:
    data = content(page)
    pressed = page.with_name("keys.html")
    script = f"for (const key of {keys}) dispatchEvent(new KeyboardEvent('keydown', {{ key }}));"
    pressed.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    items = [item for item in data["items"] if reason is None or reason in item["reasons"]]
    if split is not None:
        items = [item for item in items if item["split"] == data["splits"][split]]
    assert shown(open_page(pressed, {}, "--dump-dom"), "count") == f"{position} of {len(items)}"


@browser
@pytest.mark.parametrize(("width", "scheme"), [(500, 1), (500, 0), (1280, 1), (1280, 0)])
def test_the_page_fits_phone_and_desktop_in_light_and_dark(page: Path, tmp_path: Path, width: int, scheme: int) -> None:
    """No element is wider than the window, and the colours follow the reader's setting."""
    probe = page.with_name("probe.html")
    script = "<script>document.title = `${document.documentElement.scrollWidth} of ${innerWidth}`</script></body>"
    probe.write_text(page.read_text().replace("</body>", script))
    flags = [f"--window-size={width},1600", f"--blink-settings=preferredColorScheme={scheme}"]
    found = re.search(r"<title>(\d+) of (\d+)</title>", open_page(probe, {}, *flags, "--dump-dom"))
    assert found
    assert int(found[1]) <= int(found[2])
    image = tmp_path / "page.png"
    open_page(page, {"reason": "best"}, *flags, f"--screenshot={image}")
    corner = np.asarray(Image.open(image).convert("L"))[2, 2]
    assert (corner > 200) == (scheme == 1)
