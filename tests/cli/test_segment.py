"""`riszoo segment` and `riszoo.load`, with images of every kind and every user error."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from pycocotools import mask as coco

import riszoo
from riszoo import recipes
from riszoo.cli.main import main
from riszoo.data.images import as_rgb, decode
from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError
from riszoo.inference.predictor import Predictor, pixels_of
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint
from tests.support.zoo import TOY, Entry, batch_of

COLOURS = np.array([[200, 30, 40], [20, 180, 60], [0, 0, 0], [255, 255, 255]], np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the weights of a small LTS, biased so that about half of an image is inside."""
    tiny = recipes.merge(
        recipes.resolve("lts", "scenes", "tiny")["model"], {"init_args": {**TOY, "fusion": {"width": 16}}}
    )
    model = Entry("lts", tiny).build(segment={"width": 16}).eval()
    with torch.no_grad():
        model.segment.classify.bias -= model(batch_of(model, 1, 1)).logits.median()
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    folder = tmp_path_factory.mktemp("runs") / "lts-scenes-1"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    (folder / runs.CARD).write_text(json.dumps({"model": "lts", "data": "scenes", "started": 1}))
    return folder


@pytest.fixture
def predictor(run: Path) -> Predictor:
    return riszoo.load("lts", runs.checkpoint(run))


def scene() -> Image.Image:
    return Image.fromarray(ScenesSplit("val", (64, 96))[0].load()).resize((90, 60))


def segment(run: Path, *words: str) -> int:
    return main(["segment", "--model", "lts", "--run.root", str(run.parent), *words])


# -- the verb ---------------------------------------------------------------------------------------------------------


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
            assert mask.size == overlay.size == size
            assert np.array_equal(np.asarray(mask) > 0, coco.decode(entry["segmentation"]) > 0)
        assert Path(f"made/{entry['id']}-evidence.png").is_file()
        assert entry["bbox"][2] > 0
        x, y, w, h = entry["bbox"]
        assert f"score {entry['score']:.2f}, box {w} x {h} at ({x}, {y}) of {size[0]} x {size[1]}" in said.out
    assert "trained without the words: cat" in said.err


def test_an_empty_mask_scores_zero(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even where the logits of the padding are high."""
    predictor = riszoo.load("lts", runs.checkpoint(run))
    inside = predictor.model.segment

    def only_the_padding(_: object, inputs: object, logits: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(logits).index_fill(2, torch.arange(1, logits.shape[2] - 1), -9.0)

    assert isinstance(inside, torch.nn.Module)
    inside.register_forward_hook(only_the_padding)
    (prediction,) = predictor.segment(scene().resize((90, 20)), "the star")
    assert (prediction.mask.any(), prediction.score, prediction.box) == (False, 0.0, [0, 0, 0, 0])


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
        (["--image", "a.png"], "required: --text"),
        (["--image", "a.png", "--text", " "], "--text is empty"),
        (["--image", "b.png", "--text", "x"], "image b.png is not a file"),
        (["--image", ".", "--text", "x"], "image . is not a file"),
        (["--image", "a.png", "--text", "x", "--model", "ltx"], "did you mean 'lts'"),
        (["--image", "a.png", "--text", "x", "--data", "scene"], "did you mean 'scenes'"),
        (["--image", "a.png", "--text", "x", "--data", "refcoco"], "no run of 'lts' on 'refcoco'"),
        (["--image", "a.png", "--text", "x", "--ckpt_path", "no.ckpt"], "checkpoint no.ckpt is not a file"),
        (["--image", "a.png", "--text", "x", "--ckpt_path", "a.png"], "a.png is not a checkpoint"),
        (["--image", "a.png", "--text", "x", "--protocol", "lavt480"], "compares at 480 x 480"),
        (["--image", "a.png", "--text", "x", "--protocol", "orginal"], "did you mean 'original'"),
        (["--image", "a.png", "--text", "x", "--device", "toaster"], "device 'toaster' cannot be used"),
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
    before = Path("a-1.png").read_bytes()
    assert segment(run, *words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "trained without" not in line]
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


def test_another_models_checkpoint_is_refused(run: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"is a checkpoint of riszoo\.models\.lts\.LTS, but 'tests.* is tests\.support\.toys\.Taps",
    ):
        riszoo.load("tests.support.toys.Taps", runs.checkpoint(run))


def test_names_are_checked_before_heavy_imports() -> None:
    code = """
import sys
import riszoo
from riszoo.cli.main import main
assert main(["segment", "--model", "ltx", "--image", "a", "--text", "b"]) == 2
assert main(["segment", "--model", "lts", "--image", "a", "--text", "b"]) == 2
for line in ("test --model lts --split vall", "fit --model lts --data refcoco --split testD",
             "data show scenes --split vall"):
    assert main(line.split()) == 2
assert riszoo.__version__
assert not {"torch", "lightning", "timm", "transformers", "PIL"} & set(sys.modules), "heavy"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- images ---------------------------------------------------------------------------------------------------------


def test_an_image_may_be_a_path_a_pil_image_or_an_array(predictor: Predictor) -> None:
    scene().save("a.png")
    path, image, array = (predictor.segment(image, "the star")[0] for image in ("a.png", scene(), np.asarray(scene())))
    assert (path.sentence_id, image.sentence_id) == ("a-1", "image-1")
    assert np.array_equal(path.mask, image.mask)
    assert np.array_equal(path.mask, array.mask)
    assert path.score == array.score > 0
    assert path.evidence["prior"].shape == (6, 8), "the prior of a 60 x 90 image in a 64 x 64 letterbox"


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), 3, "no.png"],
    ids=["float", "two bands", "empty", "number", "absent"],
)
def test_an_invalid_image_is_refused(image: object, predictor: Predictor) -> None:
    with pytest.raises(UserError, match=r"not a file|not an image|is empty"):
        predictor.segment(image, "the star")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no sentence"):
        predictor.segment(scene(), [])
    with pytest.raises(UserError, match="5 is not a sentence: give one text"):
        predictor.segment(scene(), ["a", 5])  # type: ignore[list-item]


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1), (500, 400)])
def test_a_mask_has_the_images_size_whatever_it_is(size: tuple[int, int], run: Path) -> None:
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save("a.png")
    assert segment(run, "--image", "a.png", "--text", "the star", "--explain", "--out", "made") == 0
    assert Image.open("made/a-1.png").size == (size[1], size[0])


