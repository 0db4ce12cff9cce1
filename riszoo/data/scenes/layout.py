"""Random scenes: things with attributes and positions, some of them partly hidden.

Lengths are in world units: an image has the size `extent` = (width, height) and area 1, so a thing covers the same
share of any image. Images of the same aspect ratio show the same scene at every size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from riszoo.data.generated.rng import RandomStream
from riszoo.data.scenes.shapes import AREA, FAMILIES, SHAPES

COLOURS = {
    "red": (214, 40, 40),
    "orange": (247, 138, 24),
    "yellow": (246, 226, 60),
    "green": (40, 158, 62),
    "cyan": (64, 214, 226),
    "blue": (36, 72, 214),
    "purple": (132, 42, 170),
    "pink": (250, 140, 196),
    "black": (28, 28, 30),
    "white": (248, 248, 246),
}
TEXTURES = ("plain", "striped", "dotted")
SIZES = {"small": 0.023, "medium": 0.043, "large": 0.074}
"""The share of the image that a thing of each size fills."""

Combination = tuple[str, str]
"""A shape and a colour."""

EVERY: tuple[Combination, ...] = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)
HELD_OUT: frozenset[Combination] = frozenset(
    (shape, colour) for s, shape in enumerate(SHAPES) for c, colour in enumerate(COLOURS) if (s + c) % 5 == 0
)
"""Two colours of each shape, a fifth of all combinations: only images of the split `unseen` contain them."""

SEEN = tuple(combination for combination in EVERY if combination not in HELD_OUT)

GROUNDS = ("cloudy", "grainy", "woven")
NOISE_OFFSETS = 128
MIN_THINGS = 6
MAX_TURN = 4
MAX_HIDDEN = 0.36
MIN_DISTANCE = 0.6
MIN_VISIBLE = 0.0158
MAX_TRIES = 32


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: its attributes, its enclosing circle (x, y, reach), and the area it fills where nothing hides it."""

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    area: float
    reach: float
    turn: int
    tint: tuple[int, int, int]

    @property
    def disc(self) -> float:
        """The radius of a disc of the same area."""
        return math.sqrt(self.area / math.pi)

    @property
    def values(self) -> tuple[str, str, str, str]:
        """The attributes in the order of an English noun phrase."""
        return self.size, self.texture, self.colour, self.shape


@dataclass(frozen=True, slots=True)
class Ground:
    """The background: a muted colour, a kind of texture, and the offset of its noise."""

    colour: tuple[int, int, int]
    texture: str
    noise: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """Things from back to front on a ground. `chosen` is a bit mask of those that may be targets."""

    extent: tuple[float, float]
    things: tuple[Thing, ...]
    chosen: int
    ground: Ground


def family(name: str) -> tuple[Combination, ...]:
    """The combinations of a family of shapes, without the held-out ones."""
    return tuple(combination for combination in SEEN if combination[0] in FAMILIES[name])


def make_scene(
    rng: RandomStream,
    extent: tuple[float, float],
    combinations: Sequence[Combination],
    distractors: Sequence[Combination] = (),
) -> Scene:
    """A scene of six to nine things of the given combinations, and one or two distractors if any are given."""
    while True:
        palette = _palette(rng, combinations)
        kinds = [(rng.pick(palette), True) for _ in range(MIN_THINGS + rng.below(4))]
        if distractors:
            kinds += [(rng.pick(distractors), False) for _ in range(1 + rng.below(2))]
        placed = _arrange(rng, extent, rng.sample(kinds, len(kinds)))
        chosen = sum(1 << index for index, (_, may_be_target) in enumerate(placed) if may_be_target)
        if chosen.bit_count() >= MIN_THINGS and (not distractors or chosen.bit_count() < len(placed)):
            return Scene(extent, tuple(thing for thing, _ in placed), chosen, _ground(rng))


def _palette(rng: RandomStream, combinations: Sequence[Combination]) -> list[Combination]:
    """Combinations of few shapes and few colours, so that neither alone identifies a thing."""
    all_shapes = tuple(dict.fromkeys(shape for shape, _ in combinations))
    while True:
        shapes, colours = rng.sample(all_shapes, 3), rng.sample(tuple(COLOURS), 4)
        palette = [(shape, colour) for shape, colour in combinations if shape in shapes and colour in colours]
        if len(palette) >= 4:
            return palette


def _arrange(
    rng: RandomStream, extent: tuple[float, float], kinds: Sequence[tuple[Combination, bool]]
) -> list[tuple[Thing, bool]]:
    """Place the things one after the other; skip a thing for which no free position is found."""
    placed: list[tuple[Thing, bool]] = []
    hidden: list[float] = []
    for combination, may_be_target in kinds:
        loose = _thing(rng, combination)
        for _ in range(MAX_TRIES):
            x, y = (rng.between(loose.reach, side - loose.reach) for side in extent)
            covers = _covers(x, y, loose, placed, hidden)
            if covers is not None:
                hidden = [*map(float.__add__, hidden, covers), 0.0]
                placed.append((replace(loose, x=x, y=y), may_be_target))
                break
    return placed


def _thing(rng: RandomStream, combination: Combination) -> Thing:
    shape, colour = combination
    size = rng.pick(tuple(SIZES))
    area = SIZES[size] * rng.between(0.94, 1.06)
    red, green, blue = COLOURS[colour]
    tint = (red + rng.below(17) - 8, green + rng.below(17) - 8, blue + rng.below(17) - 8)
    turn = rng.below(2 * MAX_TURN + 1) - MAX_TURN
    return Thing(shape, colour, rng.pick(TEXTURES), size, 0, 0, area, math.sqrt(area / AREA[shape]), turn, tint)


def _covers(
    x: float, y: float, new: Thing, placed: Sequence[tuple[Thing, bool]], hidden: Sequence[float]
) -> list[float] | None:
    """Approximate area of each placed thing that the new one would hide at (x, y); None if (x, y) is not allowed.

    The hidden thing is approximated by its enclosing circle, the new one by a circle between its enclosing circle and
    the disc of its area. Things of the same colour never touch.
    """
    covers = []
    for (old, _), already in zip(placed, hidden, strict=True):
        distance = math.hypot(x - old.x, y - old.y)
        lens = 0.0
        if distance < new.reach + old.reach:
            if new.colour == old.colour or distance < MIN_DISTANCE * (new.reach + old.reach):
                return None
            lens = _lens((new.reach + new.disc) / 2, old.reach, distance)
            if already + lens > min(MAX_HIDDEN * old.area, old.area - MIN_VISIBLE):
                return None
        covers.append(lens)
    return covers


def _lens(a: float, b: float, distance: float) -> float:
    """The area that two circles share, neither inside the other."""
    if distance >= a + b:
        return 0.0
    x = (distance**2 + a**2 - b**2) / (2 * distance)
    return _segment(a, x) + _segment(b, distance - x)


def _segment(radius: float, x: float) -> float:
    """The area of a circle beyond a chord at x."""
    return radius**2 * math.acos(x / radius) - x * math.sqrt(max(0.0, radius**2 - x**2))


def _ground(rng: RandomStream) -> Ground:
    light = 84 + rng.below(76)
    colour = (light + rng.below(25) - 12, light + rng.below(25) - 12, light + rng.below(25) - 12)
    return Ground(colour, rng.pick(GROUNDS), (rng.below(NOISE_OFFSETS), rng.below(NOISE_OFFSETS)))
