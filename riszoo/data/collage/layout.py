"""Random compositions of cut-outs: sizes by category, rotation, reflection, true occlusion.

Lengths are in world units: an image has the size `extent` = (width, height) and area 1, so a thing covers the same
share of any image. Images of the same aspect ratio show the same composition at every size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from riszoo.data.collage.library import OPAQUE, Library
from riszoo.data.collage.warp import GRAIN, Patch, cos_sin, warp
from riszoo.data.generated.rng import RandomStream

AREAS = {1: 0.026, 2: 0.040, 3: 0.058, 4: 0.080, 5: 0.105}
"""The share of the image that a thing of each size class fills, before its spread."""
SPREAD = (0.78, 1.28)
MAX_TURN = 5
"""Steps of `warp.TURN` in either direction."""
MAX_REACH = 0.33
"""Half of a thing's longer side is at most this share of the shorter side of the image."""
MAX_HIDDEN = 1 / 3
MIN_VISIBLE = 0.012
MAX_TRIES = 24
GRID = 64
"""Cells along the side of a square image, on which occlusion is measured."""
GAIN = (216, 297)
"""The factor of a thing's light in 256ths; each channel deviates from it by up to `CAST`."""
CAST = 10
NOISE_OFFSETS = 128
GROUNDS = ("gradient", "cloudy", "grainy", "woven")

Pool = Mapping[str, Sequence[int]]
"""The cut-outs of each noun that a composition may contain."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One cut-out in an image: its names, the centre of its box, and the area it fills where nothing hides it.

    scale   world units for each pixel of the cut-out
    gains   factors of red, green and blue in 256ths
    """

    cutout: int
    values: tuple[str, ...]
    x: float
    y: float
    area: float
    scale: float
    turn: int
    flipped: bool
    gains: tuple[int, int, int]

    @property
    def disc(self) -> float:
        """The radius of a disc of the same area."""
        return math.sqrt(self.area / math.pi)


@dataclass(frozen=True, slots=True)
class Ground:
    """The background: two colours that a texture mixes, or a photograph, chosen by a number from 0 to 1."""

    texture: str
    colours: tuple[tuple[int, int, int], tuple[int, int, int]]
    slope: tuple[int, int]
    noise: tuple[int, int]
    photograph: float


@dataclass(frozen=True, slots=True)
class Collage:
    """Things from back to front on a ground, with the direction of their shadows.

    `chosen` is a bit mask of those that may be targets.
    """

    extent: tuple[float, float]
    things: tuple[Thing, ...]
    chosen: int
    ground: Ground
    light: tuple[int, int]


def make_collage(
    rng: RandomStream,
    extent: tuple[float, float],
    library: Library,
    pool: Pool,
    counts: tuple[int, int],
    distractors: Pool | None = None,
) -> Collage:
    """A composition of so many things of the pool, and a distractor if there are any."""
    while True:
        palette = _palette(rng, library, pool)
        count = counts[0] + rng.below(counts[1] - counts[0] + 1)
        picked = [(rng.pick(pool[rng.pick(palette)]), True) for _ in range(count)]
        if distractors:
            picked.append((rng.pick(distractors[rng.pick(tuple(distractors))]), False))
        placed = _arrange(rng, extent, library, rng.sample(picked, len(picked)))
        chosen = sum(1 << index for index, (_, may_be_target) in enumerate(placed) if may_be_target)
        if chosen.bit_count() >= counts[0] and (not distractors or chosen.bit_count() < len(placed)):
            light = rng.below(9) - 4, 2 + rng.below(4)
            return Collage(extent, tuple(thing for thing, _ in placed), chosen, _ground(rng), light)


def _palette(rng: RandomStream, library: Library, pool: Pool) -> list[str]:
    """A few nouns in pairs of one kind, so that neither a noun nor a kind identifies a thing."""
    nouns = tuple(pool)
    palette: list[str] = []
    for first in rng.sample(nouns, 2):
        kin = [noun for noun in nouns if noun != first and _related(library, first, noun)]
        palette += [first, rng.pick(kin or nouns)]
    return palette


def _related(library: Library, first: str, second: str) -> bool:
    """Whether two nouns are of one kind: the nearest that they have."""
    kinds = library.kinds[first], library.kinds[second]
    return bool(kinds[0] and kinds[1]) and kinds[0][0] == kinds[1][0]


