"""Boxes: every rule on cases worked by hand, and `riszoo score` on a file of them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from riszoo.cli.score import main as score_verb
from riszoo.data.masks import Bitmap, Nothing, Polygons, Rles, Union, Unknown
from riszoo.data.record import Record, Sentence, Split, Target
from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError
from riszoo.metrics.boxes import BOX_RULES, Matching, Overlap, found, found_among_first, match
from riszoo.metrics.console import render
from riszoo.metrics.external_files import read_predictions
from riszoo.metrics.protocols import PROTOCOLS, get_protocols
from riszoo.metrics.results import Evaluation, pooled_reports, read_evaluation, write_results
from riszoo.metrics.rows import NO_HEAD, Rows, width
from riszoo.metrics.score_boxes import PERFECT, score
from riszoo.metrics.summary import summarise
from tests.support.fake_batches import Blobs


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 4)


HALF = boxes((0, 0, 4, 4)), boxes((0, 0, 4, 8))  # I = 16, U = 32, and the hull is the larger box: 0.5 either way
CROSS = boxes((0, 2, 12, 11)), boxes((2, 0, 10, 12))  # I = 8 x 9 = 72, U = 108 + 96 - 72 = 132, hull 12 x 12 = 144


def passing(pair: tuple[np.ndarray, np.ndarray]) -> set[str]:
    return {name for name, rule in BOX_RULES.items() if found(*pair, rule)[0]}


def test_areas_and_the_generalised_iou_of_a_cross():
    pair = Overlap.of(*CROSS)
    assert (pair.inside[0], pair.either[0], pair.hull[0]) == (72, 132, 144)
    assert pair.generalised()[0] == pytest.approx(72 / 132 - 12 / 144)  # 0.545 - 0.083 = 0.462


def test_a_cross_passes_by_iou_and_fails_by_the_generalised_one():
    assert passing(CROSS) == {"transvg", "mcn", "polyformer", "inclusive"}


def test_exactly_one_half():
    """PolyFormer's 1e-6 is lost beside a union of 32 in 32 bit; beside 16 it is not."""
    assert passing(HALF) == {"transvg", "mdetr", "polyformer", "inclusive"}
    sixteen = boxes((0, 0, 2, 4)), boxes((0, 0, 4, 4))  # 8 / 16
    assert passing(sixteen) == {"transvg", "mdetr", "inclusive"}


def test_inclusive_sides_are_one_longer():
    pair = boxes((0, 0, 3, 3)), boxes((0, 0, 3, 7))  # 9 / 21 = 0.43; with inclusive pixels 16 / 32
    assert passing(pair) == {"inclusive"}


@pytest.mark.parametrize("name", [name for name, rule in BOX_RULES.items() if not rule.inclusive])
def test_nothing_against_nothing_is_not_found(name):
    nothing = boxes((0, 0, 0, 0))
    assert not found(nothing, nothing, BOX_RULES[name])
    assert not found(nothing, boxes((0, 0, 4, 4)), BOX_RULES[name])


def test_the_best_of_the_first_k_boxes():
    """The right box is the second and, exactly, the sixth."""
    far = (50, 50, 60, 60)
    ranked = boxes(far, (0, 0, 4, 5), far, far, far, (0, 0, 4, 8))
    true = np.array([0, 0, 4, 8.0])
    assert found_among_first(ranked, true, BOX_RULES["mdetr"]) == {1: False, 5: True, 10: True}
    assert found_among_first(ranked[[0, 2, 3, 4, 0, 5]], true, BOX_RULES["mdetr"]) == {1: False, 5: False, 10: True}
    assert found_among_first(boxes(), true, BOX_RULES["mdetr"]) == {1: False, 5: False, 10: False}
    assert found_among_first(ranked, true, BOX_RULES["transvg"]) == {1: False}


# -- GREC ---------------------------------------------------------------------------------------------------------


def grec(predicted: np.ndarray, true: np.ndarray, *scores: float) -> Matching:
    return match(predicted, np.array(scores or [0.9] * len(predicted)), true)


