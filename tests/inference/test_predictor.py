"""`riszoo.load` and `Predictor.segment`, with images of every kind and every user error."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import riszoo
from riszoo.data.images import as_rgb, decode
from riszoo.errors import UserError
from riszoo.inference.export import runner
from riszoo.inference.inputs import pixels_of
from riszoo.inference.predictor import SENTENCES, Predictor
from riszoo.metrics.resample import foreground
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint
from tests.support.small_run import scene, small_run

COLOURS = np.array([[200, 30, 40], [20, 180, 60], [0, 0, 0], [255, 255, 255]], np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def predictor(run: Path) -> Predictor:
    return riszoo.load("lts", runs.checkpoint(run))


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


def test_another_models_checkpoint_is_refused(run: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"is a checkpoint of riszoo\.models\.lts\.LTS, but 'tests.* is tests\.support\.toys\.Taps",
    ):
        riszoo.load("tests.support.toys.Taps", runs.checkpoint(run))


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
    with pytest.raises(UserError, match="5 is not a sentence: give one text"):
        predictor.segment(scene(), 5)  # type: ignore[call-overload]


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


def test_a_name_that_begins_with_a_tilde_is_a_file_or_one_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    Path("home").mkdir()
    for name in ("~cat.png", "home/dog.png"):
        scene().save(name)
    assert pixels_of("~cat.png").shape == pixels_of("~/dog.png").shape == (60, 90, 3)
    for absent in ("~nobody.png", "~/cat.png", "a" * 300):
        with pytest.raises(UserError, match=f"image {absent} is not a file"):
            pixels_of(absent)


def test_a_transparent_grey_of_16_bits_is_white() -> None:
    head = struct.pack(">IIBBBBB", 3, 1, 16, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" + struct.pack(">3H", 0, 1, 65535))
    chunks = [(b"IHDR", head), (b"tRNS", struct.pack(">H", 0)), (b"IDAT", rows), (b"IEND", b"")]
    Path("a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    assert decode(Path("a.png"))[0, :, 0].tolist() == [255, 0, 255]
    with Image.open("a.png") as image:
        assert np.array_equal(runner.as_rgb(image), decode(Path("a.png")))


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


# -- several images ---------------------------------------------------------------------------------------------------


def test_several_images_give_a_list_for_each(predictor: Predictor) -> None:
    images = [scene(0), scene(1), scene(2)]
    together = predictor.segment(images, ["the star", "the box"], batch=2)
    alone = [predictor.segment(image, ["the star", "the box"]) for image in images]
    assert [[p.sentence_id for p in each] for each in together] == [
        ["image~1-1", "image~1-2"], ["image~2-1", "image~2-2"], ["image~3-1", "image~3-2"],
    ]  # fmt: skip
    for one, other in zip(together, alone, strict=True):
        assert [p.score for p in one] == pytest.approx([p.score for p in other], abs=1e-4)
        assert all((a.mask != b.mask).mean() < 0.01 for a, b in zip(one, other, strict=True))


def test_each_image_may_have_its_own_sentences(predictor: Predictor) -> None:
    found = predictor.segment([scene(0), scene(1)], [["the star"], ["the box", "the moon"]], ["a", "b"])
    assert [[(p.sentence_id, p.text) for p in each] for each in found] == [
        [("a-1", "the star")], [("b-1", "the box"), ("b-2", "the moon")],
    ]  # fmt: skip
    assert predictor.segment([], "the star") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([scene()], [["a"], ["b"]]), "2 lists of sentences do not fit 1 images"),
        (([scene()], [[]]), "no sentence is given"),
        ((scene(), None), "None is not a sentence"),
        ((scene(), ["a", 5]), "5 is not a sentence"),
        ((scene(), ["a", " "]), "' ' is not a sentence"),
        (([scene()], "a", ["x", "y"]), "2 names do not fit"),
    ],
    ids=["lists", "no sentence", "none", "a number", "blank", "names"],
)
def test_lists_that_do_not_fit_are_refused(predictor: Predictor, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        predictor.segment(*arguments)


def test_an_image_is_encoded_once_for_many_sentences(predictor: Predictor) -> None:
    encoded: list[int] = []
    predictor.model.vision.register_forward_hook(lambda module, inputs, output: encoded.append(len(inputs[0])))
    texts = [f"the star {n}" for n in range(SENTENCES + 3)]
    many = predictor.segment([scene(0), scene(1)], [texts, ["the box"]])
    assert encoded == [2]
    assert [len(each) for each in many] == [len(texts), 1]
    assert many[0][-1].score == pytest.approx(predictor.segment(scene(0), texts[-1])[0].score, abs=1e-4)


@pytest.mark.parametrize("tile", [None, 64])
def test_a_mask_is_made_when_it_is_asked_for(
    predictor: Predictor, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        "riszoo.inference.predictions.foreground", lambda *args: made.append(foreground(*args)) or made[-1]
    )
    texts = [f"the star {n}" for n in range(SENTENCES + 3)]
    found = predictor.stream([np.array(scene(0)), np.array(scene(1))], [texts, ["the box"]], ["a", "b"], tile=tile)
    assert next(found).sentence_id == "a-1"
    assert len(made) == 1
    rest = [prediction.sentence_id for prediction in found]
    assert (len(rest), rest[-1], len(made)) == (len(texts), "b-1", len(texts) + 1)


@pytest.mark.parametrize("kind", ["bytes", "fractions", "grey"])
def test_an_image_may_be_a_tensor(kind: str) -> None:
    pixels = np.asarray(scene())
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    if kind == "grey":
        assert np.array_equal(pixels_of(tensor[:1]), np.repeat(pixels[..., :1], 3, 2))
    else:
        assert np.array_equal(pixels_of(tensor if kind == "bytes" else tensor / 255), pixels)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, 3, 4, 4), torch.zeros(5, 4, 3), torch.full((3, 4, 4), 2.0), torch.full((3, 4, 4), torch.nan)],
    ids=["batch", "channels last", "range", "not numbers"],
)
def test_a_tensor_that_is_not_an_image_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(UserError, match="is not an image"):
        pixels_of(tensor)
