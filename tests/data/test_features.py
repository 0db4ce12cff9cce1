"""Features kept on disk: as good as images, never half written, never another backbone's, never decoded twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import Precision
from PIL import Image
from torch import Tensor, nn

from riszoo.batch import Features, Output
from riszoo.cli.main import main
from riszoo.data.augment import Augment
from riszoo.data.features import FeatureCache, default_folder, fill_cache
from riszoo.data.sets import Folder, RefCOCO, Scenes
from riszoo.errors import UserError
from riszoo.model import RISModule
from tests.support import data_trees as trees
from tests.support.toys import Taps
from tests.support.vipa_small import SMALL as VIPA
from tests.support.zoo import TOY, Entry

RESNET = {"vision": {"frozen": True}}
SAM = {"vision": {"name": "sam_vit_tiny", "options": {
    "patch": 8, "embed_dim": 32, "depth": 3, "heads": 2, "global_blocks": [0, 1, 2], "out_channels": 16,
    "peft": "none"}}}  # fmt: skip
RISAM = {"class_path": "riszoo.models.risam.model.RISAM", "init_args": {
    "size": 64, "geometry": "pad", "width": 32, **SAM, "text": TOY["text"], "fe": {"stride": 8},
    "ma": {"depth": 1, "heads": 2, "hidden": 32}, "decoder": {"heads": 2, "hidden": 32, "depth": 1}}}  # fmt: skip
LTS = {"class_path": "riszoo.models.lts.LTS", "init_args": TOY}
MODELS: dict[str, Callable[[], RISModule]] = {
    "sam": lambda: Entry("risam", RISAM).build(),
    "lts": lambda: Entry("lts", LTS).build(**RESNET, channels_last=True),
    "views": lambda: Entry("views", {"class_path": "tests.support.toys.Views", "init_args": TOY}).build(**RESNET),
    "vipa": lambda: Entry("vipa", VIPA).build(**RESNET),
    "vipa-early": lambda: Entry("vipa", VIPA).build(**RESNET, fusion={"kind": "early", "layers": 1}),
}
QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "enable_checkpointing": False, "use_distributed_sampler": False,
}  # fmt: skip
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four photographs of different shapes, two sentences each; `val` asks about the last two."""
    made = tmp_path / "own"
    made.mkdir()
    rows = []
    for n in range(4):
        noise = np.random.default_rng(n).integers(0, 255, (40 + 9 * n, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(made / f"{n}.jpg")
        for word in ("red", "blue"):
            outline = [5, 5, 30 + n, 5, 30 + n, 35, 5, 35] if word == "red" else [10, 8, 40, 8, 40, 30]
            rows.append({"image": f"{n}.jpg", "sentence": f"the {word} square", "mask": [outline]})
    (made / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (made / "val.jsonl").write_text("\n".join(map(json.dumps, rows[4:])))
    return made


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, no image can be decoded any more."""

    def break_reader() -> None:
        def refuse(*_: Any) -> Any:
            raise AssertionError("an image was decoded")

        monkeypatch.setattr("riszoo.data.images.decode", refuse)

    return break_reader


def own(root: Path, **options: Any) -> Folder:
    batch = {"batch_size": 4, "sentences_per_image": 2, "eval_images": 2, "workers": 0, "seed": 0}
    kept = {"cache_features": "float32", "cache_dir": str(root / "kept")}
    return Folder(root=str(root), strict=True, **{**batch, **kept, **options})


def linked(model: RISModule, root: Path, **options: Any) -> Folder:
    return own(root, size=model.size, geometry=model.geometry, **options)


def predictions(model: RISModule, root: Path, precision: Any = "32-true", **options: Any) -> list[Output]:
    found = Trainer(precision=precision, **QUIET).predict(model, linked(model, root, **options))
    assert found is not None
    return found  # type: ignore[return-value]


def kept_files(root: Path) -> list[Path]:
    return sorted((root / "kept").rglob("*.safetensors"))


# -- as good as images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", MODELS)
def test_kept_features_answer_as_images_do(name: str, precision: str, root: Path, blind: Callable[[], None]) -> None:
    """Bit for bit, whatever the precision, and from the second run on without an image being decoded."""
    model = MODELS[name]()
    seen = predictions(model, root, precision, cache_features=None)
    for turn in range(2):
        if turn:
            blind()
        read = predictions(model, root, precision)
        assert all(torch.equal(a.logits, b.logits) for a, b in zip(seen, read, strict=True))
    assert len(kept_files(root)) == 2


@pytest.mark.parametrize("name", ["sam", "lts"])
def test_training_over_kept_features_is_the_same_training(name: str, root: Path, blind: Callable[[], None]) -> None:
    alone = {"batch_size": 2, "eval_images": 1}  # in company an image's last bits may be others
    states = []
    for turn, kind in enumerate([None, "float32", "float32"]):
        if turn == 2:
            blind()
        torch.manual_seed(0)
        model = MODELS[name]()
        Trainer(max_steps=2, **QUIET).fit(model, linked(model, root, cache_features=kind, **alone))
        states.append(model.state_dict())
    for state in states[1:]:
        assert all(torch.equal(value, state[key]) for key, value in states[0].items())
    assert not torch.equal(states[0]["text.embedding.weight"], MODELS[name]().state_dict()["text.embedding.weight"])


def test_workers_read_what_was_kept(root: Path) -> None:
    model = MODELS["sam"]()
    one, two = (predictions(model, root, workers=workers) for workers in (0, 1))
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", MODELS)
def test_bf16_takes_half_and_is_near(name: str, precision: str, root: Path) -> None:
    model = MODELS[name]()
    seen = predictions(model, root, precision)
    whole = sum(file.stat().st_size for file in kept_files(root))
    shutil.rmtree(root / "kept")
    rounded = predictions(model, root, precision, cache_features="bf16")
    share = sum(file.stat().st_size for file in kept_files(root)) / whole
    assert share == pytest.approx(0.5, abs=0.02) if precision == "32-true" else share <= 1
    for a, b in zip(seen, rounded, strict=True):
        assert a.logits.dtype == b.logits.dtype
        assert (a.logits - b.logits).abs().max() < 0.1 * a.logits.abs().max()


@pytest.mark.parametrize(("whole", "kept"), [(None, 4), (1, 3), (2, 4)])
def test_training_keeps_what_its_last_validation_will_ask_about(whole: int | None, kept: int, root: Path) -> None:
    """Validations on the way see one image, the one at the end all that `test_images` admits."""
    model = MODELS["sam"]()
    splits = {"train_split": "val", "val_split": "train", "val_images": 1, "test_images": whole}
    Trainer(max_steps=1, limit_val_batches=0, **QUIET).fit(model, linked(model, root, **splits))
    assert len(kept_files(root)) == kept


# -- the command ------------------------------------------------------------------------------------------------------

SMALL = [
    "--data", "folder", "--data.root", "own", "--data.cache_dir", "kept", "--trainer.accelerator", "cpu",
    "--trainer.enable_progress_bar", "false", "--data.workers", "0", "--data.eval_images", "2", "--config", "it.yaml",
]  # fmt: skip
FIT = ["--trainer.max_steps", "2", "--data.batch_size", "4", "--data.sentences_per_image", "2"]


def test_the_record_names_what_was_read(
    root: Path, capsys: pytest.CaptureFixture[str], blind: Callable[[], None], recwarn: pytest.WarningsRecorder
) -> None:
    Path("it.yaml").write_text(json.dumps({"model": RISAM}))
    assert main(["fit", *SMALL, *FIT, "--data.cache_features", "bf16"]) == 0
    said = capsys.readouterr().out
    assert "cache_features bf16: 0 of 4 images are in kept/" in said
    assert "encoding the other 4 first: 0.01 MB an image, 0.04 MB needed, " in said
    (run,) = Path("runs").iterdir()
    assert json.loads((run / "run.json").read_text())["cache_features"] == "bf16"
    (folder,) = run.glob("validate-folder-*")
    assert len(list((folder / "images").glob("*.png"))) == 4, "images are decoded for what is drawn"
    best = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    blind()
    assert main(["test", *SMALL, *best, "--run.images", "0", "--data.cache_features", "bf16"]) == 0
    assert "2 of 2 images are in kept/" in capsys.readouterr().out
    (tested,) = run.glob("test-folder-*")
    record = json.loads((tested / "run.json").read_text())
    assert (record["cache_features"], record["trained_on_cache_features"]) == ("bf16", "bf16")
    assert not [one for one in recwarn if "eval mode" in str(one.message)], "what is frozen rests on purpose"


REFUSED: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "adapters": ({"vision": {"options": {"peft": "adapter"}}}, [], "--model.vision.options.peft none"),
    "augmented": ({}, ["--data.augment.flip", "0.5"], "--data.augment"),
    "a kind that is none": ({}, ["--data.cache_features", "fp8"], "fp8"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_kept_is_refused(why: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over, more, said = REFUSED[why]
    Path("it.yaml").write_text(json.dumps({"model": {**RISAM, "init_args": merged(RISAM["init_args"], over)}}))
    assert main(["fit", *SMALL, *FIT, "--data.cache_features", "float32", *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("kept").exists()


def merged(base: Any, over: Any) -> Any:
    from riszoo.recipes import merge

    return merge(base, over)


@pytest.mark.parametrize(
    ("peft", "said"),
    [("lora", r"lora\.query_down\.weight is trained"), ("full", r"--model\.vision\.options\.peft none")],
)
def test_sam_of_which_a_part_trains_is_refused(peft: str, said: str, root: Path) -> None:
    init_args = merged(RISAM["init_args"], {"vision": {"options": {"peft": peft}}})
    model = Entry("risam", {**RISAM, "init_args": init_args}).build()
    with pytest.raises(UserError, match=said):
        Trainer(max_steps=1, **QUIET).fit(model, linked(model, root))
    assert not (root / "kept").exists()


def test_an_encoder_that_trains_is_refused_in_evaluation_too(root: Path) -> None:
    with pytest.raises(UserError, match=r"--model\.vision\.frozen true"):
        predictions(Entry("lts", LTS).build(), root)


def test_a_frozen_encoder_whose_statistics_move_is_refused(root: Path) -> None:
    model = Entry("lts", LTS).build()
    model.vision.requires_grad_(False)
    with pytest.raises(UserError, match="batch statistics"):
        Trainer(max_steps=1, **QUIET).fit(model, linked(model, root))


class Tinted(Taps):
    """Its backbone trains in a place of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tint = nn.Parameter(torch.ones(1))

    def backbone(self, images: Tensor, valid: Tensor) -> Features:
        raw = super().backbone(images, valid)
        return Features([one * self.tint for one in raw.maps], raw.valid, raw.size)


def test_a_backbone_that_trains_outside_the_encoder_is_refused(root: Path) -> None:
    torch.manual_seed(0)
    model = Entry("tinted", {"class_path": "tests.data.test_features.Tinted", "init_args": TOY}).build(**RESNET)
    with pytest.raises(UserError, match=r"Tinted\.backbone"):
        predictions(model, root)


def test_an_augmentation_that_changes_nothing_is_admitted(root: Path) -> None:
    model = MODELS["sam"]()
    Trainer(max_steps=1, **QUIET).fit(model, linked(model, root, augment=Augment()))
    assert len(kept_files(root)) == 4


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 30_000))
    with pytest.raises(UserError, match=r"needs 0\.04 MB and .*kept.* has 0\.03 MB free.*--data\.cache_dir.*bf16"):
        predictions(MODELS["sam"](), root)
    assert "0 of 2 images" in capsys.readouterr().out
    assert not kept_files(root)


def test_a_folder_that_cannot_be_written_is_named(root: Path) -> None:
    (root / "kept").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*kept.*--data\.cache_dir"):
        predictions(MODELS["sam"](), root)


# -- whole or not there -----------------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("harm", [cut, emptied, zeroed, Path.unlink])
def test_a_file_that_is_not_whole_is_made_again(harm: Callable[[Path], Any], root: Path) -> None:
    model = MODELS["sam"]()
    seen = predictions(model, root)
    before = [(file, file.stat().st_size) for file in kept_files(root)]
    harm(kept_files(root)[0])
    again = predictions(model, root)
    assert [(file, file.stat().st_size) for file in kept_files(root)] == before
    assert all(torch.allclose(a.logits, b.logits, atol=1e-5) for a, b in zip(seen, again, strict=True))


def test_a_writer_killed_on_the_way_leaves_nothing_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path, "float32")
    monkeypatch.setattr(Path, "replace", lambda *_: os._exit(9))
    worker = multiprocessing.get_context("fork").Process(target=cache.write, args=("a", [torch.ones(2, 3, 3)]))
    worker.start()
    worker.join()
    monkeypatch.undo()
    assert worker.exitcode == 9
    assert "a" not in cache
    with pytest.raises(UserError, match="cannot be read now"):
        cache.read("a")
    cache.write("a", [torch.ones(2, 3, 3)])
    assert torch.equal(cache.read("a")[0], torch.ones(2, 3, 3))


