"""Images are the stored pixels as RGB; damaged and differently sized ones are reported or adapted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from riszoo.batch import Geometry, View
from riszoo.data.images import ImageError, decode, load, resize, size_of, view_of
from tests.support import data_trees as trees

SIZE = (20, 30)


def test_images_are_the_stored_pixels_as_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = decode(trees.photo(tmp_path / "turned.jpg", exif=exif))
    assert turned.shape == (*SIZE, 3)
    assert np.array_equal(turned, decode(trees.photo(tmp_path / "plain.jpg")))
    for mode, name in (("L", "grey.jpg"), ("CMYK", "cmyk.jpg"), ("P", "p.png"), ("RGBA", "a.png"), ("1", "one.png")):
        path = trees.photo(tmp_path / name, mode=mode)
        with Image.open(path) as image:
            assert image.mode == mode
            assert np.array_equal(decode(path), np.asarray(image.convert("RGB")))


def test_decoding_and_resizing_give_pillows_pixels(tmp_path):
    for subsampling in (0, 1, 2):
        path = trees.photo(tmp_path / "x.jpg", (123, 211), quality=80, subsampling=subsampling)
        pixels = decode(path)
        with Image.open(path) as image:
            assert np.array_equal(pixels, np.asarray(image))
            smaller = np.asarray(image.resize((97, 64), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(resize(pixels, (64, 97)).astype(int) - smaller).max() <= 1
    assert size_of(path) == (123, 211)


def test_damaged_images_are_black_or_an_error(tmp_path):
    path = trees.photo(tmp_path / "x.jpg", (200, 300))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ImageError, match=r"x\.jpg cannot be read"):
        decode(path)
    with pytest.warns(UserWarning, match="shown as black") as shown:
        images = [load(path, (200, 300), strict=False) for _ in range(3)]
    assert not np.any(images)
    assert len(shown) == 1
    with pytest.raises(ImageError):
        load(path, (200, 300), strict=True)
    path.write_text("no image at all")
    for read in (decode, size_of):
        with pytest.raises(ImageError):
            read(path)


def test_a_image_of_another_size_is_scaled_to_its_annotation(tmp_path):
    path = trees.photo(tmp_path / "x.jpg", (40, 60))
    with pytest.warns(UserWarning, match="60 x 40 pixels, its annotation 30 x 20: it is scaled"):
        assert load(path, SIZE, strict=False).shape == (*SIZE, 3)
    with pytest.raises(ImageError, match="60 x 40"):
        load(path, SIZE, strict=True)


def test_a_view_is_made_from_the_original_image_by_its_own_rule():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    sharp = view_of(pixels, View((16, 24), "bicubic", antialias=False))
    expected = F.interpolate(image, (16, 24), mode="bicubic", align_corners=False)[0]
    assert sharp.shape == (3, 16, 24)
    torch.testing.assert_close(sharp.double(), expected, rtol=0, atol=1e-3)
    assert (sharp.max() > 255) or (sharp.min() < 0), "bicubic values are not clamped"
    smooth = view_of(pixels, View((16, 24)))
    assert (smooth - sharp).abs().max() > 10, "without antialiasing a view is another image"


def test_half_a_pixel_is_rounded_up_in_a_padded_frame():
    """As SAM prepares its images: 1537 rows become 768.5, and then 769."""
    assert Geometry.fit("pad", (1537, 2048), (1024, 1024)).inside == (769, 1024)
    assert Geometry.fit("pad", (1535, 2048), (1024, 1024)).inside == (768, 1024)
