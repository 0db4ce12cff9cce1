"""`riszoo.train` and `riszoo.evaluate` are the verbs `fit` and `test`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import riszoo
from riszoo.errors import UserError
from tests.support.tiny_training import CONFIG, few_images


def test_the_functions_are_listed_and_documented() -> None:
    assert {"load", "train", "evaluate"} <= set(dir(riszoo))
    assert all(getattr(riszoo, name).__doc__ for name in riszoo.FUNCTIONS)
    with pytest.raises(AttributeError, match="no attribute 'segmnet'"):
        _ = riszoo.segmnet


def test_train_and_evaluate_return_what_the_verbs_write(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    model = CONFIG["model"]["class_path"]
    options = {"config": json.dumps(CONFIG), "trainer.max_steps": 2, "model.optim.lr": 1e-3}
    run = riszoo.train(model, options=options)
    assert run.parent == Path("runs")
    assert json.loads((run / "run.json").read_text())["training"]["steps"] == 2
    metrics = riszoo.evaluate(
        model, checkpoint=run, splits=["val", "testA"], protocols=["original", "lavt480"],
        options={"data.test_images": 2, "data.workers": 0, "run.images": 0},
    )  # fmt: skip
    assert set(metrics["splits"]) == {"val", "testA"}
    assert set(metrics["splits"]["val"]["protocols"]) == {"original", "lavt480"}
    (written,) = run.glob("test-*/metrics.json")
    assert json.loads(written.read_text()) == metrics


def test_a_wrong_name_raises_a_user_error() -> None:
    with pytest.raises(UserError, match="did you mean 'lts'"):
        riszoo.train("ltz")
    with pytest.raises(UserError, match="unknown protocol 'nope'"):
        riszoo.evaluate("lts", protocols="nope")


def test_a_trial_that_keeps_nothing_has_no_folder_to_return(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    model = CONFIG["model"]["class_path"]
    with pytest.raises(UserError, match=f"the training of '{model}' left no run folder"):
        riszoo.train(model, options={"config": json.dumps(CONFIG), "trainer.fast_dev_run": True})