def strip(*starts: float) -> np.ndarray:
    """Boxes 10 x 10 in one row, where the hull of two that overlap is their union."""
    return boxes(*((x, 0, x + 10, 10) for x in starts))


def test_greedy_matching_is_not_the_best_one():
    """Overlaps 9/11 and 7/13 of the first box, 8/12 and 4/16 of the second: the first takes the box that the second
    needs, though crossed over both would find one."""
    got = grec(strip(3, 0), strip(2, 6))
    assert got == Matching(kept=2, true=2, pairs=1)
    assert got.f1 == 0.5  # 2 / (2 + 1 + 1)
    assert not got.perfect
    assert grec(strip(3, 0), strip(2, 6)[1:]) == Matching(2, 1, 1)  # alone, the far ground truth is found: 7/13


def test_matching_is_one_to_one():
    got = grec(strip(0, 0, 1), strip(0))
    assert got == Matching(3, 1, 1)
    assert got.f1 == 0.5  # 2 / (2 + 2 + 0)
    assert grec(strip(0, 0), strip(0, 0)) == Matching(2, 2, 2)


def test_a_tie_at_one_half_is_a_pair_and_a_cross_is_none():
    assert grec(*HALF).perfect
    assert grec(boxes((0, 0, 4, 3.99)), HALF[1]) == Matching(1, 1, 0)
    assert grec(*CROSS) == Matching(1, 1, 0)


def test_boxes_from_a_score_of_070_on_are_kept():
    """A 32-bit 0.7 written out in full is a little less, and GREC's code compares in 64 bit."""
    assert grec(strip(0, 20), strip(0), 0.7, 0.6999).perfect
    assert grec(strip(0), strip(0), float(np.float32(0.7))) == Matching(0, 1, 0)
    assert grec(strip(0, 20), strip(20), 0.1, 0.8).perfect  # the one that is sure, wherever it stands
    assert grec(strip(0), strip(0), 0.69).f1 == 0


def test_where_nothing_is_meant_no_box_is_right():
    assert grec(boxes(), boxes()).f1 == 1
    assert grec(strip(0), boxes(), 0.69).perfect
    assert grec(strip(0), boxes(), 0.7).f1 == 0
    assert not grec(strip(0), boxes(), 0.7).perfect
    assert grec(boxes(), strip(0)).f1 == 0


# -- the boxes that are meant ----------------------------------------------------------------------------------------


def bitmap(top: int, left: int, bottom: int, right: int) -> Bitmap:
    mask = np.zeros((30, 40), np.bool_)
    mask[top:bottom, left:right] = True
    return Bitmap(mask)


def test_each_object_meant_has_a_box_of_its_own():
    outlines = Polygons((30, 40), (np.array([1.5, 2, 8, 2, 8, 9.25]), np.array([20, 1, 21.0, 4, 22, 1])))
    assert outlines.boxes() == [(1.5, 1, 22, 9.25)]
    assert Union((30, 40), (outlines, bitmap(3, 5, 9, 16))).boxes() == [(1.5, 1, 22, 9.25), (5, 3, 16, 9)]
    assert Rles((4, 3), (np.array([5, 2, 5], np.uint32),)).boxes() == [(1, 1, 2, 3)]  # column 1, rows 1 and 2
    assert Nothing((30, 40)).boxes() == []
    assert bitmap(0, 0, 0, 0).boxes() == [(0, 0, 0, 0)]
    with pytest.raises(UserError, match="no mask is filed for 'a'"):
        Unknown((3, 3), "a").boxes()


def test_scenes_have_a_box_for_each_thing():
    split = ScenesSplit("general", 64)
    targets = [target for i in range(20) for target in split[i].targets]
    counts = {target.no_target: 0 for target in targets}
    for target in targets:
        around = target.segmentation.boxes()
        assert len(around) == target.segmentation.things.bit_count()
        mask = target.segmentation.draw(replace(PROTOCOLS["original"].ground_truth))
        covered = np.zeros_like(mask)
        for left, top, right, bottom in (map(int, box) for box in around):
            covered[top:bottom, left:right] = True
        assert not (mask & ~covered).any()
        counts[target.no_target] += 1
    assert len(counts) == 2


