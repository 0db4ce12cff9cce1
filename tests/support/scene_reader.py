"""A reader of the sentences of `scenes`, written apart from what writes them.

It knows English, not forms: words are read into meaning one after the other, and judged on the things of a scene with
sharp limits. With the generator it shares only the attributes of things. `jolt` moves the limits, to see that no
sentence hangs on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from riszoo.data.scenes.layout import Scene, Thing

SHAPES = ("circle", "ring", "heart", "moon", "square", "triangle", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "black", "white")
NOUN = {
    "disc": "circle", "crescent": "moon", "box": "square", "plus": "cross", "thing": "", "object": "", "shape": "",
    **{name: name for name in SHAPES},
}  # fmt: skip
PLURAL = {"boxes": "box", "crosses": "cross", "pluses": "plus"} | {
    noun + "s": noun for noun in NOUN if noun not in ("box", "cross", "plus")
}
ADJECTIVE = {
    "small": "small", "little": "small", "tiny": "small", "medium": "medium", "large": "large", "big": "large",
    "plain": "plain", "solid": "plain", "striped": "striped", "dotted": "dotted", "spotted": "dotted",
    **{name: name for name in COLOURS},
}  # fmt: skip
PATTERN = {"stripes": "striped", "dots": "dotted", "spots": "dotted"}
EXTREME = {"leftmost": "left", "rightmost": "right", "topmost": "top", "highest": "top", "bottommost": "bottom",
           "lowest": "bottom", "largest": "large", "biggest": "large", "smallest": "small"}  # fmt: skip
RANK = {"second": 2, "third": 3, "fourth": 4}
NUMBER = {"both": 2, "two": 2, "three": 3, "four": 4}
RELATION = [
    (r"(to |on )?(the )?(left|right)( side)? of", lambda m: m.group(3)),
    (r"above|higher than", lambda _: "above"),
    (r"below|under|lower than", lambda _: "below"),
    (r"near(?! to| est)|next to|close to|beside", lambda _: "near"),
]
PLACE = [
    (r"in (the )?(top|upper|bottom|lower) (left|right)( corner)?(?! side)", lambda m: (m.group(2), m.group(3))),
    (r"(on|at) (the )?(left|right)( side)?", lambda m: (m.group(3),)),
    (r"at (the )?(top|bottom)", lambda m: (m.group(2),)),
    (r"in (the )?(upper|lower) part", lambda m: (m.group(2),)),
    (r"in (the )?(middle of (the )?picture|middle|center)", lambda _: ("middle",)),
]
SAME = {"upper": "top", "lower": "bottom"}


@dataclass
class Reader:
    """Reads one sentence about one scene; what is left of the text shrinks from the front."""

    scene: Scene
    left: str
    jolt: float = 0.0

    def sentence(self) -> set[int]:
        named = self.phrase()
        while self.take(r"and"):
            named = named | self.phrase()
        assert not self.left, f"not understood: {self.left!r}"
        return named

    def take(self, pattern: str) -> re.Match[str] | None:
        found = re.match(rf"(?:{pattern})(?: |$)", self.left)
        if found:
            self.left = self.left[found.end() :]
            return re.match(pattern, found.group().strip())
        return None

    def word(self) -> str:
        word, _, self.left = self.left.partition(" ")
        return word

    def phrase(self) -> set[int]:
        """[the] [second] [largest] small red stars ..."""
        self.take("all the|all|the")
        number = NUMBER.get(self.left.split()[0])
        if number:
            self.word()
        rank = RANK[self.word()] if self.left.split()[0] in RANK else 1
        extreme = EXTREME[self.word()] if self.left.split()[0] in EXTREME else None
        named = self.after_noun(self.nouns(), rank if not extreme else 1)
        named = self.ranked(named, extreme, rank) if extreme else named
        assert number is None or len(named) == number
        return named

    def nouns(self) -> set[int]:
        wanted = []
        while self.left.split()[0] in ADJECTIVE:
            wanted.append(ADJECTIVE[self.word()])
        noun = self.word()
        shape = NOUN[PLURAL.get(noun, noun)]
        return self.having(*wanted, *([shape] if shape else []))

    def having(self, *values: str) -> set[int]:
        return {
            k
            for k, thing in enumerate(self.scene.things)
            if all(value in (thing.shape, thing.colour, thing.texture, thing.size) for value in values)
        }

    def after_noun(self, named: set[int], rank: int) -> set[int]:
        while self.left and not self.left.startswith("and "):
            named = self.clause(named, rank)
        return named

    def clause(self, named: set[int], rank: int) -> set[int]:
        self.take("(that|which) (is|are)")
        if found := self.take("(with|without) (stripes|dots|spots)"):
            some = self.having(PATTERN[found.group(2)])
            return named & some if found.group(1) == "with" else named - some
        if self.take("not"):
            return named - self.said()
        if found := self.take("(?:furthest (?:to )?|nearest to )(?:the )?(left|right|top|bottom)"):
            return self.ranked(named, found.group(1), 1)
        if found := self.take("(?:(second|third|fourth) )?from (?:the )?(left|right|top|bottom)"):
            return self.ranked(named, found.group(2), RANK.get(found.group(1), rank))
        if found := self.take("(?:the )?(largest|smallest)"):
            return self.ranked(named, EXTREME[found.group(1)], 1)
        return named & self.said()

    def said(self) -> set[int]:
        """What has a value, is at a place, or stands in a relation."""
        for pattern, relation in RELATION:
            if found := self.take(pattern):
                (there,) = self.phrase()
                things = self.scene.things
                return {k for k in range(len(things)) if k != there and self.stands(things[k], relation(found), there)}
        for pattern, place in PLACE:
            if found := self.take(pattern):
                parts = [SAME.get(part, part) for part in place(found)]
                return {k for k, t in enumerate(self.scene.things) if all(self.lies(t, part) for part in parts)}
        self.take("a")
        word = self.word()
        return self.having(ADJECTIVE.get(word) or NOUN[PLURAL.get(word, word)])

    def stands(self, thing: Thing, relation: str, place: int) -> bool:
        there = self.scene.things[place]
        if relation == "near":
            radii = math.sqrt(thing.area / math.pi) + math.sqrt(there.area / math.pi)
            return math.dist((thing.x, thing.y), (there.x, there.y)) - radii < 0.105 + self.jolt
        by = {
            "left": there.x - thing.x, "right": thing.x - there.x,
            "above": there.y - thing.y, "below": thing.y - there.y,
        }[relation]  # fmt: skip
        return by > 0.04 + self.jolt

    def lies(self, thing: Thing, part: str) -> bool:
        x, y = thing.x / self.scene.extent[0], thing.y / self.scene.extent[1]
        limit = 0.41 + self.jolt
        if part == "middle":
            return abs(x - 0.5) < 0.19 + self.jolt and abs(y - 0.5) < 0.19 + self.jolt
        return {"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}[part] < limit

    def ranked(self, named: set[int], by: str, rank: int) -> set[int]:
        things = self.scene.things
        key = {
            "left": lambda k: things[k].x, "right": lambda k: -things[k].x, "top": lambda k: things[k].y,
            "bottom": lambda k: -things[k].y, "large": lambda k: -things[k].area, "small": lambda k: things[k].area,
        }[by]  # fmt: skip
        order = sorted(named, key=key)
        return set(order[rank - 1 : rank])


def read(text: str, scene: Scene, jolt: float = 0.0) -> set[int]:
    """The things of the scene that a sentence names."""
    return Reader(scene, text, jolt).sentence()


def head_words(text: str) -> Sequence[str]:
    """Colour and shape of what a sentence is about: the words up to its first noun, with those that trail it."""
    words = text.split()
    nouns = [k for k, word in enumerate(words) if PLURAL.get(word, word) in NOUN]
    upto = words[: nouns[0] + 1]
    trailing = re.match(r"(?:that|which) (?:is|are) (\w+)", " ".join(words[nouns[0] + 1 :]))
    upto += [trailing.group(1)] if trailing else []
    said = [ADJECTIVE.get(word) or NOUN.get(PLURAL.get(word, word)) for word in upto]
    return [word for word in said if word and word not in ("small", "medium", "large", "plain", "striped", "dotted")]
