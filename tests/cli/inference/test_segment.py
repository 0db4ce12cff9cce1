"""`riszoo segment`: images and sentences from every source, results, and user errors."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

import riszoo
from riszoo.cli.inference.files import Results
from riszoo.cli.inference.tasks import file_tasks
from riszoo.cli.main import main
from riszoo.errors import UserError
from riszoo.inference.predictions import Prediction, predictions
from riszoo.inference.predictor import Predictor
from riszoo.training import runs
from tests.support.small_run import scene, small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def predictor(run: Path) -> Predictor:
    return riszoo.load("lts", runs.checkpoint(run))


def segment(run: Path, *words: str) -> int:
    return main(["segment", "--model", "lts", "--run.root", str(run.parent), *words])


def test_a_checkpoint_says_of_which_model_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene().save("one.png")
    given = ["--image", "one.png", "--text", "the red star", "--json"]
    assert main(["segment", "--ckpt_path", str(runs.checkpoint(run)), *given]) == 0
    alone = capsys.readouterr().out
    assert segment(run, *given) == 0
    assert capsys.readouterr().out == alone
    assert type(riszoo.load(checkpoint=runs.checkpoint(run)).model).__name__ == "LTS"
    with pytest.raises(UserError, match="--model is missing"):
        riszoo.load(checkpoint="best")


def test_every_sentence_is_applied_to_every_image(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene().save("one.png")
    Path("there").mkdir()
    scene().crop((0, 0, 50, 40)).save("there/one.png")  # of the same name: its files get other names
    images = ["--image", "one.png", "--image", "there/one.png"]
    texts = ["--text", "the red star", "--text", "the cat"]
    assert segment(run, *images, *texts, "--explain", "--out", "made") == 0
    said = capsys.readouterr()
    entries = json.loads(Path("made/predictions.json").read_text())
    assert [(e["image"], e["text"]) for e in entries] == [
        (image, text) for image in ("one.png", "there/one.png") for text in ("the red star", "the cat")
    ]
    for entry, size in zip(entries, [(90, 60)] * 2 + [(50, 40)] * 2, strict=True):
        with Image.open(f"made/{entry['id']}.png") as mask, Image.open(f"made/{entry['id']}-overlay.png") as overlay:
            assert mask.size == size
            assert overlay.height > size[1], "the sentence is below the image"
            assert np.array_equal(np.asarray(mask) > 0, coco.decode(entry["segmentation"]) > 0)
        assert Path(f"made/{entry['id']}-evidence.png").is_file()
        assert entry["bbox"][2] > 0
        x, y, w, h = entry["bbox"]
        assert f"score {entry['score']:.2f}, box {w} x {h} at ({x}, {y}) of {size[0]} x {size[1]}" in said.out
    assert "trained without the words: cat" in said.err


def test_python_and_the_verb_predict_the_same(run: Path, predictor: Predictor) -> None:
    scene().save("a.png")
    assert segment(run, "--image", "a.png", "--text", "the star", "the box", "--out", "made") == 0
    entries = json.loads(Path("made/predictions.json").read_text())
    predictions = predictor.segment("a.png", ["the star", "the box"])
    assert [prediction.entry() for prediction in predictions] == [
        {k: v for k, v in e.items() if k not in ("image", "file")} for e in entries
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "a.png"], "no sentence for a.png: give --text"),
        (["--text", "x"], "--image is missing: give image files"),
        (["--image", "b*.png", "--text", "x"], "no file matches --image b*.png"),
        (["--image", "a.png", "--text_file", "no.txt"], "cannot read --text_file no.txt"),
        (["--image", "a.png", "--text_file", "cut.png"], "cut.png is not UTF-8 text"),
        (["--image", "a.png", "--text_file", "blank.txt"], "blank.txt contains no sentence"),
        (["--example", "--text", "x"], "--example has its own images"),
        (["--image", "a.png", "--text", "x", "--batch", "0"], "--batch 0: give at least 1"),
        (["--image", "a.png", "--text", " "], "--text is empty"),
        (["--image", "b.png", "--text", "x"], "image b.png is not a file"),
        (["--image", "empty", "--text", "x"], "the folder empty contains no image"),
        (["--image", "a.png", "--text", "x", "--model", "ltx"], "did you mean 'lts'"),
        (["--image", "a.png", "--text", "x", "--data", "scene"], "did you mean 'scenes'"),
        (["--image", "a.png", "--text", "x", "--data", "refcoco"], "no run of 'lts' on 'refcoco'"),
        (["--image", "a.png", "--text", "x", "--ckpt_path", "no.ckpt"], "checkpoint no.ckpt is not a file"),
        (["--image", "a.png", "--text", "x", "--ckpt_path", "a.png"], "a.png is not a checkpoint"),
        (["--image", "a.png", "--text", "x", "--protocol", "lavt480"], "compares at 480 x 480"),
        (["--image", "a.png", "--text", "x", "--protocol", "orginal"], "did you mean 'original'"),
        (["--image", "a.png", "--text", "x", "--device", "toaster"], "device 'toaster' is not a device: give"),
        (["--image", "a.png", "--text", "x", "--device", "meta"], "device 'meta' cannot be used"),
        (["--image", "a.png", "--text", "x", "--out", "a.png"], "cannot create the folder a.png"),
        (["--image", "a.png", "--text", "x", "--explian"], "did you mean --explain?"),
        (["--image", "cut.png", "--text", "x"], "cut.png cannot be read"),
        (["--image", "a-1.png", "a.png", "--text", "x", "--out", "."], "would overwrite the image a-1.png"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[2:]),
)
def test_a_user_error_is_one_sentence(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scene().save("a.png")
    scene().save("a-1.png")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:2000])
    Path("blank.txt").write_text("\n \n")
    Path("empty").mkdir()
    before = Path("a-1.png").read_bytes()
    assert segment(run, *words) == 2
    notes = ("trained without", "weights of")
    errors = [line for line in capsys.readouterr().err.splitlines() if not any(note in line for note in notes)]
    assert len(errors) == 1
    assert message in errors[0]
    assert Path("a-1.png").read_bytes() == before


def test_a_bad_image_among_several_is_reported_at_the_end(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene().save("a.png")
    Path("b.png").write_text("no image")
    scene().save("c.png")
    assert segment(run, "--image", "a.png", "b.png", "c.png", "--text", "the star", "--out", "made") == 2
    complaint = capsys.readouterr().err
    assert complaint.endswith("; replace the file (1 of 3 images failed)\n")
    assert "image b.png cannot be read" in complaint
    assert [e["image"] for e in json.loads(Path("made/predictions.json").read_text())] == ["a.png", "c.png"]
    assert Path("made/c-1-overlay.png").is_file()


def test_names_are_checked_before_heavy_imports() -> None:
    code = """
