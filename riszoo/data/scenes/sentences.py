"""What to say about a scene: sentences that name exactly their targets, and cannot be had more cheaply than meant.

A sentence of a type is found by trying: a form that is true of its target is thrown, evaluated on the scene, and kept
where it names the target and nothing else, without any vagueness. Where a sentence is to need a place, a relation, an
order or a negation, its head ("the red star ...") alone must name at least two things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from riszoo.data.scenes.chance import Dice, Odds
from riszoo.data.scenes.layout import HELD_OUT, Scene
from riszoo.data.scenes.logic import (
    ASPECT,
    MEASURES,
    PLACES,
    RELATIONS,
    Both,
    Facts,
    Form,
    Kind,
    Placed,
    Ranked,
    Related,
    Without,
    bits,
    kind,
    names,
)
from riszoo.data.scenes.wording import word

SINGLE = {
    "attribute": 0.45,
    "place": 0.12,
    "relation": 0.13,
    "superlative": 0.09,
    "ordinal": 0.07,
    "negation": 0.07,
    "two-hop": 0.07,
}
"""Types of sentence that name one thing, and how often each is wanted."""

GENERAL = {**{name: 0.45 * weight for name, weight in SINGLE.items()}, "plural": 0.35, "none": 0.20}

Z, T, C, S = range(4)  # size, texture, colour, shape: their places among a thing's values
HEADS = Odds({(): 3, (S,): 6, (C,): 3, (C, S): 2, (T,): 1, (T, S): 1, (Z, S): 1})
"""Which attributes the head of a description tells, and how often."""
FULL = Odds({(C, S): 6, (S,): 1, (C,): 1, (T, S): 3, (Z, S): 3, (T, C): 1, (Z, C): 1, (T, C, S): 2, (Z, C, S): 2})
"""The same for a description by attributes alone."""
ANCHORED = Odds({"relation": 5, "superlative": 3, "place": 2})
"""How the second thing of a two-hop sentence is described."""
SEVERAL = Odds({"attribute": 7, "place": 4, "relation": 3, "negation": 3, "both": 3})
NOTHING = Odds({"attribute": 5, "place": 3, "relation": 3})

TRIES = 10
"""Forms thrown for one target before another is tried."""
PATIENCE = 50
"""Types drawn for a scene's sentences before the scene is given up."""


@dataclass(frozen=True, slots=True)
class Saying:
    """A sentence, what it means, what it names (a bit for each thing), and its type."""

    text: str
    form: Form
    things: int
    type: str

    @property
    def tags(self) -> tuple[str, ...]:
        """Its type, then the attributes its words tell, sorted."""
        values = [value for part in self.form.parts() if isinstance(part, Kind) for value in part.values]
        return self.type, *sorted({ASPECT.get(value, "shape") for value in values})


class Speaker:
    """One who sees a scene and throws dice for what to say."""

    def __init__(self, scene: Scene, dice: Dice) -> None:
        self.facts = Facts(scene)
        self.dice = dice
        self.chosen = list(bits(scene.chosen))
        self.all = range(len(scene.things))

    def say(self, count: int, mix: Odds[str]) -> list[Saying] | None:
        """So many sentences, about different targets while there are any; None where the scene does not give them."""
        sayings: dict[str, Saying] = {}
        fresh: list[int] = []
        for _ in range(PATIENCE):
            fresh = fresh or self.dice.sample(self.chosen, len(self.chosen))
            found = self._about_one_of(fresh, self.dice.draw(mix))
            if found:
                sayings.setdefault(found.text, found)
            if len(sayings) == count:
                return list(sayings.values())
        return None

    def _about_one_of(self, targets: list[int], wanted: str) -> Saying | None:
        """A sentence of a type about the first target that has one; the target is taken off the list."""
        for target in targets:
            form = self.find(wanted, target)
            if form is not None:
                targets.remove(target)
                things = form.answer(self.facts)[0]
                return Saying(self._word(form, wanted, things.bit_count()), form, things, wanted)
        return None

    def _word(self, form: Form, wanted: str, count: int) -> str:
        plural = wanted == "plural" or (wanted == "none" and self.dice.chance(0.3))
        return word(form, self.dice, plural, count)

    def find(self, wanted: str, target: int) -> Form | None:
        """A form of a type that names just what it should."""
        for _ in range(TRIES):
            form = _FORMS[wanted](self, target)
            named = names(form, self.facts) if form else None
            if named is not None and self._fits(wanted, named, target):
                return form
        return None

    def _fits(self, wanted: str, named: int, target: int) -> bool:
        if wanted == "plural":
            return 2 <= named.bit_count() <= 4 and named != self.facts.everything
        return named == (0 if wanted == "none" else 1 << target)

    def values(self, target: int, odds: Odds[tuple[int, ...]]) -> tuple[str, ...]:
        """Some of a thing's attributes."""
        values = self.facts.said[target]
        return tuple([values[aspect] for aspect in self.dice.draw(odds)])

    def head(self, target: int) -> Kind:
        """A description that fits the target and at least one other thing."""
        for _ in range(4):
            head = kind(*self.values(target, HEADS))
            if head.answer(self.facts)[0].bit_count() >= 2:
                return head
        return kind()

    def other(self, target: int) -> int:
        """Any other thing."""
        return (target + 1 + self.dice.below(len(self.all) - 1)) % len(self.all)

    def relate(self, head: Form, target: int, anchor: Form | None, there: int) -> Form | None:
        """The head in a relation that the target has to the anchor."""
        relations = [name for name in RELATIONS if self.facts.related(name, there)[0] >> target & 1]
        return Related(head, self.dice.pick(relations), anchor) if anchor and relations else None


