"""What a sentence means, as a form that can be evaluated on a scene.

Sets of things are whole numbers with a bit for each thing. Vague words (left of, near, larger) have three answers, so
every form answers with two sets: what it surely names and what it perhaps names. Between the two lies what a pixel,
or a person's taste, would decide. A sentence is fit to be asked where both are the same set.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise

from riszoo.data.scenes.layout import COLOURS, SIZES, TEXTURES, Scene, Thing

Answer = tuple[int, int]
"""What is surely and what is perhaps named."""

ASPECT = {
    **dict.fromkeys(COLOURS, "colour"),
    **dict.fromkeys(TEXTURES, "texture"),
    **dict.fromkeys(SIZES, "size"),
}
"""Which attribute a word tells of; every other one is a shape."""

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
"""Every place, and the parts of the picture in all of which what is there lies."""
SIDE = (0.36, 0.46)  # surely and perhaps at a side: as near to it, in parts of the image
MIDDLE = (0.14, 0.24)  # surely and perhaps in the middle: as near to it in both directions

RELATIONS = {"left of": "left", "right of": "right", "above": "top", "below": "bottom", "near": None}
"""Every relation, and the measure in which the one comes before the other."""
BEFORE = (-0.09, 0.01)  # surely and perhaps left of, above, ...: from middle to middle, in world units
NEAR = (0.06, 0.15)  # surely and perhaps near: the gap between discs of the things' areas

MEASURES: dict[str, tuple[Callable[[Thing], float], float]] = {
    "left": (lambda thing: thing.x, 0.06),
    "right": (lambda thing: -thing.x, 0.06),
    "top": (lambda thing: thing.y, 0.06),
    "bottom": (lambda thing: -thing.y, 0.06),
    "large": (lambda thing: -math.log(thing.area), 0.4),
    "small": (lambda thing: math.log(thing.area), 0.4),
}
"""What things are ordered by, least first, and how far apart two must be to be told apart."""


def bits(things: int) -> Iterator[int]:
    """The places of the things in a set."""
    while things:
        yield (things & -things).bit_length() - 1
        things &= things - 1


def below(values: Iterable[float], limits: tuple[float, float]) -> Answer:
    """What is surely small enough, and what perhaps is."""
    surely = perhaps = 0
    bit = 1
    for value in values:
        if value < limits[0]:
            surely |= bit
        if value < limits[1]:
            perhaps |= bit
        bit <<= 1
    return surely, perhaps


class Facts:
    """What is true in a scene; what is vague about it is worked out when first asked for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.things = scene.things
        self.said = [thing.values for thing in scene.things]
        self.everything = (1 << len(scene.things)) - 1
        self.having: defaultdict[str, int] = defaultdict(int)
        for place, values in enumerate(self.said):
            for value in values:
                self.having[value] |= 1 << place
        self._placed: dict[str, Answer] = {}
        self._related: dict[tuple[str, int], Answer] = {}

    def placed(self, place: str) -> Answer:
        """What lies at a place of the picture."""
        if place not in self._placed:
            surely = perhaps = self.everything
            for part in PLACES[place]:
                there, perhaps_there = self._in_part(part)
                surely, perhaps = surely & there, perhaps & perhaps_there
            self._placed[place] = surely, perhaps
        return self._placed[place]

    def related(self, relation: str, anchor: int) -> Answer:
        """What stands in a relation to the anchor."""
        if (relation, anchor) not in self._related:
            surely, perhaps = self._related_to(self.things[anchor], RELATIONS[relation])
            others = ~(1 << anchor)
            self._related[relation, anchor] = surely & others, perhaps & others
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
    """A meaning. Forms are plain values and nest."""

    __slots__ = ()

    @abstractmethod
    def answer(self, facts: Facts) -> Answer:
        """What it names in a scene."""

    def parts(self) -> Iterator[Form]:
        """The form and all that it is made of."""
        yield self
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Form):
                yield from value.parts()


@dataclass(frozen=True, slots=True)
class Kind(Form):
    """Things with all of some attributes, in the order in which they are said."""

    values: tuple[str, ...] = ()

    def answer(self, facts: Facts) -> Answer:
        things = facts.everything
        for value in self.values:
            things &= facts.having[value]
        return things, things


@dataclass(frozen=True, slots=True)
class Without(Form):
    """Those that lack one attribute, or are not at a place."""

    of: Form
    value: str

    def answer(self, facts: Facts) -> Answer:
        surely, perhaps = self.of.answer(facts)
        if self.value in PLACES:
            there, perhaps_there = facts.placed(self.value)
            return surely & ~perhaps_there, perhaps & ~there
        having = facts.having[self.value]
        return surely & ~having, perhaps & ~having


@dataclass(frozen=True, slots=True)
class Placed(Form):
    """Those at a place of the picture."""

    of: Form
    place: str

    def answer(self, facts: Facts) -> Answer:
        surely, perhaps = self.of.answer(facts)
        there, perhaps_there = facts.placed(self.place)
        return surely & there, perhaps & perhaps_there


@dataclass(frozen=True, slots=True)
class Related(Form):
    """Those in a relation to one other thing."""

    of: Form
    relation: str
    anchor: Form

    def answer(self, facts: Facts) -> Answer:
        surely, perhaps = self.of.answer(facts)
        anchor, perhaps_anchor = self.anchor.answer(facts)
        if anchor != perhaps_anchor or anchor.bit_count() != 1:
            return 0, perhaps
        there, perhaps_there = facts.related(self.relation, anchor.bit_length() - 1)
        return surely & there, perhaps & perhaps_there


@dataclass(frozen=True, slots=True)
class Ranked(Form):
    """The first, second, ... of those, by place or by size."""

    of: Form
    measure: str
    rank: int = 1

    def answer(self, facts: Facts) -> Answer:
        surely, perhaps = self.of.answer(facts)
        if surely != perhaps:
            return 0, perhaps
        measure, margin = MEASURES[self.measure]
        order = sorted((measure(facts.things[place]), place) for place in bits(surely))
        if len(order) < self.rank:
            return 0, 0
        around = order[: self.rank + 1]
        if any(after[0] - before[0] < margin for before, after in pairwise(around)):
            return 0, perhaps
        named = 1 << order[self.rank - 1][1]
        return named, named


@dataclass(frozen=True, slots=True)
class Both(Form):
    """One thing and another."""

    first: Form
    second: Form

    def answer(self, facts: Facts) -> Answer:
        (first, perhaps_first), (second, perhaps_second) = self.first.answer(facts), self.second.answer(facts)
        return first | second, perhaps_first | perhaps_second


@lru_cache(maxsize=4096)
def kind(*values: str) -> Kind:
    """A kind, made once: there are few and they are asked for all the time."""
    return Kind(values)


def names(form: Form, facts: Facts) -> int | None:
    """The set a form names, or None where that is vague."""
    surely, perhaps = form.answer(facts)
    return surely if surely == perhaps else None