import sys
import riszoo
from riszoo.cli.main import main
from riszoo.errors import UserError
assert main(["segment", "--model", "ltx", "--image", "a", "--text", "b"]) == 2
assert main(["segment", "--model", "lts", "--image", "a", "--text", "b"]) == 2
for line in ("test --model lts --split vall", "fit --model lts --data refcoco+ --split testD",
             "data show scenes --split vall"):
    assert main(line.split()) == 2
assert riszoo.__version__
assert not {"torch", "lightning", "timm", "transformers", "PIL"} & set(sys.modules), "heavy"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1), (500, 400)])
def test_a_mask_has_the_images_size_whatever_it_is(size: tuple[int, int], run: Path) -> None:
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save("a.png")
    assert segment(run, "--image", "a.png", "--text", "the star", "--explain", "--out", "made") == 0
    assert Image.open("made/a-1.png").size == (size[1], size[0])


def test_a_large_image_has_a_small_overlay(run: Path) -> None:
    Image.new("RGB", (1800, 400), "gray").save("a.jpg")
    assert segment(run, "--image", "a.jpg", "--text", "the star", "--out", "made") == 0
    assert Image.open("made/a-1.png").size == (1800, 400)
    width, height = Image.open("made/a-1-overlay.png").size
    assert width == 1600
    assert 356 < height < 500


# -- sources of images and sentences ----------------------------------------------------------------------------------


def predicted(folder: str = "segmented") -> list[tuple[str, str]]:
    """The image and sentence of each prediction."""
    return [(e["image"], e["text"]) for e in json.loads(Path(folder, "predictions.json").read_text())]


def give_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_folders_and_patterns_name_their_images(run: Path) -> None:
    for name in ("photos/b.JPG", "photos/a.png", "photos/deep/c.png"):
        Path(name).parent.mkdir(exist_ok=True)
        scene().save(name)
    Path("photos/notes.txt").write_text("no image")
    assert segment(run, "--image", "photos", "photos/**/c.*", "photos/a.png", "--text", "the star") == 0
    assert [image for image, _ in predicted()] == ["photos/a.png", "photos/b.JPG", "photos/deep/c.png"]