def write_often(cache: FeatureCache, value: float) -> None:
    for _ in range(40):
        cache.write("a", [torch.full((8, 32, 32), value), torch.full((2, 2), value)])


def test_two_processes_write_the_same_image_at_once(tmp_path: Path) -> None:
    """A reader sees the one's or the other's, from the first map to the last."""
    cache = FeatureCache(tmp_path, "float32")
    write_often(cache, 1.0)
    writers = [multiprocessing.get_context("fork").Process(target=write_often, args=(cache, v)) for v in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        first, second = cache.read("a")
        values = {*first.unique().tolist(), *second.unique().tolist()}
        assert len(values) == 1
        assert values <= {1.0, 2.0}
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert not list(tmp_path.rglob(".*"))


def test_processes_share_what_is_missing_and_encode_it_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looks when the first has written its share: the list is the first one's all the same."""
    model, written, told = MODELS["sam"](), [], []
    write = FeatureCache.write
    monkeypatch.setattr(FeatureCache, "write", lambda *given: (written.append(given[1]), write(*given)))
    data = linked(model, root, eval_images=1)
    split = data.split("train")
    images = {split.image_version(image): (split, image) for image in range(4)}
    for rank in range(2):
        strategy = SimpleNamespace(broadcast=lambda it: told[0] if told else told.append(it) or it, barrier=str)
        trainer: Any = SimpleNamespace(
            lightning_module=model, precision="32-true", precision_plugin=Precision(), strategy=strategy,
            is_global_zero=rank == 0, global_rank=rank, world_size=2, progress_bar_callback=None,
        )  # fmt: skip
        fill_cache(trainer, images, "float32", data.cache_dir, 1, 0)
        assert len(written) == 2 * (rank + 1)
    assert set(written) == set(images)


# -- another key ------------------------------------------------------------------------------------------------------


def other_weights(model: RISModule) -> None:
    with torch.no_grad():
        next(model.vision.parameters())[0] += 1e-3


def other_pixels(model: RISModule) -> None:
    model.pixel_mean += 1


CHANGES: dict[str, tuple[dict[str, Any], Callable[[RISModule], Any]]] = {
    "weights": ({}, other_weights),
    "mean": ({}, other_pixels),
    "size": ({"size": 96}, bool),
    "geometry": ({"geometry": "squeeze"}, bool),
    "taps": ({"vision": {"options": {"taps": [0, 2]}}}, bool),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_backbone_has_a_folder_of_its_own(what: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions(MODELS["sam"](), root)
    over, change = CHANGES[what]
    model = Entry("risam", RISAM).build(**over)
    change(model)
    plain = predictions(model, root, cache_features=None)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(plain, predictions(model, root), strict=True))
    assert "0 of 2 images" in capsys.readouterr().out.splitlines()[-1]
    assert len(list((root / "kept").iterdir())) == 2


def test_what_trains_behind_the_backbone_changes_no_key(root: Path) -> None:
    for _ in range(2):
        model = MODELS["sam"]()
        Trainer(max_steps=1, **QUIET).fit(model, linked(model, root))
        predictions(model, root)
    (folder,) = (root / "kept").iterdir()
    about = json.loads((folder / "about.json").read_text())
    assert about["maps"][-1] == [16, 8, 8, "torch.float32"]
    assert len(about["weights"]) == 64


def test_a_changed_image_is_encoded_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = MODELS["sam"]()
    before = predictions(model, root)
    Image.new("RGB", Image.open(root / "3.jpg").size, "red").save(root / "3.jpg")
    after = predictions(model, root)
    assert "1 of 2 images" in capsys.readouterr().out.splitlines()[-1]
    assert torch.equal(before[0].logits[:2], after[0].logits[:2])
    assert not torch.equal(before[0].logits[2:], after[0].logits[2:])


def test_every_image_has_a_version_of_its_own(tmp_path: Path) -> None:
    scenes = [Scenes(image_size=size, version_seed=seed).split(name)
              for size in (64, 96) for seed in (0, 1) for name in ("val", "testA")]  # fmt: skip
    versions = [split.image_version(image) for split in scenes for image in range(5)]
    assert len(set(versions)) == len(versions)
    coco = RefCOCO(root=str(trees.refcoco(tmp_path))).split("train")
    assert len({coco.image_version(image) for image in range(len(coco))}) == len(coco)


def test_the_default_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/riszoo/features")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache/riszoo/features"
