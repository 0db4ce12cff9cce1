"""What is in an image: things with attributes, where they lie, and what hides what.

World units: an image is `extent` = (width, height) large and has area 1, so a thing covers the same share of every
image, whatever its size and form. Images of one form, at any size, show the same world.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from riszoo.data.scenes.chance import Dice
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
"""The share of the picture that a thing of each size fills."""

Combination = tuple[str, str]
"""A shape and a colour."""

EVERY: tuple[Combination, ...] = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)
HELD_OUT: frozenset[Combination] = frozenset(
    (shape, colour) for s, shape in enumerate(SHAPES) for c, colour in enumerate(COLOURS) if (s + c) % 5 == 0
)
"""Two colours of every shape, a fifth of all combinations: no image outside `unseen` shows one."""

SEEN = tuple(combination for combination in EVERY if combination not in HELD_OUT)

GROUNDS = ("cloudy", "grainy", "woven")
NOISE_OFFSETS = 128
FEWEST = 6
TURNS = 4
MOST_HIDDEN = 0.36
CLOSEST = 0.6
LEAST_SEEN = 0.0158
PLACE_TRIES = 32


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: what it looks like, its enclosing circle (x, y, reach), and the area it would fill unhidden."""

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
        """The radius of a disc of its area."""
        return math.sqrt(self.area / math.pi)

    @property
    def values(self) -> tuple[str, str, str, str]:
        """Its attributes in the order in which they are said."""
        return self.size, self.texture, self.colour, self.shape


@dataclass(frozen=True, slots=True)
class Ground:
    """What lies behind: a muted colour, a kind of texture, and where its noise is cut from."""

    colour: tuple[int, int, int]
    texture: str
    noise: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """Things from the hindmost to the foremost, on a ground. `chosen` has the bits of those that may be targets."""

    extent: tuple[float, float]
    things: tuple[Thing, ...]
    chosen: int
    ground: Ground


def extent_of(size: tuple[int, int]) -> tuple[float, float]:
    """Width and height in world units of an image of (height, width) pixels."""
    form = math.sqrt(size[1] / size[0])
    return form, 1 / form


def family(name: str) -> tuple[Combination, ...]:
    """The combinations of a family of shapes, less the held-out ones."""
    return tuple(combination for combination in SEEN if combination[0] in FAMILIES[name])


def imagine(
    dice: Dice, extent: tuple[float, float], wanted: Sequence[Combination], strangers: Sequence[Combination] = ()
) -> Scene:
    """A scene of six to nine things of the combinations wanted, and one or two strangers where there are any."""
    while True:
        palette = _palette(dice, wanted)
        kinds = [(dice.pick(palette), True) for _ in range(FEWEST + dice.below(4))]
        if strangers:
            kinds += [(dice.pick(strangers), False) for _ in range(1 + dice.below(2))]
        placed = _arrange(dice, extent, dice.sample(kinds, len(kinds)))
        chosen = sum(1 << place for place, (_, wanted_kind) in enumerate(placed) if wanted_kind)
        if chosen.bit_count() >= FEWEST and (not strangers or chosen.bit_count() < len(placed)):
            return Scene(extent, tuple(thing for thing, _ in placed), chosen, _ground(dice))


def _palette(dice: Dice, wanted: Sequence[Combination]) -> list[Combination]:
    """Few shapes and few colours, so that neither tells things apart."""
    shapes_wanted = tuple(dict.fromkeys(shape for shape, _ in wanted))
    while True:
        shapes, colours = dice.sample(shapes_wanted, 3), dice.sample(tuple(COLOURS), 4)
        palette = [(shape, colour) for shape, colour in wanted if shape in shapes and colour in colours]
        if len(palette) >= 4:
            return palette


def _arrange(
    dice: Dice, extent: tuple[float, float], kinds: Sequence[tuple[Combination, bool]]
) -> list[tuple[Thing, bool]]:
    """Things laid down one after the other; what finds no room is left out."""
    placed: list[tuple[Thing, bool]] = []
    hidden: list[float] = []
    for combination, wanted in kinds:
        loose = _thing(dice, combination)
        for _ in range(PLACE_TRIES):
            x, y = (dice.between(loose.reach, side - loose.reach) for side in extent)
            covers = _covers(x, y, loose, placed, hidden)
            if covers is not None:
                hidden = [*map(float.__add__, hidden, covers), 0.0]
                placed.append((replace(loose, x=x, y=y), wanted))
                break
    return placed


def _thing(dice: Dice, combination: Combination) -> Thing:
    shape, colour = combination
    size = dice.pick(tuple(SIZES))
    area = SIZES[size] * dice.between(0.94, 1.06)
    red, green, blue = COLOURS[colour]
    tint = (red + dice.below(17) - 8, green + dice.below(17) - 8, blue + dice.below(17) - 8)
    turn = dice.below(2 * TURNS + 1) - TURNS
    return Thing(shape, colour, dice.pick(TEXTURES), size, 0, 0, area, math.sqrt(area / AREA[shape]), turn, tint)


def _covers(
    x: float, y: float, new: Thing, placed: Sequence[tuple[Thing, bool]], hidden: Sequence[float]
) -> list[float] | None:
    """About how much of each thing below the new one would hide at (x, y); None where it may not lie there.

    The hidden thing's enclosing circle stands for it, and for the other one between that and the disc of its area.
    Things of one colour never touch.
    """
    covers = []
    for (old, _), already in zip(placed, hidden, strict=True):
        distance = math.hypot(x - old.x, y - old.y)
        lens = 0.0
        if distance < new.reach + old.reach:
            if new.colour == old.colour or distance < CLOSEST * (new.reach + old.reach):
                return None
            lens = _lens((new.reach + new.disc) / 2, old.reach, distance)
            if already + lens > min(MOST_HIDDEN * old.area, old.area - LEAST_SEEN):
                return None
        covers.append(lens)
    return covers


def _lens(a: float, b: float, distance: float) -> float:
    """The area two circles share, neither inside the other."""
    if distance >= a + b:
        return 0.0
    x = (distance**2 + a**2 - b**2) / (2 * distance)
    return _segment(a, x) + _segment(b, distance - x)


def _segment(radius: float, x: float) -> float:
    """The area of a circle beyond a chord at x."""
    return radius**2 * math.acos(x / radius) - x * math.sqrt(max(0.0, radius**2 - x**2))


def _ground(dice: Dice) -> Ground:
    light = 84 + dice.below(76)
    colour = (light + dice.below(25) - 12, light + dice.below(25) - 12, light + dice.below(25) - 12)
    return Ground(colour, dice.pick(GROUNDS), (dice.below(NOISE_OFFSETS), dice.below(NOISE_OFFSETS)))
