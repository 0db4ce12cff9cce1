"""What the evidence maps of a split show, on maps whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from riszoo.batch import Batch, Geometry, Output, Sample, Tokens
from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError
from riszoo.inference.evidence import (
    EvidenceTable,
    appearance_guess,
    describe,
    measures,
    read_evidence,
    write_evidence,
)
from riszoo.metrics.protocols import get_protocols
from tests.support.fake_batches import Blobs, BlobSplit

PROTOCOL = get_protocols("original")[0]
FRAME = (64, 64)
TARGET = (slice(10, 20), slice(40, 80))
"""The target's rows and columns in an image of 40 x 80, which lies in rows 16 to 48 of the frame."""


def batch(sentences: int = 2, *, targets: int = 1) -> Batch:
    """One image of 40 x 80 with a target, or with none for the sentences after the first `targets`."""
    geometry = Geometry.fit("letterbox", (40, 80), FRAME)
    target = torch.zeros(40, 80, dtype=torch.bool)
    target[TARGET] = True
    spans = [("red", 1, 2), ("circle", 2, 4)]
    return Batch(
        images=torch.zeros(1, 3, *FRAME, dtype=torch.uint8),
        valid=torch.tensor([geometry.valid]),
        image_ids=["i"],
        geometry=[geometry],
        texts=["red circle"] * sentences,
        image_index=torch.zeros(sentences, dtype=torch.long),
        samples=[
            Sample(f"s{i}", i, "d", "val", "i", f"t{i}", "red circle", (f"kind{i % 2}",)) for i in range(sentences)
        ],
        no_target=torch.zeros(sentences, dtype=torch.bool),
        ground_truths={PROTOCOL.ground_truth.key: [target, torch.zeros_like(target)]},
        target_index=torch.tensor([int(i >= targets) for i in range(sentences)]),
        tokens=Tokens(
            torch.zeros(sentences, 5, dtype=torch.long), torch.ones(sentences, 5).bool(), [spans] * sentences
        ),
    )


def output(**evidence: torch.Tensor) -> Output:
    return Output(torch.zeros(2, 1, 16, 16), evidence)


def peak_at(row: int, column: int, size: int = 16) -> torch.Tensor:
    """A map of the whole frame with its largest cell there, except for one outside the image."""
    maps = torch.zeros(2, 1, size, size)
    maps[:, :, row, column] = 1.0
    maps[:, :, 0, 0] = 2.0
    return maps


@pytest.mark.parametrize(
    ("row", "column", "hit"), [(6, 9, 100.0), (7, 15, 100.0), (5, 9, 0.0), (6, 7, 0.0), (9, 9, 0.0)]
)
def test_a_peak_on_the_target_is_a_hit(row: int, column: int, hit: float) -> None:
    found = measures(output(prior=peak_at(row, column)), batch(targets=2), PROTOCOL)
    assert found["pointing of prior"] == [hit, hit]
    assert found["chance"] == pytest.approx([100 * 10 * 40 / (40 * 80)] * 2)


def test_of_equal_largest_cells_the_share_on_the_target_counts() -> None:
    maps = peak_at(6, 9)
    maps[:, :, 6, 7] = maps[:, :, 9, 9] = maps[:, :, 6, 9] = maps[:, :, 7, 15] = 3.0
    assert measures(output(group=maps), batch(targets=2), PROTOCOL)["pointing of group"] == [50.0, 50.0]


def test_the_map_of_a_sentence_is_the_mean_over_its_words_alone() -> None:
    maps = torch.zeros(2, 5, 16, 16)
    maps[:, 1:4, 6, 9] = 1.0  # words
    maps[:, [0, 4], 9, 9] = 9.0  # special tokens
    assert measures(output(relevance=maps), batch(targets=2), PROTOCOL)["pointing of relevance"] == [100.0, 100.0]


def test_a_sentence_without_a_target_counts_neither_way() -> None:
    table = EvidenceTable()
    table.update(output(prior=peak_at(6, 9)), batch(targets=1), PROTOCOL)
    summary = table.summary()
    assert summary["all"]["pointing of prior"] == 100.0
    assert "pointing of prior" in summary["by_type"]["kind0"]
    assert "pointing of prior" not in summary["by_type"]["kind1"]


@pytest.mark.parametrize(("second", "overlap"), [(slice(0, 4), 100.0), (slice(2, 6), 100 / 3), (slice(4, 8), 0.0)])
def test_the_overlap_of_what_words_retrieve(second: slice, overlap: float) -> None:
    sets = torch.zeros(2, 5, 4, 4)
    sets[:, 1].flatten(1)[:, 0:4] = 1
    sets[:, 2].flatten(1)[:, second] = 1  # `circle` has two tokens and retrieves what either does
    found = measures(output(retrieved=sets), batch(), PROTOCOL)
    assert found["overlap of retrieved"] == pytest.approx([overlap] * 2)
    one = batch()
    assert one.tokens is not None
    one.tokens.spans = [[("circle", 1, 4)]] * 2
    assert all(map(math.isnan, measures(output(retrieved=sets), one, PROTOCOL)["overlap of retrieved"]))


def test_the_summary_does_not_depend_on_how_sentences_are_spread_over_processes() -> None:
    def measured(*indices: int) -> EvidenceTable:
        table = EvidenceTable()
        for index in indices:
            table.values[index] = {"chance": float(index)}
            table.types[index] = (f"kind{index % 2}",)
        return table

    whole, first, second = measured(0, 1, 2, 3), measured(0, 2), measured(3, 1)
    first.merge([second])
    assert first.summary() == whole.summary()
    assert whole.summary() == {"all": {"chance": 1.5}, "by_type": {"kind0": {"chance": 1.0}, "kind1": {"chance": 2.0}}}


def test_the_guess_from_appearance_is_of_generated_data() -> None:
    split = ScenesSplit("val")
    guess = appearance_guess(split, range(60))
    assert 30 < guess["all"] < 70
    assert guess["by_type"]["attribute"] > guess["by_type"]["place"]
    assert appearance_guess(BlobSplit(Blobs()), range(1)) == {}


def test_the_file_is_read_back_and_described(tmp_path: Path) -> None:
    entry: dict[str, Any] = {
        "evidence": {"all": {"chance": 6.1, "pointing of prior": 48.2, "overlap of retrieved": 99.9}, "by_type": {}},
        "guess": {"all": 50.0, "by_type": {"place": 33.3}},
    }
    write_evidence(tmp_path, {"val": entry})
    assert read_evidence(tmp_path, "val") == entry
    assert (
        read_evidence(tmp_path, "testA") == read_evidence(tmp_path / "missing", "val") == {"evidence": {}, "guess": {}}
    )
    (tmp_path / "evidence.json").write_text('{"format": 1, "splits": {"val"')
    with pytest.raises(UserError, match=r"evidence.json is damaged .*: test the run again"):
        read_evidence(tmp_path, "val")
    lines = describe({"val": entry}).splitlines()
    assert lines[0] == "overlap of retrieved on val: 99.9 %"
    assert lines[1] == "pointing of prior on val: 48.2 % (chance 6.1)"
    assert lines[2].endswith("on val: place 33.3")
