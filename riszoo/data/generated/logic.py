"""The meaning of a sentence as a logical form that is evaluated on an image's things.

A set of things is an integer with one bit for each thing. Words such as "left of", "near" or "larger" have unclear
cases, so a form evaluates to two sets: the things that it certainly names and those that it possibly names. A sentence
is used only if both sets are equal.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

Answer = tuple[int, int]
"""The sets of things that are certainly and possibly named."""


class Thing(Protocol):
    """One object of an image, in world units: an image has area 1."""

    @property
    def x(self) -> float: ...

    @property
    def y(self) -> float: ...

    @property
    def area(self) -> float:
        """What it fills where nothing hides it."""

    @property
    def disc(self) -> float:
        """The radius of a disc of the same area."""

    @property
    def values(self) -> tuple[str, ...]:
        """Every word that is true of it alone: its attributes, its names."""


class Scene(Protocol):
    """The things of an image. `chosen` is a bit mask of those that may be targets."""

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height in world units."""

    @property
    def things(self) -> Sequence[Thing]: ...

    @property
    def chosen(self) -> int: ...


PLACES = {
    "left": ("left",),
    "right": ("right",),
    "top": ("top",),
    "bottom": ("bottom",),
    "top left": ("top", "left"),
    "top right": ("top", "right"),
    "bottom left": ("bottom", "left"),
    "bottom right": ("bottom", "right"),
    "middle": ("middle",),
}
"""The places in an image, each with the conditions that a thing there meets."""
SIDE = (0.36, 0.46)  # certainly and possibly at a side: the distance to it as a share of the image
MIDDLE = (0.14, 0.24)  # certainly and possibly in the middle: the distance to it in both directions

RELATIONS = {"left of": "left", "right of": "right", "above": "top", "below": "bottom", "near": None}
"""The relations, each with the measure by which one thing comes before the other."""
BEFORE = (-0.09, 0.01)  # certainly and possibly left of, above, ...: from centre to centre, in world units
NEAR = (0.06, 0.15)  # certainly and possibly near: the gap between discs of the same areas

MEASURES: dict[str, tuple[Callable[[Thing], float], float]] = {
    "left": (lambda thing: thing.x, 0.06),
    "right": (lambda thing: -thing.x, 0.06),
    "top": (lambda thing: thing.y, 0.06),
    "bottom": (lambda thing: -thing.y, 0.06),
    "large": (lambda thing: -math.log(thing.area), 0.4),
    "small": (lambda thing: math.log(thing.area), 0.4),
}
"""The measures by which things are ordered, lowest first, each with the least difference that counts."""


def bits(things: int) -> Iterator[int]:
    """The indices of the things in a set."""
    while things:
        yield (things & -things).bit_length() - 1
        things &= things - 1


def below(values: Iterable[float], limits: tuple[float, float]) -> Answer:
    """The indices of the values that are certainly and possibly below the limit."""
    certain = possible = 0
    bit = 1
    for value in values:
        if value < limits[0]:
            certain |= bit
        if value < limits[1]:
            possible |= bit
        bit <<= 1
    return certain, possible