# -- riszoo score ----------------------------------------------------------------------------------------------------


class Few(Split):
    """Four sentences about one image: two objects, nothing, one object, and one object again."""

    dataset, name = "few", "val"
    target_image = np.zeros(4, np.int64)
    sentence_target = np.arange(4)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, image: int) -> Record:
        first, second = bitmap(0, 0, 10, 10), bitmap(10, 20, 20, 30)
        meant = {"both": Union((30, 40), (first, second)), "none": Nothing((30, 40)), "one": first, "other": second}
        targets = [Target(n, s, (Sentence(n, n),), no_target=n == "none") for n, s in meant.items()]
        return Record("p", (30, 40), tuple(targets), lambda: np.zeros((30, 40, 3), np.uint8))

    def fingerprint(self) -> str:
        return "few"


FIRST, SECOND, STRAY = [0, 0, 10, 10, 0.9], [20, 10, 10, 10, 0.8], [30, 0, 5, 5, 0.7]
PERFECT_BOXES = {"both": [FIRST, SECOND], "none": [], "one": [FIRST], "other": [SECOND]}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    opened = SimpleNamespace(split=lambda name: Few())
    monkeypatch.setattr("riszoo.cli.score.opened", lambda name, root=None: opened)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(content: object, *words: str) -> dict:
    Path("boxes.json").write_text(json.dumps(content))
    assert score_verb(["boxes.json", "--out", "out", *words]) == 0
    return dict(json.loads(Path("out/boxes.json").read_text()))


def test_perfect_boxes_are_perfect(opened: Path, capsys: pytest.CaptureFixture[str]):
    got = told(PERFECT_BOXES)
    assert got["grec"] == {PERFECT: 100, "N-acc": 100, "T-acc": 100}
    assert set(got["Acc@0.5"].values()) == {100}
    assert (got["sentences"], got["no_target_sentences"], got["one_box_sentences"]) == (4, 1, 2)
    said = capsys.readouterr().out
    assert "GREC" in said
    assert "mdetr P@10" in said
    listed = told([{"id": name, "boxes": rows} for name, rows in PERFECT_BOXES.items()])
    assert listed == got


def test_numbers_of_mixed_answers(opened: Path):
    """both: one of two found and a stray, F1 = 2 / (2 + 1 + 1). none: a box, wrong. one: the right box comes second,
    by score. other: an empty list, so nothing is said where something is meant."""
    got = told({"both": [FIRST, STRAY], "none": [STRAY], "one": [[30, 0, 5, 5, 0.9], [0, 0, 10, 10, 0.3]], "other": []})
    assert got["grec"] == {PERFECT: 0, "N-acc": 0, "T-acc": pytest.approx(200 / 3)}
    accuracy = got["Acc@0.5"]
    assert (accuracy["transvg"], accuracy["mdetr P@1"], accuracy["mdetr P@5"]) == (0, 0, 50)
    lines = {line["id"]: line for line in csv.DictReader(Path("out/boxes-val.csv").read_text().splitlines())}
    assert [float(lines[name]["F1"]) for name in PERFECT_BOXES] == [0.5, 0, 0, 0]
    assert [lines["both"][name] for name in ("true", "kept", "matched", "transvg")] == ["2", "2", "1", ""]


def test_a_missing_answer_is_not_an_empty_one(opened: Path, capsys: pytest.CaptureFixture[str]):
    got = told({"one": [FIRST], "stranger": [FIRST]})
    assert got["grec"] == {PERFECT: 25, "N-acc": 0, "T-acc": pytest.approx(100 / 3)}
    assert got["unanswered_sentences"] == 3
    said = capsys.readouterr().out
    assert "3 sentences have no prediction and count as wrong: both, none, other" in said
    assert "1 sentences are not in the split; their predictions are ignored: stranger" in said
    stated = json.loads(Path("out/run.json").read_text())
    assert (stated["missing"], stated["extra"], stated["geometry"]) == (3, 1, "not stated")


