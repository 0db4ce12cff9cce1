"""Masks in their own files: MATLAB matrices and images of every mode, and the sentences about damaged ones."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.images import decode
from riszoo.data.readers.mask_files import MaskFile, read_mask
from riszoo.errors import UserError
from tests.support import data_trees as trees

SIZE = (20, 30)
OUTSIDE = np.arange(600, dtype=np.uint8).reshape(SIZE) % 2  # zero is inside


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "float64", "int32"])
def test_a_matlab_matrix_of_any_number_type(tmp_path, dtype, compressed):
    path = tmp_path / "m.mat"
    savemat(path, {"x": 1.0, "segimg_t": OUTSIDE.astype(dtype)}, do_compression=compressed)
    assert np.array_equal(read_mask(path, SIZE), OUTSIDE == 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_matlab_matrix_of_either_byte_order(tmp_path, order):
    path = tmp_path / "m.mat"
    path.write_bytes(trees.matlab(OUTSIDE, order=order))
    assert np.array_equal(read_mask(path, SIZE), OUTSIDE == 0)


def test_a_matlab_file_without_the_matrix_or_of_another_size(tmp_path):
    path = tmp_path / "m.mat"
    path.write_bytes(trees.matlab(OUTSIDE, name="other"))
    with pytest.raises(UserError, match=r"m\.mat .*no matrix 'segimg_t'"):
        read_mask(path, SIZE)
    path.write_bytes(trees.matlab(OUTSIDE))
    with pytest.raises(UserError, match=r"m\.mat is 30 x 20 pixels, its image 20 x 30"):
        read_mask(path, (30, 20))


def test_a_matrix_that_decompresses_to_far_more_than_its_mask_is_refused(tmp_path):
    path = tmp_path / "m.mat"
    savemat(path, {"segimg_t": np.zeros((2000, 3000))}, do_compression=True)
    with pytest.raises(UserError, match=r"m\.mat .*decompresses to more than 8,896 bytes"):
        read_mask(path, SIZE)


def test_every_damaged_byte_is_one_sentence_or_a_mask(tmp_path):
    """One damaged type code makes scipy.io.loadmat crash the process."""
    whole = trees.matlab(np.ones((2, 3), np.uint8))
    path = tmp_path / "m.mat"
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        with contextlib.suppress(UserError):
            assert read_mask(path, (2, 3)).shape == (2, 3)


def test_damaged_matlab_files_are_one_sentence(tmp_path):
    whole = trees.matlab(np.ones(SIZE, np.uint8))
    path = tmp_path / "m.mat"
    for blob in (b"", whole[:100], whole[:140], whole[:-4], whole[:136] + b"\xff" * 20, b"x" * 4000):
        path.write_bytes(blob)
        with pytest.raises(UserError, match=r"m\.mat"):
            read_mask(path, SIZE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_as_images_of_any_mode(tmp_path, mode):
    mask = np.zeros(SIZE, np.uint8)
    mask[:3] = 255
    image = Image.fromarray(mask)
    if mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16) * 100)
    elif mode == "P":
        image = Image.fromarray((mask > 0).astype(np.uint8), "P")
        image.putpalette([9, 9, 9, 200, 0, 0])
    else:
        image = image.convert(mode)
    image.save(tmp_path / "m.png")
    assert MaskFile(SIZE, tmp_path / "m.png").draw(GroundTruth()).sum() == 90


INSIDE = OUTSIDE == 0


def with_alpha(colour: int, alpha: np.ndarray, mode: str = "RGBA") -> Image.Image:
    pixels = np.full((*SIZE, 4), colour, np.uint8)
    pixels[..., 3] = 255 * alpha
    return Image.fromarray(pixels).convert(mode)


def white_on_black(alpha: np.ndarray) -> Image.Image:
    image = with_alpha(255, alpha)
    pixels = np.array(image)
    pixels[~INSIDE, :3] = 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(INSIDE.astype(np.uint8) * 255),
        with_alpha(255, INSIDE),
        with_alpha(0, INSIDE),
        with_alpha(255, INSIDE, "LA"),
        white_on_black(np.ones(SIZE)),
        white_on_black(INSIDE),
    ],
    ids=["grey", "white on nothing", "black on nothing", "grey with alpha", "opaque colours", "both"],
)
def test_a_mask_of_any_image_mode(tmp_path, image):
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), INSIDE)


def test_a_mask_in_a_format_that_changes_pixels_is_refused(tmp_path):
    Image.fromarray(INSIDE.astype(np.uint8) * 255).save(tmp_path / "m.jpg")
    with pytest.raises(UserError, match=r"m\.jpg is a JPEG file"):
        read_mask(tmp_path / "m.jpg", SIZE)


def test_postscript_is_no_image(tmp_path):
    """Pillow would start Ghostscript for it."""
    (tmp_path / "m.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_mask(tmp_path / "m.png", SIZE)
    with pytest.raises(UserError, match="it is not an image of a known format"):
        decode(tmp_path / "m.png")