class Facts:
    """What is true in a scene; places and relations are computed when first used."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.things = scene.things
        self.attributes = [thing.values for thing in scene.things]
        self.everything = (1 << len(scene.things)) - 1
        self.having: defaultdict[str, int] = defaultdict(int)
        for index, values in enumerate(self.attributes):
            for value in values:
                self.having[value] |= 1 << index
        self._placed: dict[str, Answer] = {}
        self._related: dict[tuple[str, int], Answer] = {}

    def placed(self, place: str) -> Answer:
        """The things at a place of the image."""
        if place not in self._placed:
            certain = possible = self.everything
            for part in PLACES[place]:
                there, possible_there = self._in_part(part)
                certain, possible = certain & there, possible & possible_there
            self._placed[place] = certain, possible
        return self._placed[place]

    def related(self, relation: str, anchor: int) -> Answer:
        """The things in a relation to the anchor."""
        if (relation, anchor) not in self._related:
            certain, possible = self._related_to(self.things[anchor], RELATIONS[relation])
            others = ~(1 << anchor)
            self._related[relation, anchor] = certain & others, possible & others
        return self._related[relation, anchor]

    def _in_part(self, part: str) -> Answer:
        width, height = self.scene.extent
        if part == "middle":
            off = [max(abs(thing.x / width - 0.5), abs(thing.y / height - 0.5)) for thing in self.things]
            return below(off, MIDDLE)
        side = width if part in ("left", "right") else height
        edge = side if part in ("right", "bottom") else 0.0
        measure = MEASURES[part][0]
        return below([(measure(thing) + edge) / side for thing in self.things], SIDE)

    def _related_to(self, there: Thing, measure: str | None) -> Answer:
        if measure is None:
            gaps = [math.hypot(thing.x - there.x, thing.y - there.y) - thing.disc for thing in self.things]
            return below([gap - there.disc for gap in gaps], NEAR)
        of = MEASURES[measure][0]
        mark = of(there)
        return below([of(thing) - mark for thing in self.things], BEFORE)


class Form(ABC):
    """A logical form: a plain value that may contain other forms."""

    __slots__ = ()

    @abstractmethod
    def answer(self, facts: Facts) -> Answer:
        """The things that the form names in a scene."""

    def parts(self) -> Iterator[Form]:
        """The form and all forms inside it."""
        yield self
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Form):
                yield from value.parts()


@dataclass(frozen=True, slots=True)
class Kind(Form):
    """Things of which all of the given words are true, in the order of an English noun phrase."""

    values: tuple[str, ...] = ()

    def answer(self, facts: Facts) -> Answer:
        things = facts.everything
        for value in self.values:
            things &= facts.having[value]
        return things, things


@dataclass(frozen=True, slots=True)
class Without(Form):
    """Things of which one word is not true, or that are not at a place."""

    of: Form
    value: str

    def answer(self, facts: Facts) -> Answer:
        certain, possible = self.of.answer(facts)
        if self.value in PLACES:
            there, possible_there = facts.placed(self.value)
            return certain & ~possible_there, possible & ~there
        having = facts.having[self.value]
        return certain & ~having, possible & ~having


@dataclass(frozen=True, slots=True)
class Placed(Form):
    """Things at a place of the image."""

    of: Form
    place: str

    def answer(self, facts: Facts) -> Answer:
        certain, possible = self.of.answer(facts)
        there, possible_there = facts.placed(self.place)
        return certain & there, possible & possible_there


@dataclass(frozen=True, slots=True)
class Related(Form):
    """Things in a relation to one other thing."""

    of: Form
    relation: str
    anchor: Form

    def answer(self, facts: Facts) -> Answer:
        certain, possible = self.of.answer(facts)
        anchor, possible_anchor = self.anchor.answer(facts)
        if anchor != possible_anchor or anchor.bit_count() != 1:
            return 0, possible
        there, possible_there = facts.related(self.relation, anchor.bit_length() - 1)
        return certain & there, possible & possible_there


@dataclass(frozen=True, slots=True)
class Ranked(Form):
    """The first, second, ... of some things, by position or by size."""

    of: Form
    measure: str
    rank: int = 1

    def answer(self, facts: Facts) -> Answer:
        certain, possible = self.of.answer(facts)
        if certain != possible:
            return 0, possible
        measure, margin = MEASURES[self.measure]
        order = sorted((measure(facts.things[index]), index) for index in bits(certain))
        if len(order) < self.rank:
            return 0, 0
        around = order[: self.rank + 1]
        if any(after[0] - before[0] < margin for before, after in pairwise(around)):
            return 0, possible
        named = 1 << order[self.rank - 1][1]
        return named, named


@dataclass(frozen=True, slots=True)
class Both(Form):
    """One thing and another."""

    first: Form
    second: Form

    def answer(self, facts: Facts) -> Answer:
        (first, possible_first), (second, possible_second) = self.first.answer(facts), self.second.answer(facts)
        return first | second, possible_first | possible_second


@lru_cache(maxsize=4096)
def kind(*values: str) -> Kind:
    """A cached `Kind`: there are few, and they are used often."""
    return Kind(values)


def subject(form: Form) -> Kind:
    """The words for what a form names, or for the first of two things."""
    return next(part for part in form.parts() if isinstance(part, Kind))


def names(form: Form, facts: Facts) -> int | None:
    """The set that a form names, or None where that is unclear."""
    certain, possible = form.answer(facts)
    return certain if certain == possible else None
