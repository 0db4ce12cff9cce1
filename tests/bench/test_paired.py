"""Two models measured in turns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from riszoo.bench import paired
from riszoo.bench.paired import Call, Cost, Side
from riszoo.cli.main import main
from riszoo.cli.speed import arguments, read_side, shared_words
from riszoo.errors import UserError

A, B = Side("lts", "scenes", "tiny", batch=4), Side("vipa", "scenes", "tiny", batch=4)


class Recorder:
    """Stands for the process of a side: records what it is asked to run, and returns fixed costs."""

    def __init__(self, name: str, wall: float, calls: list[str]) -> None:
        self.name, self.wall, self.calls = name, wall, calls

    def __call__(self, function: Any, *_: Any) -> Any:
        self.calls.append(f"{function.__name__} {self.name}")
        return {"measure": Cost(self.wall, 2 * self.wall), "memory": 100 * self.wall}.get(function.__name__)


def test_the_sides_take_turns_and_alternate_who_is_first() -> None:
    calls: list[str] = []
    row = paired.compare_step(A, B, Recorder("A", 1.0, calls), Recorder("B", 3.0, calls), "forward", repeats=2)
    assert [call for call in calls if call.startswith("measure")] == [
        "measure A", "measure B", "measure B", "measure A",
    ]  # fmt: skip
    assert calls[:2] == ["warm_up A", "warm_up B"]
    assert row["wall_s"] == [1.0, 3.0]
    assert row["wall_ratio"] == row["processor_ratio"] == row["memory_ratio"] == 3.0


def test_one_slow_turn_does_not_move_the_ratio() -> None:
    calm, disturbed = [Cost(1, 1), Cost(2, 2)], [Cost(1, 1), Cost(90, 90)]
    row = paired.summary([calm, disturbed, calm])
    assert row["wall_ratio"] == 2
    assert row["wall_ratio_spread"] > 0


def test_a_part_trains_its_encoder_alone() -> None:
    side = Side("lts", "scenes", "tiny", part="vision", batch=4)
    cost = paired.measure(side, "training")
    trained = {name.split(".")[0] for name, p in paired.subject(side).model.named_parameters() if p.grad is not None}
    assert trained == {"vision"}
    assert cost.processor > 0


def test_a_frozen_part_has_no_training_step() -> None:
    frozen = json.dumps({"model": {"init_args": {"vision": {"frozen": True}}}})
    with pytest.raises(UserError, match=r"--part vision of lts tiny.* is frozen.*give --steps forward"):
        paired.measure(Side("lts", "scenes", "tiny", over=frozen, part="vision", batch=4), "training")


@contextmanager
def this_process() -> Iterator[Call]:
    yield lambda function, *args: function(*args)


def test_a_comparison_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paired, "own_process", this_process)
    words = ["--paired", "lts", "lts --part encoders --model.size 64", "--device", "cpu", "--steps", "forward"]
    assert main(["speed", *words, "--batch", "4", "--repeats", "2", "--out", str(tmp_path / "pair.json")]) == 0
    printed, row = capsys.readouterr().out, json.loads((tmp_path / "pair.json").read_text())
    assert "A: lts tiny\nB: lts tiny, encoders, model.size 64" in printed
    assert [step["step"] for step in row["steps"]] == ["forward"]
    assert row["steps"][0]["processor_ratio"] > 0
    assert row["command"].startswith("riszoo speed --paired")


def test_one_sentence_is_too_few_for_a_batch_norm_over_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.size", "64", "--data.sentences_per_image", "1", "--device", "cpu", "--repeats", "1"]
    assert main(["speed", "lts", *words, "--batch", "1"]) == 2
    assert "the BatchNorm of LTS cannot be trained with one sentence: give --batch 2" in capsys.readouterr().err


def test_a_side_overrides_the_options_that_both_share() -> None:
    argv = ["--scale", "paper", "--paired", "lts", "vipa --scale tiny --model.fusion.kind=late", "--model.size", "64"]
    first, second = (read_side(text, shared_words(argv)) for text in argv[3:5])
    assert (first.model, first.scale, second.model, second.scale) == ("lts", "paper", "vipa", "tiny")
    assert first.over == {"model": {"init_args": {"size": 64}}}
    assert second.over == {"model": {"init_args": {"size": 64, "fusion": {"kind": "late"}}}}


def test_json_of_a_side_is_added_to_that_of_both() -> None:
    shared = ["--over", '{"model": {"init_args": {"size": 64}}}']
    side = read_side("""vipa --over '{"model": {"init_args": {"width": 32}}}'""", shared)
    assert side.over == {"model": {"init_args": {"size": 64, "width": 32}}}


def test_changes_are_added_to_those_given_as_json() -> None:
    args = arguments(["lts", "--over", '{"trainer": {"max_steps": 2}}', "--data.sentences_per_image", "4"])
    assert args.over == {"trainer": {"max_steps": 2}, "data": {"init_args": {"sentences_per_image": 4}}}


@pytest.mark.slow  # each side imports torch in a process of its own
def test_each_side_has_its_own_process() -> None:
    (row,) = paired.compare(A, Side("lts", "scenes", "tiny", batch=32), ["training"], repeats=2)
    assert row["processor_ratio"] > 1
    assert row["memory_ratio"] > 1