def _attribute(speaker: Speaker, target: int) -> Form:
    return kind(*speaker.values(target, FULL))


def _place(speaker: Speaker, target: int) -> Form | None:
    places = [name for name in PLACES if speaker.facts.placed(name)[0] >> target & 1]
    return Placed(speaker.head(target), speaker.dice.pick(places)) if places else None


def _relation(speaker: Speaker, target: int) -> Form | None:
    there = speaker.other(target)
    anchor = speaker.find("attribute", there)
    return speaker.relate(speaker.head(target), target, anchor, there)


def _two_hop(speaker: Speaker, target: int) -> Form | None:
    there = speaker.other(target)
    anchor = speaker.find(speaker.dice.draw(ANCHORED), there)
    return speaker.relate(speaker.head(target), target, anchor, there)


def _superlative(speaker: Speaker, target: int) -> Form:
    return Ranked(speaker.head(target), speaker.dice.pick(tuple(MEASURES)))


def _ordinal(speaker: Speaker, target: int) -> Form | None:
    head, name = speaker.head(target), speaker.dice.pick(tuple(MEASURES))
    things, measure = speaker.facts.things, MEASURES[name][0]
    mine = measure(things[target])
    rank = 1 + sum(measure(things[other]) < mine for other in bits(head.answer(speaker.facts)[0]))
    return Ranked(head, name, rank) if 2 <= rank <= 4 else None


def _negation(speaker: Speaker, target: int) -> Form | None:
    """The head without what another thing of it is, or without where another thing of it lies."""
    head = speaker.head(target)
    other = speaker.dice.pick(list(bits(head.answer(speaker.facts)[0])))
    if speaker.dice.chance(0.8):
        return Without(head, speaker.facts.said[other][speaker.dice.pick((T, C, C, S))])
    places = [name for name in PLACES if speaker.facts.placed(name)[0] >> other & 1]
    return Without(head, speaker.dice.pick(places)) if places else None


def _both(speaker: Speaker, target: int) -> Form | None:
    first, second = speaker.find("attribute", target), speaker.find("attribute", speaker.other(target))
    return Both(first, second) if first and second else None


def _plural(speaker: Speaker, target: int) -> Form | None:
    wanted = speaker.dice.draw(SEVERAL)
    return kind(*speaker.values(target, HEADS)) if wanted == "attribute" else _FORMS[wanted](speaker, target)


def _none(speaker: Speaker, target: int) -> Form | None:
    """Something like what there is: attributes of two things mixed, or one sought where it is not."""
    wanted, other = speaker.dice.draw(NOTHING), speaker.other(target)
    if wanted == "attribute":
        here, there = speaker.facts.things[target], speaker.facts.things[other]
        mixed = here.texture, here.colour, there.shape
        return None if mixed[1:][::-1] in HELD_OUT else kind(*mixed[speaker.dice.below(2) :])
    head = kind(*speaker.values(target, FULL))
    if wanted == "place":
        return Placed(head, speaker.dice.pick(tuple(PLACES)))
    anchor = speaker.find("attribute", other)
    return Related(head, speaker.dice.pick(tuple(RELATIONS)), anchor) if anchor else None


_FORMS: Mapping[str, Callable[[Speaker, int], Form | None]] = {
    "attribute": _attribute,
    "place": _place,
    "relation": _relation,
    "superlative": _superlative,
    "ordinal": _ordinal,
    "negation": _negation,
    "two-hop": _two_hop,
    "both": _both,
    "plural": _plural,
    "none": _none,
}
