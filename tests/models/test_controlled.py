"""The scale at which models differ by architecture alone: what is the same in all, and that each works there."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from riszoo import recipes
from riszoo.build import instantiate
from riszoo.cli.bench import main
from riszoo.data.sets import Scenes
from riszoo.errors import UserError
from riszoo.model import RISModule
from riszoo.training.optim import make_optimizer
from tests.support.zoo import Entry, batch_of, train, trained_names

MODELS = [name for name in recipes.names("models") if "controlled" in recipes.scales(name, "scenes")]
SHARED = [name for name in inspect.signature(RISModule).parameters if name != "protocols"]


def of(model: str, data: str) -> dict[str, Any]:
    return recipes.resolve(model, data, "controlled")


def test_one_model_of_each_paper() -> None:
    assert MODELS == ["cgformer", "cris", "detris", "evfsam", "lavt", "lts", "risam", "vipa"]
    classes = {recipes.get("models", name).content["class_path"] for name in recipes.names("models")}
    assert classes == {of(name, "scenes")["model"]["class_path"] for name in MODELS}


@pytest.mark.parametrize("data", recipes.names("data", plugins=False))
def test_all_but_the_architecture_is_the_same(data: str) -> None:
    """Every option of the base, every number of data and trainer; `protocols` says how a run is measured."""
    first, *others = (of(name, data) for name in MODELS)
    assert not set(SHARED) - first["model"]["init_args"].keys(), "an option left to defaults could drift"
    for other in others:
        assert (other["data"], other["trainer"]) == (first["data"], first["trainer"])
        for option in SHARED:
            assert other["model"]["init_args"][option] == first["model"]["init_args"][option], option


def test_a_recipe_cannot_change_what_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by an option within one that is shared, or by one of the trainer's."""
    other = dict(recipes.get("models", "lts").content)
    other["common"] = {"model": {"fill": 3, "vision": {"frozen": True, "options": {"drop_path_rate": 0.9}}}}
    other["controlled"] = {"paper": {"model": {"pool": "max", "size": 32}, "trainer": {"accumulate_grad_batches": 2}}}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.yaml").write_text(yaml.safe_dump(other))
    folders = recipes.folders()
    monkeypatch.setattr(recipes, "folders", lambda: (*folders, tmp_path))
    mine, usual = of("other", "refcoco"), of("lts", "refcoco")
    assert mine["model"]["init_args"].pop("pool") == "max"
    assert mine["model"] == usual["model"]
    assert (mine["data"], mine["trainer"]) == (usual["data"], usual["trainer"])


def test_a_scale_like_it_has_what_it_changes_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dict(recipes.get("models", "lts").content)
    own = {"tiny": {"model": {"pool": "max", "width": 8}}, "photo": {"model": {"pool": "mean", "size": 32}}}
    other["controlled"] = recipes.merge(other["controlled"], own)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.yaml").write_text(yaml.safe_dump(other))
    folders = recipes.folders()
    monkeypatch.setattr(recipes, "folders", lambda: (*folders, tmp_path))
    for scale, pool in (("controlled", "max"), ("photo", "mean"), ("photo-random", "max")):
        options = recipes.resolve("other", "collage", scale)["model"]["init_args"]
        usual = recipes.resolve("lts", "collage", scale)["model"]["init_args"]
        assert options == usual | {"pool": pool, "width": 8}, scale


def test_the_budget_on_scenes_is_the_tiny_one() -> None:
    tiny, controlled = (recipes.resolve("vipa", "scenes", scale) for scale in ("tiny", "controlled"))
    assert (controlled["data"], controlled["trainer"]) == (tiny["data"], tiny["trainer"])


@pytest.mark.parametrize("name", MODELS)
def test_every_part_trains_on_the_small_encoders(name: str) -> None:
    model = Entry(name, of(name, "scenes")["model"]).build().train()
    batch = batch_of(model, 4, 2, image=model.size)
    optimizer, _ = make_optimizer(model, model.optim, 30)
    seen = train(model, batch, optimizer, 2)  # what starts at zero passes no gradient at first
    assert trained_names(model) == seen


@pytest.mark.parametrize("name", MODELS)
def test_the_large_encoders_fit(name: str) -> None:
    """Swin-B and BERT-base without memory: a training's forward pass, and nothing of the encoders left out of it."""
    section = of(name, "refcoco")["model"]
    words = Scenes().words()
    section["init_args"]["text"] = {"name": "bert", "length": 22, "vocabulary": list(dict.fromkeys(words))[:50]}
    section["init_args"]["vision"]["weights"] = "none"
    with torch.device("meta"):
        model = instantiate(RISModule, section).train()  # type: ignore[type-abstract]
        assert model.vision.channels == [128, 256, 512, 1024]
        encoders = (*model.vision.parameters(), *model.text.parameters())
        assert all(p.requires_grad for p in encoders), "all of the encoders train"
    batch = batch_of(model, 1, 2, image=96)
    output = model(batch.to("meta"))
    assert tuple(output.logits.shape) in {(2, 1, 120, 120), (2, 1, 480, 480)}


def test_a_class_of_ones_own_gets_the_same_setting() -> None:
    from riszoo.cli.request import Request

    words = ["--model", "tests.support.toys.Early", "--data", "refcoco", "--scale", "controlled"]
    base, usual = Request.read("fit", words).base[0], of("lts", "refcoco")
    assert (base["data"], base["trainer"]) == (usual["data"], usual["trainer"])
    assert {name: base["model"]["init_args"][name] for name in SHARED} == {
        name: usual["model"]["init_args"][name] for name in SHARED
    }


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"model": {"pool": "mean"}}, r"'controlled' has options of its own; put them under 'tiny'"),
        (["photo"], r"'controlled' must be a mapping from scales to options, not \['photo'\]"),
        ({1: {"model": {}}}, "controlled has no scale '1'"),
        ({"foto": {"model": {"pool": "mean"}}}, r"controlled has no scale 'foto': did you mean 'photo'\?"),
    ],
)
def test_a_wrong_section_of_a_shared_scale_is_reported(
    section: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plug_in(tmp_path, monkeypatch, section)
    with pytest.raises(UserError, match=rf"mine\.yaml: {reason}"):
        of("mine", "scenes")


@pytest.mark.parametrize("section", [None, {"photo": {"model": {"pool": "mean"}}, "paper": {}}])
def test_a_section_of_a_shared_scale_may_be_for_other_data(
    section: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plug_in(tmp_path, monkeypatch, section)
    assert of("mine", "scenes")["model"]["init_args"].get("pool") != "mean"


def _plug_in(folder: Path, monkeypatch: pytest.MonkeyPatch, section: Any) -> None:
    """A recipe `mine` like that of LTS, with such a section `controlled`."""
    (folder / "models").mkdir()
    (folder / "models" / "mine.yaml").write_text(
        yaml.safe_dump({**recipes.get("models", "lts").content, "controlled": section})
    )
    monkeypatch.setattr(recipes, "plugin_folders", lambda: (folder,))


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--data", "scenes"], ["--data", "refcoco", "--models", "all"]])
def test_a_controlled_bench_says_who_is_in_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--controlled", *words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "skipped, no scale 'controlled' in their recipes: detris-large, lavt-one, lts-swin, maris\n" in said
    assert [
        line.split()[0] for line in said.splitlines() if "scale controlled" in line and "on" in line.split()
    ] == MODELS


def test_a_model_without_the_scale_is_a_user_error() -> None:
    with pytest.raises(UserError, match="'maris' on 'scenes' has no scale 'controlled'"):
        main(["--controlled", "--models", "maris", "--dry-run"])