def test_the_order_of_a_file_changes_no_byte(opened: Path):
    told(PERFECT_BOXES)
    first = [path.read_bytes() for path in sorted(Path("out").iterdir())]
    told(dict(reversed(PERFECT_BOXES.items())))
    assert [path.read_bytes() for path in sorted(Path("out").iterdir())] == first


def test_a_protocol_is_about_masks(opened: Path):
    Path("boxes.json").write_text(json.dumps(PERFECT_BOXES))
    with pytest.raises(UserError, match=r"boxes.json holds boxes, and 'lavt480' is a rule for masks"):
        score_verb(["boxes.json", "--protocol", "lavt480"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": [[1, 2, 3, 4]]}, r"prediction 0 of .*: a box is \[1, 2, 3, 4\], not \[x, y, width, height, score\]"),
        ({"a": [[1, 2, 3, "4", 1]]}, "not .x, y, width"),
        ({"a": [[1, 2, 3, True, 1]]}, "not .x, y, width"),
        ({"a": [[1, 2, float("nan"), 4, 1]]}, "not .x, y, width"),
        ({"a": [[1, 2, 1e300, 4, 1]]}, "not .x, y, width"),
        ({"a": [[1, 2, 10**400, 4, 1]]}, "not .x, y, width"),
        ({"a": [7]}, "a box is 7"),
        ({"a": [FIRST], "b": [[1, 2, -3, 4, 1]]}, "prediction 1 of .* negative width or height"),
        ({"a": [[1, 2, 3, 4, 1.5]]}, "score of 1.5, which is not a probability"),
        ([{"id": "a", "boxes": []}, {"id": "b", "segmentation": {}}], "prediction 1 of .* has no list of 'boxes'"),
        ([{"id": "a", "boxes": []}, {"id": "a", "boxes": []}], "two predictions for sentence 'a'"),
        ([{"boxes": []}], "has no 'id'"),
    ],
)
def test_a_wrong_box_is_explained(content: object, message: str, tmp_path: Path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_predictions(path)


def test_a_split_without_sentences_is_named():
    empty = Few()
    empty.target_image = empty.sentence_target = np.zeros(0, np.int64)
    with pytest.raises(UserError, match="split 'val' of few has no sentences"):
        score({}, empty)


# -- boxes of masks: IE, and the rules of protocols ------------------------------------------------------------------


def counted(name: str, *cases: tuple) -> dict[str, float]:
    """Cases are (I, |P|, |G|, predicted box, true box), boxes as top, left, bottom, right."""
    protocol = PROTOCOLS[name]
    values = np.zeros((len(cases), width([protocol])), np.int64)
    for i, (both, predicted, true, found_box, true_box) in enumerate(cases):
        values[i, :6] = i, 0, NO_HEAD, both, predicted, true
        values[i, -8:] = *found_box, *true_box
    return summarise(Rows.sort([protocol], values), protocol)


WHOLE, THREE_QUARTERS, HALF_BOX = (0, 0, 8, 4), (0, 0, 6, 4), (0, 0, 4, 4)
RIGHT, WRONG = (6, 8, 8), (2, 8, 8)  # 6 / 10, 2 / 14


def test_exactly_one_of_mask_and_box_right():
    cases = [
        (*RIGHT, THREE_QUARTERS, WHOLE),  # both
        (*RIGHT, HALF_BOX, WHOLE),  # the mask alone: a box at exactly 0.5 does not pass
        (*WRONG, THREE_QUARTERS, WHOLE),  # the box alone
        (*WRONG, HALF_BOX, WHOLE),  # neither
        (4, 4, 8, HALF_BOX, WHOLE),  # each at exactly 0.5: the mask is lifted over it by the 1e-10, the box is not
    ]
    for name in ("mcn", "simrec"):
        assert counted(name, *cases)["IE"] == 60
    assert {name for name in PROTOCOLS if "IE" in counted(name, cases[0])} == {"mcn", "simrec"}


def test_polyformer_judges_boxes_in_32_bit():
    assert counted("polyformer", (*RIGHT, (0, 0, 2, 4), (0, 0, 4, 4)))["box@0.5"] == 0  # 8 / (16 + 1e-6)
    assert counted("polyformer", (*RIGHT, HALF_BOX, WHOLE))["box@0.5"] == 100  # 16 / 32
    assert counted("lavt480", (*RIGHT, (0, 0, 2, 4), (0, 0, 4, 4)))["box@0.5"] == 100


# -- several splits of one run: ReLA's `full` ------------------------------------------------------------------------


def split_of(name: str, *cases: tuple, control: str = "none") -> Evaluation:
    """Cases are (I, |P|, |G|, no_target, head) under `rela`, after as many zeros for `original`."""
    protocols = get_protocols("original,rela")
    values = np.zeros((len(cases), width(protocols)), np.int64)
    for i, (both, predicted, true, nothing, head) in enumerate(cases):
        values[i, :3] = i, nothing, head
        values[i, 16:19] = both, predicted, true
    samples = [replace(sample, split=name) for sample in Blobs(images=2).samples[: len(cases)]]
    return Evaluation(Rows.sort(protocols, values), samples, {"control": control})


A = ((6, 8, 10, 0, 0), (0, 5, 0, 1, 0))  # U = 12; a false alarm of 5
B = ((9, 9, 10, 0, 0), (6, 8, 10, 0, 1), (0, 3, 0, 1, 1))  # 9/10; called empty: 0 and U = 12; rightly empty


def test_several_splits_under_rela_are_also_taken_together():
    run = {"val": split_of("val", *A), "testA": split_of("testA", *B)}
    full = pooled_reports(run)["full"]
    values = full["protocols"]["rela"]["values"]
    assert values["gIoU"] == pytest.approx(100 * (0.5 + 0 + 0.9 + 0 + 1) / 5)
    assert values["cIoU"] == 100 * (6 + 0 + 9 + 0) / (12 + 5 + 10 + 12)
    assert (values["N-acc"], values["T-acc"]) == (50, pytest.approx(200 / 3))
    assert values["Pr@0.9"] == pytest.approx(100 / 3)
    assert (full["of"], full["sentences"], full["no_target_sentences"]) == (["testA", "val"], 5, 2)
    assert list(full["protocols"]) == ["rela"]


def test_one_split_or_a_control_is_not_taken_together(tmp_path: Path):
    one, other = split_of("val", *A), split_of("val", *B, control="shuffled")
    assert pooled_reports({"val": one}) == {}
    assert pooled_reports({"val": one, "val-shuffled": other}) == {}
    assert "pooled" not in write_results(tmp_path, {"val": one}, {})


def test_the_pooled_row_is_written_and_shown_whatever_the_order(tmp_path: Path):
    run = {"val": split_of("val", *A), "testA": split_of("testA", *B)}
    metrics = write_results(tmp_path / "one", run, {})
    write_results(tmp_path / "two", dict(reversed(run.items())), {})
    first, second = ((tmp_path / name / "metrics.json").read_bytes() for name in ("one", "two"))
    assert first == second
    original, rela = render(metrics).split("rela: ")
    assert "full" not in original
    assert [line.split()[0] for line in rela.splitlines() if line.startswith("full")] == ["full", "full"]
    assert len(read_evaluation(tmp_path / "one", "testA").rows) == 3


def test_a_result_from_before_boxes_had_rules_is_still_read(tmp_path: Path):
    write_results(tmp_path, {"val": split_of("val", *A)}, {})
    content = json.loads((tmp_path / "metrics.json").read_text())
    for entry in content["splits"]["val"]["protocols"].values():
        del entry["definition"]["box"]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    again = read_evaluation(tmp_path, "val")
    assert [protocol.box for protocol in again.rows.protocols] == [BOX_RULES["transvg"]] * 2