def test_a_file_of_sentences_adds_to_the_options(run: Path) -> None:
    scene().save("a.png")
    Path("sentences.txt").write_bytes("\ufeffthe red star\r\n\n the größte box\n".encode())
    assert segment(run, "--image", "a.png", "--text", "the moon", "--text_file", "sentences.txt") == 0
    assert [text for _, text in predicted()] == ["the moon", "the red star", " the größte box"]


def test_stdin_gives_images_with_their_own_sentences(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png", "c d.png"):
        scene().save(name)
    lines = ["a.png\tthe star", '{"image": "b.png", "text": ["the box", "the ring"]}', "c d.png", "a.png\tthe moon"]
    give_stdin(monkeypatch, "\n".join(lines).encode())
    assert segment(run, "--image", "-", "--text", "the cross", "--batch", "2") == 0
    assert predicted() == [
        ("a.png", "the star"),
        ("a.png", "the moon"),
        ("b.png", "the box"),
        ("b.png", "the ring"),
        ("c d.png", "the cross"),
    ]


def test_a_sentence_of_stdin_is_that_of_its_own_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        scene().save(name)
    give_stdin(monkeypatch, b"a.png\tthe moon")
    assert [task.texts for task in file_tasks(["a.png", "b.png", "-"], ["the star"])] == [
        ["the star", "the moon"],
        ["the star"],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "stdin is empty"),
        (b"a.png\t \n", "the sentence of line 1 of stdin is empty"),
        (b"\na.png\n", "no sentence for a.png: give --text"),
        (b"{broken", "line 1 of stdin is not valid JSON"),
        (b'{"text": "x"}', "line 1 of stdin names no image"),
        (b'{"image": "a.png", "text": [3]}', "the sentence of line 1 of stdin is empty"),
        (b"\xff\xfe", "stdin is not UTF-8 text"),
        (b'{"image": "a\\u0000b.png", "text": "x"}', "line 1 of stdin: the name of the image has a zero byte"),
        (b'{"image": "a.png", "text": ' + b"[" * 50_000, "is not valid JSON"),
    ],
    ids=["empty", "no words", "no sentence", "broken", "no image", "number", "bytes", "zero", "deep"],
)
def test_a_wrong_line_of_stdin_is_one_sentence(
    run: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_stdin(monkeypatch, content)
    assert segment(run, "--image", "-") == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_every_failed_image_is_named(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene().save("good.png")
    Path("bad.png").write_text("no image")
    give_stdin(monkeypatch, b"bad.png\tthe star\nabsent.png\tthe star\ngood.png\tthe star\n")
    assert segment(run, "--image", "-") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "weights of" not in line]
    assert len(errors) == 3
    assert errors[-1] == "riszoo: 2 of 3 images failed: bad.png, absent.png"
    assert predicted() == [("good.png", "the star")]


def test_an_image_that_fails_among_others_takes_none_with_it(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any) -> Iterator[Prediction]:
        for prediction in predictions(*args):
            if prediction.sentence_id == "b-1":
                raise UserError("b.png is too much")
            yield prediction

    monkeypatch.setattr("riszoo.inference.predictor.predictions", failing)
    for name in "abc":
        scene().save(f"{name}.png")
    assert segment(run, "--image", "a.png", "b.png", "c.png", "--text", "the star", "the box") == 2
    said = capsys.readouterr()
    assert "riszoo: b.png is too much (1 of 3 images failed)" in said.err
    texts = ("the star", "the box")
    assert predicted() == [(image, text) for image in ("a.png", "c.png") for text in texts]
    assert sum(line.startswith("a.png:") for line in said.out.splitlines()) == 2


def test_images_that_all_fail_leave_no_file_of_predictions(run: Path) -> None:
    Path("bad.png").write_text("no image")
    assert segment(run, "--image", "bad.png", "--text", "the star") == 2
    assert list(Path("segmented").iterdir()) == []


def test_json_lines_on_stdout_and_no_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene().save("a.png")
    assert segment(run, "--image", "a.png", "--text", "the star", "the box", "--json") == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(e["image"], e["text"]) for e in entries] == [("a.png", "the star"), ("a.png", "the box")]
    assert coco.decode(entries[0]["segmentation"]).shape == (60, 90)
    assert "file" not in entries[0]
    assert [path.name for path in Path.cwd().iterdir()] == ["a.png"]
    assert segment(run, "--image", "a.png", "--text", "the star", "--json", "--out", "made") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("made/predictions.json").read_text())[0]


