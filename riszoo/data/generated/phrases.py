"""English phrases for logical forms, with several wordings for each.

A phrase belongs to the noun just before it: in "the star left of the ring above the heart" the ring is above the heart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from riszoo.data.generated.logic import Both, Form, Kind, Placed, Ranked, Related, Without
from riszoo.data.generated.rng import RandomStream

PLACED = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top", "in the upper part"),
    "bottom": ("at the bottom", "in the lower part"),
    "top left": ("in the top left", "in the top left corner", "in the upper left"),
    "top right": ("in the top right", "in the top right corner", "in the upper right"),
    "bottom left": ("in the bottom left", "in the bottom left corner", "in the lower left"),
    "bottom right": ("in the bottom right", "in the bottom right corner", "in the lower right"),
    "middle": ("in the middle", "in the center", "in the middle of the picture"),
}
RELATED = {
    "left of": ("left of", "to the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right side of"),
    "above": ("above", "higher than"),
    "below": ("below", "under", "lower than"),
    "near": ("near", "next to", "close to", "beside"),
}
FIRST = {
    "left": ("leftmost {}", "{} furthest to the left", "{} that is furthest left"),
    "right": ("rightmost {}", "{} furthest to the right", "{} that is furthest right"),
    "top": ("topmost {}", "highest {}", "{} nearest to the top"),
    "bottom": ("bottommost {}", "lowest {}", "{} nearest to the bottom"),
    "large": ("largest {}", "biggest {}", "{} that is the largest"),
    "small": ("smallest {}", "{} that is the smallest"),
}
LATER = {
    "left": ("{rank} {} from the left", "{} that is {rank} from the left"),
    "right": ("{rank} {} from the right", "{} that is {rank} from the right"),
    "top": ("{rank} {} from the top", "{} that is {rank} from the top"),
    "bottom": ("{rank} {} from the bottom", "{} that is {rank} from the bottom"),
    "large": ("{rank} largest {}", "{rank} biggest {}"),
    "small": ("{rank} smallest {}",),
}
RANKS = {2: "second", 3: "third", 4: "fourth"}
CLAUSE = {False: ("", "", "that is ", "which is "), True: ("", "", "that are ", "which are ")}
NOT = {False: ("that is not ", "which is not ", "not "), True: ("that are not ", "which are not ", "not ")}
MANY = ("the ", "all the ", "all ", "")
COUNTED = {2: ("both ", "the two "), 3: ("the three ",), 4: ("the four ",)}
THE, AND = "the ", " and "

NO_ARTICLES = 0.22
"""Probability that a sentence has no articles."""


class Wording(ABC):
    """Puts forms into words. A data set adds how its things are called."""

    @abstractmethod
    def noun_phrase(self, values: tuple[str, ...], rng: RandomStream, plural: bool, last: bool) -> str:
        """The words of a `Kind`, without an article; `last` if nothing follows them."""

    @abstractmethod
    def lacking(self, value: str, rng: RandomStream, plural: bool) -> str:
        """What follows a noun to say that a word or a place is not true of it."""

    def sentence(self, form: Form, rng: RandomStream, plural: bool = False, count: int = 0) -> str:
        """A sentence for a form; in the plural it may contain the number of things, if `count` is given."""
        if isinstance(form, Both):
            text = AND.join(THE + self._phrase(part, rng) for part in (form.first, form.second))
        elif plural:
            text = rng.pick(MANY + COUNTED.get(count, ())) + self._phrase(form, rng, plural)
        else:
            text = THE + self._phrase(form, rng)
        return text.replace(THE, "") if rng.chance(NO_ARTICLES) else text

    def _phrase(self, form: Form, rng: RandomStream, plural: bool = False, last: bool = True) -> str:
        """A form without its article; `last` if no phrase follows that would then belong to another noun."""
        match form:
            case Kind(values):
                return self.noun_phrase(values, rng, plural, last)
            case Without(of, value):
                return f"{self._phrase(of, rng, plural, False)} {self.lacking(value, rng, plural)}"
            case Placed(of, place):
                return f"{self._phrase(of, rng, plural, False)} {rng.pick(CLAUSE[plural])}{rng.pick(PLACED[place])}"
            case Related(of, relation, anchor):
                link = rng.pick(CLAUSE[plural]) + rng.pick(RELATED[relation])
                return f"{self._phrase(of, rng, plural, False)} {link} {THE}{self._phrase(anchor, rng)}"
            case Ranked(of, measure, 1):
                return rng.pick(FIRST[measure]).format(self._phrase(of, rng, last=False))
            case Ranked(of, measure, rank):
                return rng.pick(LATER[measure]).format(self._phrase(of, rng, last=False), rank=RANKS[rank])
        raise TypeError(f"no words for {form!r}")


def words_of(texts: Iterable[str]) -> list[str]:
    """Every word of the texts and of the phrases of this file, sorted; the slots of a text are left out."""
    tables = (PLACED, RELATED, FIRST, LATER, CLAUSE, NOT, COUNTED)
    phrases = [text for table in tables for wordings in table.values() for text in wordings]
    all_texts = [*texts, *phrases, *MANY, *RANKS.values(), THE, AND]
    return sorted({word for text in all_texts for word in text.split() if "{" not in word})
