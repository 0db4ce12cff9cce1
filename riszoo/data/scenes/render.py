"""Rendering of a scene: drawn at three times the size in integers, then averaged, so that edges are smooth.

Things are drawn as numbers into one large map, from which both colours and masks are made. A pixel belongs to the thing
that is visible at its centre, so masks are the visible parts and never overlap.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from riszoo.data.generated.split import Rendering
from riszoo.data.record import Pixels
from riszoo.data.scenes.layout import NOISE_OFFSETS, Ground, Scene, Thing
from riszoo.data.scenes.shapes import GRAIN, RING_HOLE, Outline, outline

FINE = 3
"""Fine pixels along the side of a pixel; odd, so that one is at its centre."""

PERIOD = 0.062
"""Width of a stripe and its gap, in world units."""


class ShapeRendering(Rendering[Scene]):
    """A scene of shapes at a size in pixels."""

    def pixels(self) -> Pixels:
        """(H0, W0, 3)"""
        return np.array(_colour(self._map, self.scene, self.size))

    @cached_property
    def owner(self) -> NDArray[np.uint8]:
        """(H0, W0): 0 for the ground, k + 1 for thing k."""
        centres = np.asarray(self._map)[FINE // 2 :: FINE, FINE // 2 :: FINE]
        owner: NDArray[np.uint8] = (centres + 1) // 2
        return owner

    @cached_property
    def _map(self) -> Image.Image:
        """The fine map: thing k has the numbers 2k + 1 and, on its texture, 2k + 2."""
        height, width = self.size
        canvas = Image.new("L", (width * FINE, height * FINE), 0)
        unit = FINE * math.sqrt(height * width)
        for k, thing in enumerate(self.scene.things):
            _lay(canvas, thing, 2 * k + 1, unit)
        return canvas


def _lay(canvas: Image.Image, thing: Thing, number: int, unit: float) -> None:
    """Draw one thing on the map, over what is there."""
    radius = round(thing.reach * unit)
    left, top = round(thing.x * unit) - radius, round(thing.y * unit) - radius
    stencil = _stencil(thing, radius)
    box = (left, top, left + stencil.width, top + stencil.height)
    canvas.paste(number, box, stencil)
    if thing.texture != "plain":
        period = max(2 * FINE, round(PERIOD * unit))
        pattern = _pattern(thing.texture, thing.turn % 2 == 0, period, 1 << radius.bit_length() + 1)
        canvas.paste(number + 1, box, ImageChops.multiply(stencil, pattern.crop((0, 0, *stencil.size))))


def _stencil(thing: Thing, radius: int) -> Image.Image:
    stencil = Image.new("L", (2 * radius + 1, 2 * radius + 1), 0)
    draw = ImageDraw.Draw(stencil)
    corners = outline(thing.shape, thing.turn)
    draw.polygon(_corners(corners, radius, radius), fill=255)
    if thing.shape == "ring":
        draw.polygon(_corners(corners, radius, round(radius * RING_HOLE)), fill=0)
    return stencil


def _corners(corners: Outline, middle: int, radius: int) -> list[int]:
    """x0, y0, x1, y1, ... on the map, rounded."""
    found: list[int] = (middle + (corners * radius + GRAIN // 2) // GRAIN).tolist()
    return found


@lru_cache(maxsize=64)
def _pattern(texture: str, slanted: bool, period: int, side: int) -> Image.Image:
    """255 where the second colour is: straight or slanted stripes, or rows of dots."""
    y, x = np.mgrid[:side, :side]
    if texture == "striped":
        inside = (y + x * slanted) % period < period // 2
    else:
        column = x + (y // period % 2) * (period // 2) * slanted
        inside = (2 * (column % period) - period) ** 2 + (2 * (y % period) - period) ** 2 < (0.68 * period) ** 2
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))


def _colour(canvas: Image.Image, scene: Scene, size: tuple[int, int]) -> Image.Image:
    """The image: things over the ground, with noise over both."""
    ground = _ground(scene.ground, size)
    painted = canvas.copy()
    painted.putpalette(_palette(scene))
    things = painted.convert("RGB").reduce(FINE)
    covered = ImageChops.add(canvas, canvas, 1 / 255).reduce(FINE)
    image = Image.composite(things, ground, covered)
    return ImageChops.add(image, _noise(scene.ground.noise, size), 1, -NOISE_MIDDLE)


def _palette(scene: Scene) -> list[int]:
    palette = list(scene.ground.colour)
    for thing in scene.things:
        second = (126, 126, 130) if thing.colour == "black" else tuple(value // 2 for value in thing.tint)
        palette += [min(255, value) for value in (*thing.tint, *second)]
    return palette


NOISE_MIDDLE = 10
BLOTCH = 4


@lru_cache(maxsize=1)
def _noise_field() -> Image.Image:
    """Noise for the largest image at any offset; numpy guarantees that RandomState never changes."""
    side = 640 + NOISE_OFFSETS
    throws = np.random.RandomState(640).randint(0, NOISE_MIDDLE + 1, (2, side, side, 3))
    return Image.fromarray(throws.sum(0).astype(np.uint8))


def _noise(offset: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    x, y = offset
    return _noise_field().crop((x, y, x + size[1], y + size[0]))


def _ground(ground: Ground, size: tuple[int, int]) -> Image.Image:
    """The colour of the ground with lighter and darker blotches of one of three kinds."""
    height, width = size
    flat = Image.new("RGB", (width, height), ground.colour)
    cells = {"cloudy": (5, 5), "grainy": (24, 24), "woven": (3, 48)}[ground.texture]
    noise = _noise(ground.noise, cells)
    strong = ImageChops.add(noise, noise, 2 / BLOTCH)
    blotches = strong.resize((width, height), Image.Resampling.BILINEAR)
    return ImageChops.add(flat, blotches, 1, -BLOTCH * NOISE_MIDDLE)