def test_a_large_image_has_a_small_overlay(run: Path) -> None:
    Image.new("RGB", (1800, 400), "gray").save("a.jpg")
    assert segment(run, "--image", "a.jpg", "--text", "the star", "--out", "made") == 0
    assert Image.open("made/a-1.png").size == (1800, 400)
    assert Image.open("made/a-1-overlay.png").size == (1600, 356)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_tag_says(orientation: int, suffix: str) -> None:
    photo = scene()
    photo.getexif()[0x0112] = orientation
    photo.save(f"a.{suffix}", exif=photo.getexif(), **({"quality": 100} if suffix == "jpg" else {}))
    with Image.open(f"a.{suffix}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.array_equal(pixels_of(image), expected)
    assert np.abs(pixels_of(f"a.{suffix}").astype(int) - expected).max() <= 3
    assert decode(Path(f"a.{suffix}")).shape[:2] == (60, 90), "a data set's images are as stored"


def test_a_damaged_exif_tag_is_ignored() -> None:
    scene().save("a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert pixels_of("a.jpg").shape == (60, 90, 3)


def test_transparent_parts_are_white() -> None:
    pixels = np.dstack([COLOURS.reshape(2, 2, 3), np.array([[255, 0], [255, 0]], np.uint8)])
    Image.fromarray(pixels).save("rgba.png")
    assert decode(Path("rgba.png")).tolist() == [[[200, 30, 40], [255] * 3], [[0] * 3, [255] * 3]]
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.save("p.png", transparency=1)
    assert decode(Path("p.png")).tolist() == [[[10, 20, 30], [255] * 3]]


@pytest.mark.parametrize(("kind", "top"), [(np.uint16, 65535), (np.int32, 65535), (np.float32, 1.0), (np.float32, 255)])
def test_16_bit_and_float_greys_keep_their_order(kind: type, top: float) -> None:
    steps = (np.linspace(0, 1, 6) * top).astype(kind)[None]
    Image.fromarray(steps).save("a.tiff")
    assert decode(Path("a.tiff"))[0, :, 1] == pytest.approx([0, 51, 102, 153, 204, 255], abs=1)
    if kind == np.uint16:
        Image.fromarray(steps).save("a.png")
        assert np.array_equal(decode(Path("a.png")), decode(Path("a.tiff")))


def test_greys_that_are_not_numbers_are_black() -> None:
    odd = np.array([[np.nan, -np.inf, 0.5]], np.float32)
    assert as_rgb(Image.fromarray(odd))[0, :, 0].tolist() == [0, 0, 128]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def hostile(width: int, height: int) -> bytes:
    """A PNG whose header declares more pixels than it contains."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        hostile(60_000, 60_000),
        hostile(12_000, 12_000),
        hostile(0, 5),
        hostile(50, 900),
        b"II*\0" + b"\xff" * 60,
    ],
    ids=["empty", "text", "bomb", "large", "no width", "short", "tiff"],
)
def test_a_hostile_file_is_one_sentence(content: bytes, predictor: Predictor) -> None:
    Path("a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"^image a\.png cannot be read: [^\n]+; replace the file$") as caught:
        predictor.segment("a.png", "the star")
    assert "0x" not in str(caught.value)


def test_the_predictor_is_the_checkpoints_model(run: Path, predictor: Predictor) -> None:
    """A predictor has the weights of its checkpoint, and a prediction does not depend on the other sentences."""
    model = from_checkpoint(runs.checkpoint(run))
    assert {n: v.shape for n, v in predictor.model.state_dict().items()} == {
        n: v.shape for n, v in model.state_dict().items()
    }
    one, two = predictor.segment(scene(), ["the star", "the large box"])
    alone = predictor.segment(scene(), "the large box")[0]
    assert np.array_equal(two.mask, alone.mask), "a sentence must not depend on its neighbours"
    assert one.text == "the star"