def _arrange(
    rng: RandomStream, extent: tuple[float, float], library: Library, picked: Sequence[tuple[int, bool]]
) -> list[tuple[Thing, bool]]:
    """Place the things one after the other; skip a thing for which no free position is found."""
    owner = np.zeros((round(extent[1] * GRID), round(extent[0] * GRID)), np.uint8)
    full: list[int] = []  # the cells of each thing, hidden ones included
    placed: list[tuple[Thing, bool]] = []
    for cutout, may_be_target in picked:
        loose = _thing(rng, extent, library, cutout)
        reach, patch = half_sides(loose, library), patch_of(loose, library, GRID)
        if patch is None:
            continue
        for _ in range(MAX_TRIES):
            x, y = (rng.between(half, side - half) for half, side in zip(reach, extent, strict=True))
            there = replace(patch, top=patch.top + round(y * GRID), left=patch.left + round(x * GRID))
            if _allowed(owner, there, full):
                full.append(_lay(owner, there, len(placed) + 1))
                placed.append((replace(loose, x=x, y=y), may_be_target))
                break
    return placed


def _thing(rng: RandomStream, extent: tuple[float, float], library: Library, cutout: int) -> Thing:
    entry, pixels = library.entries[cutout], library.cutout(cutout)
    area = AREAS[entry.size] * rng.between(*SPREAD)
    gain = GAIN[0] + rng.below(GAIN[1] - GAIN[0])
    gains = (gain + rng.below(2 * CAST + 1) - CAST, gain, gain + rng.below(2 * CAST + 1) - CAST)
    turn, flipped = rng.below(2 * MAX_TURN + 1) - MAX_TURN, rng.chance(0.5)
    scale = math.sqrt(area / pixels.opaque)
    thing = Thing(cutout, entry.names, 0, 0, area, scale, turn, flipped, gains)
    shrink = min(1.0, MAX_REACH * min(extent) / max(half_sides(thing, library)))
    return replace(thing, area=area * shrink**2, scale=scale * shrink)


def half_sides(thing: Thing, library: Library) -> tuple[float, float]:
    """Half of the width and of the height of a thing's turned box."""
    height, width = library.cutout(thing.cutout).size
    cos, sin = (abs(value) / GRAIN for value in cos_sin(thing.turn))
    return (width * cos + height * sin) * thing.scale / 2, (width * sin + height * cos) * thing.scale / 2


def patch_of(thing: Thing, library: Library, unit: float) -> Patch | None:
    """A thing drawn with `unit` pixels for each world unit; None if it is smaller than a pixel."""
    half = half_sides(thing, library)
    centre, reach = (thing.x * unit, thing.y * unit), (half[0] * unit, half[1] * unit)
    return warp(library.cutout(thing.cutout), centre, reach, thing.scale * unit, thing.turn, thing.flipped)


def _allowed(owner: NDArray[np.uint8], patch: Patch, full: Sequence[int]) -> bool:
    """Whether all placed things remain visible enough under a new one."""
    solid = patch.pixels[..., 3] >= OPAQUE
    covered = np.bincount(patch.window(owner)[solid[patch.inside(owner.shape)]], minlength=len(full) + 1)
    visible = np.bincount(owner.ravel(), minlength=len(full) + 1)
    return all(
        covered[k] == 0 or visible[k] - covered[k] >= max((1 - MAX_HIDDEN) * cells, MIN_VISIBLE * GRID**2)
        for k, cells in enumerate(full, 1)
    )


def _lay(owner: NDArray[np.uint8], patch: Patch, number: int) -> int:
    """Draw a thing's number over what is there; returns the number of its cells."""
    solid = patch.pixels[..., 3][patch.inside(owner.shape)] >= OPAQUE
    patch.window(owner)[solid] = number
    return int(solid.sum())


def _ground(rng: RandomStream) -> Ground:
    light = 70 + rng.below(130)
    first, second = ((light + rng.below(61) - 30, light + rng.below(61) - 30, light + rng.below(61) - 30) for _ in "ab")
    slope = rng.below(257) - 128, rng.below(257) - 128
    noise = rng.below(NOISE_OFFSETS), rng.below(NOISE_OFFSETS)
    return Ground(rng.pick(GROUNDS), (first, second), slope, noise, rng.random())
