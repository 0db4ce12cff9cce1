"""Rendering of a collage: cut-outs with soft shadows over a ground, from back to front, in integer arithmetic.

A pixel belongs to the foremost thing that covers at least half of it, so masks are the visible parts and never overlap.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from riszoo.data.collage.layout import NOISE_OFFSETS, Collage, Ground, patch_of
from riszoo.data.collage.library import OPAQUE, Library, open_library
from riszoo.data.collage.warp import Patch
from riszoo.data.generated.split import LARGEST, Rendering
from riszoo.data.record import Pixels
from riszoo.errors import UserError

SHADOW = 110
"""The darkness of a shadow, in 256ths."""
SHADOW_STEP, SHADOW_BLUR = 0.0045, 0.010
"""World units of a step of the light's direction, and the radius over which a shadow's edge is blurred."""
CELLS = {"gradient": (2, 2), "cloudy": (5, 5), "grainy": (28, 28), "woven": (3, 40)}
NOISE_SHARE = {"gradient": 24, "cloudy": 110, "grainy": 70, "woven": 80}
"""How far the noise of a texture moves between the two colours, in 256ths."""
GRAIN_LEVELS = 9
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp")


class CollageRendering(Rendering[Collage]):
    """A collage at a size in pixels."""

    def __init__(self, scene: Collage, size: tuple[int, int], cutouts: str, grounds: str | None = None) -> None:
        super().__init__(scene, size)
        self.cutouts, self.grounds = cutouts, grounds

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "cutouts": self.cutouts, "grounds": self.grounds}

    def pixels(self) -> Pixels:
        """(H0, W0, 3)"""
        canvas = _ground(self.scene.ground, self.size, self.grounds)
        unit = math.sqrt(self.size[0] * self.size[1])
        for thing, patch in zip(self.scene.things, self._patches, strict=True):
            if patch is not None:
                _darken(canvas, patch, self.scene.light, unit)
                _paste(canvas, patch, thing.gains)
        return canvas

    @cached_property
    def owner(self) -> NDArray[np.uint8]:
        """(H0, W0): 0 for the ground, k + 1 for thing k."""
        owner = np.zeros(self.size, np.uint8)
        for number, patch in enumerate(self._patches, 1):
            if patch is not None:
                solid = patch.pixels[..., 3][patch.inside(self.size)] >= OPAQUE
                patch.window(owner)[solid] = number
        return owner

    @cached_property
    def _patches(self) -> list[Patch | None]:
        library: Library = open_library(self.cutouts)
        unit = math.sqrt(self.size[0] * self.size[1])
        return [patch_of(thing, library, unit) for thing in self.scene.things]


def _paste(canvas: Pixels, patch: Patch, gains: tuple[int, int, int]) -> None:
    """Lay a thing over the canvas, its light changed; premultiplied colours leave no fringe."""
    pixels = patch.pixels[patch.inside(canvas.shape)].astype(np.uint32)
    alpha = pixels[..., 3:]
    colours = np.minimum((pixels[..., :3] * np.array(gains, np.uint32)) >> 8, alpha)
    window = patch.window(canvas)
    window[:] = colours + (window * (255 - alpha) + 127) // 255


def _darken(canvas: Pixels, patch: Patch, light: tuple[int, int], unit: float) -> None:
    """A soft shadow of a thing, beside it in the direction of the light."""
    radius = max(1, round(SHADOW_BLUR * unit))
    soft = Image.fromarray(np.pad(patch.pixels[..., 3], 2 * radius))
    for _ in "12":
        soft = soft.filter(ImageFilter.BoxBlur(radius))
    right, down = (round(step * SHADOW_STEP * unit) for step in light)
    shade = Patch(patch.top - 2 * radius + down, patch.left - 2 * radius + right, np.asarray(soft)[..., None])
    darkness = (shade.pixels[shade.inside(canvas.shape)].astype(np.uint32) * SHADOW) >> 8
    window = shade.window(canvas)
    window[:] = (window * (256 - darkness)) >> 8


# -- grounds ----------------------------------------------------------------------------------------------------------


def _ground(ground: Ground, size: tuple[int, int], folder: str | None) -> Pixels:
    """A writeable canvas: a photograph of the folder, or two colours mixed by a gradient and noise."""
    if folder is not None:
        return _photograph(folder, ground.photograph, size)
    height, width = size
    rows, columns = np.arange(height)[:, None], np.arange(width)
    gradient = 128 + ground.slope[1] * (2 * rows - height) // (2 * height)
    gradient = gradient + ground.slope[0] * (2 * columns - width) // (2 * width)
    noise = _enlarged(ground.noise, CELLS[ground.texture], size).astype(np.int64) - 128
    share = np.clip(gradient + ((noise * NOISE_SHARE[ground.texture]) >> 7), 0, 256)[..., None]  # (h, w, 1)
    first, second = (np.array(colour, np.int64) for colour in ground.colours)
    x, y = ground.noise
    grain = _noise_field()[y : y + height, x : x + width, None].astype(np.int64) % GRAIN_LEVELS - GRAIN_LEVELS // 2
    return np.asarray(np.clip(first + (((second - first) * share) >> 8) + grain, 0, 255), dtype=np.uint8)


@lru_cache(maxsize=1)
def _noise_field() -> NDArray[np.uint8]:
    """Noise for the largest image at any offset; numpy guarantees that RandomState never changes."""
    side = LARGEST + NOISE_OFFSETS
    return np.random.RandomState(640).randint(0, 256, (side, side)).astype(np.uint8)


def _enlarged(offset: tuple[int, int], cells: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w): smooth noise of so many cells; Pillow resizes bytes in integers."""
    (x, y), (rows, columns) = offset, cells
    coarse = Image.fromarray(_noise_field()[y : y + rows, x : x + columns])
    return np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _photograph(folder: str, choice: float, size: tuple[int, int]) -> Pixels:
    """A photograph of the folder, the middle of it at the size of the image."""
    from riszoo.data.images import decode, resize

    files = photographs(folder)
    pixels = decode(files[int(choice * len(files))])
    height, width = pixels.shape[:2]
    ratio = min(height / size[0], width / size[1])
    rows, columns = (max(1, min(whole, round(side * ratio))) for whole, side in ((height, size[0]), (width, size[1])))
    top, left = (height - rows) // 2, (width - columns) // 2
    return resize(pixels[top : top + rows, left : left + columns], size).copy()


@lru_cache(maxsize=4)
def photographs(folder: str) -> tuple[Path, ...]:
    """The photographs of a folder and of those inside it, sorted."""
    files = tuple(sorted(path for path in Path(folder).expanduser().rglob("*") if path.suffix.lower() in PHOTOGRAPHS))
    if not files:
        raise UserError(f"--data.grounds {folder} has no photographs: give a folder with JPEG, PNG or WebP files")
    return files
