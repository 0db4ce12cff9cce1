"""Models as repositories: as folders, on a local server, from the cache, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors.torch import load_file, save_file

import riszoo
from riszoo.cli.main import main
from riszoo.errors import UserError
from riszoo.files import file_hash
from riszoo.inference.hub.card import results_of, results_yaml
from riszoo.inference.hub.fetch import Address, fetch, parse
from riszoo.inference.hub.repository import CardOptions, check_repository, tensor_hashes, write_repository
from riszoo.model import RISModule
from riszoo.models.lts import LTS
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint
from tests.support.hub_server import HubServer, hub_server
from tests.support.small_run import scene, small_run

NAME = "user/small-lts"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a small LTS with the result of a test, as far as the model card reads it."""
    folder = small_run(tmp_path_factory.mktemp("hub") / "runs")
    test = folder / "test-scenes-1"
    test.mkdir()
    checkpoint = {"path": "best.ckpt", "sha256": file_hash(runs.checkpoint(folder))}
    about = {"checkpoint": checkpoint, "command": "riszoo test --model lts", "commit": "abc", "device": "cpu"}
    (test / "run.json").write_text(json.dumps(about))
    values = {"mIoU": 56.539, "oIoU": 50.0, "n": 3000.0}
    metrics = {"splits": {"val": {"protocols": {"original": {"values": values}}}}}
    (test / "metrics.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture(scope="module")
def repository(run: Path) -> Path:
    """The run's repository as a folder."""
    out = run.parent.parent / "repository"
    words = ["--model", "lts", "--run.root", str(run.parent), "--license", "apache-2.0", "--dataset", "user/scenes"]
    assert main(["hub", "push", str(out), *words]) == 0
    return out


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A server that downloads are allowed from, and an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RISZOO_DOWNLOAD", "1")
    with hub_server() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def publish(server: HubServer, folder: Path) -> None:
    server.files[NAME] = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_folder_holds_the_weights_their_hashes_and_a_model_card(run: Path, repository: Path) -> None:
    own = from_checkpoint(runs.checkpoint(run))
    config = json.loads((repository / "config.json").read_text())
    assert config["tensors"] == tensor_hashes(own.state_dict()) == tensor_hashes(weights_of(repository))
    card = ModelCard.load(repository / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-segmentation"
    assert "| val | original | 3000 | 56.54 | 50.00 |" in card.text
    assert file_hash(repository / "model.safetensors") in card.text
    assert "The recipe `lts` of riszoo. Given an image" in card.text
    assert "not recorded" not in card.text
    assert "$" not in card.text


def weights_of(repository: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in load_file(repository / "model.safetensors").items() if "." in name}


def test_results_have_the_form_of_the_hub(repository: Path) -> None:
    (entry,) = parse_eval_result_entries(yaml.safe_load((repository / ".eval_results" / "riszoo.yaml").read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("user/scenes", "val_original_miou", 56.54)


def a_test(run: Path, name: str, started: float, splits: dict[str, object], control: str = "none") -> None:
    """A result of `riszoo test` of the checkpoint with this hash, with the mIoU of each split."""
    folder = run / name
    folder.mkdir(parents=True)
    about = {"checkpoint": {"sha256": "0"}, "command": name, "commit": "abc", "device": "cpu", "started": started}
    (folder / "run.json").write_text(json.dumps(about))
    entries = {
        split: {"chosen": {"control": control}, "protocols": {"original": {"values": {"mIoU": value, "n": 3.0}}}}
        for split, value in splits.items()
    }
    (folder / "metrics.json").write_text(json.dumps({"splits": entries}))


def test_the_results_are_those_of_the_newest_test_with_true_sentences(tmp_path: Path) -> None:
    a_test(tmp_path, "test-scenes-20260101-000000", 1.0, {"val": 40.0})
    a_test(tmp_path, "test-collage-20260102-000000", 2.0, {"val": 50.0, "empty": None})
    a_test(tmp_path, "test-scenes-20260103-000000", 3.0, {"val-blank": 10.0}, control="blank")
    results = results_of(tmp_path, "0")
    assert results is not None
    assert (results.command, [row[0] for row in results.rows]) == ("test-collage-20260102-000000", ["val", "empty"])
    (entry,) = parse_eval_result_entries(yaml.safe_load(results_yaml(results, "user/collage")))
    assert (entry.task_id, entry.value) == ("val_original_miou", 50.0)


def test_a_model_is_loaded_from_a_folder(run: Path, repository: Path) -> None:
    own = from_checkpoint(runs.checkpoint(run))
    for loaded in (LTS.from_pretrained(repository), riszoo.load(str(repository)).model):
        assert not loaded.training
        assert tensor_hashes(loaded.state_dict()) == tensor_hashes(own.state_dict())


def test_a_class_loads_only_its_own_checkpoints(repository: Path) -> None:
    from riszoo.models.vipa.model import VIPA

    with pytest.raises(UserError, match=r"checkpoint of riszoo\.models\.lts\.LTS"):
        VIPA.from_pretrained(repository)


def test_a_repository_is_fetched_from_a_server_and_then_from_the_cache(
    server: HubServer, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, repository)
    model = RISModule.from_pretrained(NAME, revision="main")
    assert tensor_hashes(model.state_dict()) == json.loads((repository / "config.json").read_text())["tensors"]
    monkeypatch.delenv("RISZOO_DOWNLOAD")
    server.requests.clear()
    (prediction,) = riszoo.load(f"hf://{NAME}").segment(scene(), "the circle")
    assert prediction.mask.shape == (60, 90)
    assert server.requests == []


def test_nothing_is_downloaded_unless_it_is_allowed(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RISZOO_DOWNLOAD")
    with pytest.raises(UserError, match=r"set RISZOO_DOWNLOAD=1 .* or copy the repository to a folder user/small-lts"):
        riszoo.load(f"hf://{NAME}")
    assert server.requests == []


def test_a_copy_in_the_folder_of_repositories_is_used(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(repository, tmp_path / NAME)
    monkeypatch.setenv("RISZOO_HUB", str(tmp_path))
    with pytest.raises(UserError, match="from_pretrained has no option 'tokn': did you mean 'token'"):
        RISModule.from_pretrained(NAME, tokn="x")
    with pytest.raises(UserError, match=r"revision=v2: the folder .* has no revisions"):
        RISModule.from_pretrained(tmp_path / NAME, revision="v2")
    assert fetch(Address(NAME)) == tmp_path / NAME / "model.safetensors"


def test_info_describes_the_folder_of_a_repository(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(repository)]) == 0
    assert "a checkpoint of riszoo of riszoo.models.lts.LTS" in capsys.readouterr().out


def test_info_sends_no_control_codes_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a\x1b[31m.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert main(["info", str(tmp_path / "a.safetensors")]) == 0
    assert "names begin with a\\x1b[31m" in capsys.readouterr().out


def test_a_published_checkpoint_without_batch_counters_becomes_a_repository(run: Path, tmp_path: Path) -> None:
    content = torch.load(runs.checkpoint(run), weights_only=True)
    state = content["state_dict"]
    content["state_dict"] = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    assert len(content["state_dict"]) < len(state)
    content["riszoo"]["published"] = {"format": "lts", "file": "lts.pth", "ignored": []}
    torch.save(content, tmp_path / "published.ckpt")
    write_repository(tmp_path / "published.ckpt", tmp_path / "repository", CardOptions("mit"), "lts")
    assert len(weights_of(tmp_path / "repository")) == len(content["state_dict"])


def test_push_and_pull_give_the_same_files(
    server: HubServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    words = ["--model", "lts", "--run.root", str(run.parent), "--license", "apache-2.0"]
    assert main(["hub", "push", f"hf://{NAME}", *words]) == 0
    assert set(server.files[NAME]) == {"model.safetensors", "config.json", "README.md"}
    assert f"hf://{NAME}".encode() in server.files[NAME]["README.md"]
    assert not any("/branch/" in request for request in server.requests)
    assert main(["hub", "push", f"hf://{NAME}@trial", *words]) == 0
    assert next(request for request in server.requests if "trial" in request).endswith(f"{NAME}/branch/trial")
    assert main(["hub", "pull", f"hf://{NAME}", "--out", str(tmp_path / "copy")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == server.files[NAME]
    capsys.readouterr()
    assert main(["hub", "pull", "hf://user/unknown", "--out", str(tmp_path / "other")]) == 2
    assert "hf://user/unknown cannot be downloaded" in capsys.readouterr().err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["hub", "push", f"hf://{NAME}", *words]) == 2
    assert f"{runs.checkpoint(run)} cannot be sent to hf://{NAME}" in capsys.readouterr().err


def test_a_class_of_the_users_own_is_pushed_and_pulled_where_it_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_of_hub.py").write_text("from riszoo.models.lts import LTS\n\n\nclass Own(LTS):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoint = torch.load(runs.checkpoint(run), weights_only=True)
    checkpoint["riszoo"]["class_path"] = "own_of_hub.Own"
    checkpoint["riszoo"]["run"] = {"model": "own", "data": "scenes", "scale": "tiny"}
    torch.save(checkpoint, tmp_path / "own.ckpt")
    named = ["--model", "own_of_hub.Own"]
    words = ["--ckpt_path", str(tmp_path / "own.ckpt"), "--license", "mit"]
    assert main(["hub", "push", str(tmp_path / "user" / "own"), *named, *words]) == 0
    card = (tmp_path / "user" / "own" / "README.md").read_text()
    assert "A model of the class `own_of_hub.Own` at scale `tiny`, trained on `scenes`. Given an image" in card
    assert "The model was trained on `scenes` alone" in card
    (command,) = re.findall(r"riszoo (segment .*) --image", card)
    assert command == "segment --model own_of_hub.Own --ckpt_path hf://user/repository"
    (arguments,) = re.findall(r"riszoo\.load\((.*?)\)", card)
    assert arguments == '"own_of_hub.Own", "hf://user/repository"'
    del sys.modules["own_of_hub"]
    monkeypatch.setenv("RISZOO_HUB", str(tmp_path))
    copy = ["hub", "pull", "hf://user/own", "--out", str(tmp_path / "copy")]
    assert main(copy) == 2
    assert "name the class with --model if you trust it" in capsys.readouterr().err
    assert main([*copy, "--model", "vipa"]) == 2
    assert "is a checkpoint of own_of_hub.Own, but 'vipa' is" in capsys.readouterr().err
    assert "own_of_hub" not in sys.modules, "a class that is not named must not be imported"
    assert main([*copy, *named]) == 0
    assert riszoo.load("own_of_hub.Own", "hf://user/own").segment(scene(), "the circle")
    del sys.modules["own_of_hub"]


def test_changed_weights_are_refused(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(repository, folder)
    config = json.loads((folder / "config.json").read_text())
    name = next(iter(config["tensors"]))
    config["tensors"][name] = 64 * "0"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"1 tensors of the loaded model differ from config\.json, such as {name}"):
        check_repository(folder)
    for damaged in ('{"tensors": [1]}', '{"tensors": 1}', "[" * 100_000):
        (folder / "config.json").write_text(damaged)
        with pytest.raises(UserError, match=r"config\.json has no hashes of tensors"):
            check_repository(folder)
    shutil.copy(repository / "config.json", folder)
    save_file({"a.weight": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="is not a riszoo checkpoint"):
        check_repository(folder)


def test_wrong_calls_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in {
        "push hf://user/x --license mit": "needs --model",
        "push hf://user/x --model lts": "needs --license",
        "push x --model lst --license mit": "did you mean 'lts'",
        "pull user": "is not the address of a repository",
        "pull hf://user/x --model lst": "did you mean 'lts'",
        "pull hf://user/x --license mit": "--license is an option of `riszoo hub push`",
        "pull hf://user/x --data nonsense": "--data is an option of `riszoo hub push`",
        "pull hf://user/x --run.root nowhere": "--run.root is an option of `riszoo hub push`",
        "push x --model lts --license mit --private": "--private is for a repository of the Hub",
        "pull hf://../etc": "is not the address of a repository",
    }.items():
        assert main(["hub", *words.split()]) == 2
        assert message in capsys.readouterr().err
    assert parse("hf://user/name@v1.0") == Address("user/name", "v1.0")
