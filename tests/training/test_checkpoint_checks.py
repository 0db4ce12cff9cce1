"""Damaged, foreign and hostile checkpoints: each is reported in one sentence, before anything of it is executed."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import riszoo
from riszoo.cli.main import main
from riszoo.errors import UserError
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint
from tests.support import tiny_training
from tests.support.zoo import TOY, Entry

EARLY = "tests.support.toys.Early"
WEIGHT = "head.weight"
Content = dict[str, Any]


@pytest.fixture(scope="module")
def content() -> Content:
    """The content of a small model's checkpoint."""
    model = Entry("toy", {"class_path": EARLY, "init_args": {**TOY, "size": 32}}).build()
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    return checkpoint


def saved(content: Any, path: str = "it.ckpt") -> Path:
    torch.save(content, path)
    return Path(path)


def with_weight(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Content], Content]:
    def changed(content: Content) -> Content:
        weights = content["state_dict"]
        return {**content, "state_dict": {**weights, name: change(weights[WEIGHT])}}

    return changed


def without(key: str) -> Callable[[Content], Content]:
    return lambda content: {name: value for name, value in content.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: [content], "is not a riszoo checkpoint: it lacks"),
        (without("riszoo"), "is not a riszoo checkpoint: it lacks"),
        (without("hyper_parameters"), "lacks the model's options (hyper_parameters)"),
        (lambda content: {**content, "riszoo": {"class_path": 3}}, "does not name the model's class"),
        (lambda content: {**content, "state_dict": {"a": 1}}, "values that are not tensors"),
        (lambda content: {**content, "state_dict": {1: content["state_dict"][WEIGHT]}}, "values that are not tensors"),
        (lambda content: {**content, "hyper_parameters": {1: 1}}, "lacks the model's options (hyper_parameters)"),
        (lambda content: {**content, "state_dict": {}}, "does not fit its model: it lacks"),
        (with_weight("extra", lambda weight: weight), "it has 1 unknown weights, such as extra"),
        (with_weight(WEIGHT, lambda weight: weight[:1]), "it has 1 weights of another shape, such as head.weight"),
        (
            with_weight(WEIGHT, lambda weight: weight * float("nan")),
            "has NaN or infinite values in 1 weights, such as he",
        ),
        (with_weight(WEIGHT, lambda weight: weight / 0), "has NaN or infinite values in 1 weights, such as he"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_one_sentence(
    change: Callable[[Content], Any], message: str, content: Content
) -> None:
    path = saved(change(content))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        from_checkpoint(path, EARLY)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("weight_files", 5), ("weight_files", None), ("weight_files", {"vision": {}}), ("weight_files", {"vision": 5}),
        ("weight_files", {"vision": {"file": "a.pt", "sha256": 5}}), ("weight_files", {5: {"file": "a", "sha256": ""}}),
        ("published", 5), ("published", {"format": "lavt"}), ("published", {"format": "lavt", "ignored": [5]}),
        ("run", 5), ("run", {"model": 5}), ("training", 5), ("trained_on", [1]),
        ("seconds", "5"), ("seconds", float("nan")),
    ],
)  # fmt: skip
def test_what_a_checkpoint_says_of_its_origin_is_checked(
    part: str, value: Any, content: Content, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved({**content, "riszoo": {**content["riszoo"], part: value}})
    message = f"{path} is not a valid riszoo checkpoint: its '{part}' is damaged; copy the file again"
    with pytest.raises(UserError, match=re.escape(message)):
        from_checkpoint(path, EARLY)
    assert main(["info", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert main(["convert", str(path), "--out", "converted.ckpt"]) == 2
    assert message in capsys.readouterr().err


def test_options_that_are_not_of_an_encoder_are_left_out_of_info(
    content: Content, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved({**content, "hyper_parameters": {**content["hyper_parameters"], "vision": 5}})
    assert main(["info", str(path)]) == 0
    assert "a checkpoint of riszoo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "is empty"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "is a git-lfs pointer"),
        (lambda _: b"<html>not found</html>", "is not a checkpoint"),
        (lambda whole: whole[: len(whole) // 2], "is truncated or damaged"),
        (lambda whole: whole[:-100], "is truncated or damaged"),
    ],
)
def test_a_damaged_file_is_one_sentence(damage: Callable[[bytes], bytes], message: str, content: Content) -> None:
    path = saved(content)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        from_checkpoint(path, EARLY)


class Hostile:
    """An object whose unpickling would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_no_code_in_a_checkpoint_is_executed_and_no_advice_to_do_so_is_given(content: Content) -> None:
    path = saved({**content, "more": Hostile()})
    with pytest.raises(UserError, match="objects other than tensors and plain values") as caught:
        from_checkpoint(path, EARLY)
    assert "weights_only" not in str(caught.value)
    assert not Path("executed").exists()
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match="is not a checkpoint"):
        from_checkpoint(path, EARLY)
    assert not Path("executed").exists()


def test_only_the_class_of_a_recipe_or_of_the_named_model_is_imported(
    content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("trap.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    monkeypatch.syspath_prepend(".")
    path = saved({**content, "riszoo": {"class_path": "trap.Model"}})
    for name in ("lts", EARLY):
        with pytest.raises(UserError, match=r"is a checkpoint of trap\.Model, but '"):
            riszoo.load(name, path)
    with pytest.raises(UserError, match=r"the class other\.Model cannot be imported: No module named 'other'"):
        riszoo.load("other.Model", path)
    with pytest.raises(UserError, match=r"trap\.Model, which is not the class of a recipe and is not imported"):
        from_checkpoint(path)
    for verb in ("test", "validate", "predict", "fit"):
        assert main([verb, "--ckpt_path", str(path)]) == 2
    assert not Path("executed").exists()
    assert "trap" not in sys.modules


# -- what a checkpoint says about its training ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a training of four steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_training.few_images(patch)
        assert tiny_training.fit("--scale", "tiny", trainer={"max_steps": 4}) == 0
        return runs.checkpoint(next(Path("runs").iterdir()).absolute(), "last")


def evaluate(verb: str, path: Path) -> int:
    options = ["--data.image_size", "64", "--data.test_images", "2", "--data.workers", "0", "--run.images", "0"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    return main([verb, "--model", EARLY, "--scale", "paper", "--ckpt_path", str(path), *options, *quiet])


def test_a_copied_checkpoint_prints_its_own_scale(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied = Path("copied.ckpt")
    copied.write_bytes(trained.read_bytes())
    assert evaluate("test", copied) == 0
    assert "riszoo test: early on scenes, scale tiny, " in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_outputs_that_are_not_finite_are_noticed(verb: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(trained, weights_only=True)
    content["state_dict"]["head.bias"].fill_(3e38)
    content["state_dict"]["head.weight"].fill_(3e38)
    assert evaluate(verb, saved(content)) == 2
    complaint = capsys.readouterr().err
    assert "the model's output is NaN or infinite for" in complaint
    assert "(id scenes0-val-00000-0)" in complaint
    assert len(complaint) < 400


def test_weights_that_are_not_finite_are_noticed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(trained, weights_only=True)
    content["state_dict"]["head.bias"][0] = float("nan")
    assert evaluate("test", saved(content)) == 2
    assert "has NaN or infinite values in 1 weights, such as head.bias" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"such as head\.bias"):
        riszoo.load(EARLY, "it.ckpt")
