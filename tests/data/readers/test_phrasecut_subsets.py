"""The subsets of PhraseCut's official evaluation, by the definitions in its `utils/subset.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from riszoo.data.readers.phrasecut_subsets import COCO, Ranks, read_ranks, subsets
from riszoo.errors import UserError

RANKS = Ranks({f"thing{n}": n for n in range(600)}, {f"att{n}": n for n in range(300)})


def tags(boxes: int = 1, share: float | None = None, ranks: Ranks | None = None, **structure: Any) -> set[str]:
    return set(subsets(structure, boxes, False, share, ranks))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [(0, set()), (1, {"i_single"}), (2, {"i_multi"}), (4, {"i_multi"}), (5, {"i_many"}), (9, {"i_many"})],
)
def test_instances_are_counted_by_boxes_and_the_counts_exclude_each_other(boxes: int, expected: set[str]) -> None:
    assert tags(boxes) & {"i_single", "i_multi", "i_many"} == expected


def test_attributes_and_relations() -> None:
    assert tags(attributes=["a"]) >= {"p_att"}
    assert not tags(attributes=["a"]) & {"p_attm", "p_rel", "p_att_rel"}
    assert tags(attributes=["a", "b"]) >= {"p_att", "p_attm"}
    assert tags(relation_descriptions=[["on", "table"]]) >= {"p_rel"}
    both = tags(attributes=["a"], relation_descriptions=[["on", "x"], ["by", "y"]])
    assert both >= {"p_att", "p_rel", "p_relm", "p_att_rel"}
    assert not tags(relation_ids=[3, 4]) & {"p_rel", "p_relm"}, "ids alone do not decide it"


@pytest.mark.parametrize(
    ("kind", "tag"), [("name", "p_name"), ("attribute", "p_att+"), ("relation", "p_rel+"), ("verbose", "p_verbose")]
)
def test_what_the_phrase_needs(kind: str, tag: str) -> None:
    assert tags(type=kind) == {"i_single", "d_notcocotv", tag}
    assert subsets({"type": kind}, 1, True, None, None) == ["i_single", "d_cocotv", tag]


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (0, {"c20", "c100", "c500"}),
        (19, {"c20", "c100", "c500"}),
        (20, {"c100", "c500", "c21-100"}),
        (100, {"c500", "c101-500"}),
        (499, {"c500", "c101-500"}),
        (500, {"c500+"}),
        (9999, {"c500+"}),
    ],
)
def test_categories_by_frequency(rank: int, expected: set[str]) -> None:
    assert {tag for tag in tags(name=f"thing{rank}", ranks=RANKS) if tag.startswith("c")} == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ([], {"a200+"}),
        (["unknown"], {"a200+"}),
        (["att19"], {"a20", "a100", "a200"}),
        (["att150", "att20"], {"a100", "a200", "a21-100"}),
        (["att100"], {"a200", "a101-200"}),
        (["att200"], {"a200+"}),
    ],
)
def test_attributes_by_the_most_frequent_one(attributes: list[str], expected: set[str]) -> None:
    assert {tag for tag in tags(attributes=attributes, ranks=RANKS) if tag.startswith("a")} == expected


@pytest.mark.parametrize(
    ("share", "expected"), [(0.019, "s_small"), (0.02, "s_mid"), (0.2, "s_mid"), (0.21, "s_large")]
)
def test_size(share: float, expected: str) -> None:
    assert {tag for tag in tags(share=share) if tag.startswith("s")} == {expected}


def test_coco_categories() -> None:
    assert len(COCO) == 80
    assert "c_coco" in tags(name="hot dog")
    assert "c_coco" not in tags(name="sky")


def test_ranks_are_read_from_the_published_counts(tmp_path: Path) -> None:
    path = tmp_path / "name_att_rel_count.json"
    assert read_ranks(path) is None
    path.write_text(json.dumps({"cat": [["man", 9], ["sky", 5]], "att": [["white", 3]], "rel": []}))
    assert read_ranks(path) == Ranks({"man": 0, "sky": 1}, {"white": 0})


@pytest.mark.parametrize("content", ["[]", '{"cat": []}', '{"cat": 1, "att": []}', '{"cat": [[[1], 2]], "att": []}'])
def test_counts_in_another_form_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "name_att_rel_count.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"name_att_rel_count\.json has no lists 'cat' and 'att'"):
        read_ranks(path)