def test_an_example_needs_no_image(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert segment(run, "--example") == 0
    assert len(predicted()) == 12
    assert len(list(Path("segmented").glob("*-overlay.png"))) == 12
    assert "trained without" not in capsys.readouterr().err


def test_long_sentences_and_large_images_are_reported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (700, 40), "gray").save("wide.png")
    assert segment(run, "--image", "wide.png", "--text", "the star " * 30, "the box") == 0
    errors = capsys.readouterr().err
    assert "the model reads only the first 20 words of 'the star the star" in errors
    assert "1 image(s) are resized to fit 64 x 64 pixels, such as wide.png (700 x 40)" in errors
    assert "--tile 256 segments them in windows" in errors


def test_segmenting_imports_no_package_of_an_extra() -> None:
    """Nor the code of trainings and benchmarks: imports are nearly all of the time of a short command."""
    code = (
        "import sys\nimport riszoo.cli.inference.files, riszoo.cli.inference.segment, riszoo.inference.predictor\n"
        "heavy = {'gradio', 'onnx', 'onnxruntime', 'pandas', 'pyarrow', 'tensorboard', 'lightning.pytorch.cli',\n"
        "         'riszoo.bench', 'riszoo.data.datamodule', 'riszoo.training.lightning_cli'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_files_whose_names_are_not_text_are_segmented_too(run: Path) -> None:
    scene().save("one.png")
    odd = os.fsdecode(b"\xff.png")
    shutil.copy("one.png", odd)
    assert segment(run, "--image", odd, "one.png", "--text", "the star") == 0
    entries = json.loads(Path("segmented/predictions.json").read_text())
    assert [entry["image"] for entry in entries] == ["?.png", "one.png"]


def test_an_interruption_keeps_what_was_segmented(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene().save("one.png")
    add = Results.add

    def interrupted(self: Results, image: str, *given: Any) -> None:
        if self.entries:
            raise KeyboardInterrupt
        add(self, image, *given)

    monkeypatch.setattr(Results, "add", interrupted)
    assert segment(run, "--image", "one.png", "--text", "the star", "the other") == 130
    assert [entry["text"] for entry in json.loads(Path("segmented/predictions.json").read_text())] == ["the star"]


def test_predictions_of_earlier_calls_stay_while_their_masks_do(run: Path) -> None:
    for name in ("one.png", "two.png", "three.png"):
        scene().save(name)
        assert segment(run, "--image", name, "--text", "the star") == 0
    Path("segmented/two-1.png").unlink()
    assert segment(run, "--image", "one.png", "--text", "the square") == 0
    entries = json.loads(Path("segmented/predictions.json").read_text())
    assert [(entry["id"], entry["text"]) for entry in entries] == [("three-1", "the star"), ("one-1", "the square")]
    Path("segmented/predictions.json").write_text("[1, {")
    assert segment(run, "--image", "one.png", "--text", "the square") == 0
    assert len(json.loads(Path("segmented/predictions.json").read_text())) == 1


@pytest.mark.parametrize("images", [["-", "a.png"], ["a.png", "-"]])
def test_the_place_of_stdin_among_the_images_drops_no_sentence(
    images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene().save("a.png")
    give_stdin(monkeypatch, b"a.png\tthe circle")
    (task,) = file_tasks(images, ["the square"])
    assert sorted(task.texts) == ["the circle", "the square"]
    assert file_tasks(["a.png", "*.png"], ["the square"])[0].texts == ["the square"]


def test_the_images_of_a_folder_have_every_suffix_that_is_read() -> None:
    Path("photos").mkdir()
    names = ["a.jpg", "b.jfif", "c.TGA", "d.ico"]
    for name in [*names, "notes.txt"]:
        Path("photos", name).touch()
    assert [task.image.name for task in file_tasks(["photos"], ["it"]) if isinstance(task.image, Path)] == names


def test_control_codes_of_a_sentence_are_not_sent_to_the_terminal(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene().save("one.png")
    assert segment(run, "--image", "one.png", "--text", "the \x1b[31mstar") == 0
    said = capsys.readouterr()
    assert "\\x1b[31mstar" in said.out
    assert "\x1b" not in said.out + said.err
