"""Run folders: a damaged one is skipped and named, and the others are found."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from riszoo.errors import UserError
from riszoo.training import runs


def a_run(root: Path, name: str, card: bytes) -> Path:
    folder = root / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / runs.CARD).write_bytes(card)
    return folder


GOOD = {"model": "lts", "data": "scenes", "started": 1}


@pytest.mark.parametrize(
    "damaged",
    [
        b"\xff\xfe\x00binary",
        b"",
        b"[1, 2]",
        b"null",
        b"[" * 100_000,
        json.dumps({**GOOD, "started": "yesterday"}).encode(),
        json.dumps({**GOOD, "started": None}).encode(),
        json.dumps({**GOOD, "started": 1e300}).encode(),
        json.dumps({**GOOD, "started": float("nan")}).encode(),
        json.dumps({**GOOD, "model": ["lts"]}).encode(),
        json.dumps({**GOOD, "data": 3}).encode(),
        json.dumps({**GOOD, "note": "x" * (1 << 20)}).encode(),
    ],
    ids=[
        "binary", "empty", "list", "null", "deep", "text for a number", "none", "no time", "nan", "list for text",
        "number", "huge",
    ],
)  # fmt: skip
def test_a_damaged_run_is_skipped_and_named_once(
    damaged: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = a_run(tmp_path, "lts-scenes-1", json.dumps(GOOD).encode())
    bad = a_run(tmp_path, "lts-scenes-2", damaged)
    for _ in range(2):
        assert runs.newest(tmp_path, "lts", "scenes", "best") == runs.checkpoint(good)
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert complaint.startswith(f"riszoo: {bad / 'run.json'} is not the description of a run (")
    assert len(complaint) < 400


def test_without_a_sound_run_the_command_that_trains_one_is_given(tmp_path: Path) -> None:
    a_run(tmp_path, "lts-scenes-1", b"{")
    with pytest.raises(UserError, match="riszoo fit --model lts --data scenes"):
        runs.newest(tmp_path, "lts", "scenes", "best")


def test_an_own_class_does_not_hide_the_recipe_of_its_name(tmp_path: Path) -> None:
    assert runs.model_name("lts") == "lts"
    assert runs.model_name("my_models.Mine") == "mine"
    own = runs.model_name("my_models.LTS")
    assert own == "my_models.lts"
    good = a_run(tmp_path, "lts-scenes-1", json.dumps(GOOD).encode())
    a_run(tmp_path, "my_models.lts-scenes-2", json.dumps({**GOOD, "model": own, "started": 2}).encode())
    assert runs.newest(tmp_path, "lts", "scenes", "best") == runs.checkpoint(good)


def test_a_run_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    run = a_run(tmp_path, "lts-scenes-1", json.dumps(GOOD).encode())
    assert runs.existing(str(run)) == run / "checkpoints" / "best.ckpt"
    with pytest.raises(UserError, match="is not a file: give --ckpt_path FILE"):
        runs.existing(str(tmp_path))


def test_the_command_that_tests_a_checkpoint_says_where_its_data_are() -> None:
    options = ["--data.root", "my photos", "--data.batch_size", "4", "--data.grounds=sky", "--model.size", "64"]
    words = shlex.split(runs.test_command("lts", "folder", options, Path("my runs/best.ckpt")))
    assert words == [
        *("riszoo", "test", "--model", "lts", "--data", "folder", "--data.root", "my photos"),
        *("--data.grounds", "sky", "--ckpt_path", "my runs/best.ckpt"),
    ]


def test_only_a_folder_without_results_is_removed(tmp_path: Path) -> None:
    """A test of a checkpoint that lies outside of a run leaves its results in a folder of its own."""
    files = {
        "failed": ["config.yaml", "hparams.yaml", "run.json"],
        "tested": ["config.yaml", "test-scenes/metrics.json"],
    }
    for name, file in ((name, file) for name, listed in files.items() for file in listed):
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / file).touch()
    for name in files:
        runs.remove_if_unused(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["tested"]
