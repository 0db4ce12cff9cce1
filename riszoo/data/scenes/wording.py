"""English sentences for logical forms, with several wordings for each.

The tables of this file contain every word of a sentence. A phrase belongs to the noun just before it: in "the star left
of the ring above the heart" the ring is above the heart.
"""

from __future__ import annotations

from riszoo.data.scenes.layout import COLOURS
from riszoo.data.scenes.logic import Both, Form, Kind, Placed, Ranked, Related, Without
from riszoo.data.scenes.rng import RandomStream

NOUNS = {
    "circle": ("circle", "circle", "circle", "disc"),
    "ring": ("ring",),
    "heart": ("heart",),
    "moon": ("moon", "moon", "moon", "crescent"),
    "square": ("square", "square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "cross", "cross", "plus"),
    "": ("thing", "object", "shape"),
}
PLURALS = {"box": "boxes", "cross": "crosses", "plus": "pluses"}

ADJECTIVES = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium",),
    "large": ("large", "large", "big"),
    "plain": ("plain", "plain", "solid"),
    "striped": ("striped",),
    "dotted": ("dotted", "dotted", "spotted"),
}
WITH = {"striped": ("with stripes",), "dotted": ("with dots", "with spots")}

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
LACKING = {"striped": ("without stripes",), "dotted": ("without dots", "without spots")}
MANY = ("the ", "all the ", "all ", "")
COUNTED = {2: ("both ", "the two "), 3: ("the three ",), 4: ("the four ",)}
THE, ONE, AND = "the ", "a ", " and "

NO_ARTICLES = 0.22
"""Probability that a sentence has no articles."""
ATTRIBUTE_AFTER = 0.2
"""Probability that an attribute follows its noun where that is possible."""


def sentence_for(form: Form, rng: RandomStream, plural: bool = False, count: int = 0) -> str:
    """A sentence for a form; in the plural it may contain the number of things, if `count` is given."""
    if isinstance(form, Both):
        text = AND.join(THE + _phrase(part, rng) for part in (form.first, form.second))
    elif plural:
        text = rng.pick(MANY + COUNTED.get(count, ())) + _phrase(form, rng, plural)
    else:
        text = THE + _phrase(form, rng)
    return text.replace(THE, "") if rng.chance(NO_ARTICLES) else text


def _phrase(form: Form, rng: RandomStream, plural: bool = False, last: bool = True) -> str:
    """A form without its article; `last` if no phrase follows that would then belong to another noun."""
    match form:
        case Kind(values):
            return _kind(values, rng, plural, last)
        case Without(of, value):
            return f"{_phrase(of, rng, plural, False)} {_lacking(value, rng, plural)}"
        case Placed(of, place):
            return f"{_phrase(of, rng, plural, False)} {rng.pick(CLAUSE[plural])}{rng.pick(PLACED[place])}"
        case Related(of, relation, anchor):
            link = rng.pick(CLAUSE[plural]) + rng.pick(RELATED[relation])
            return f"{_phrase(of, rng, plural, False)} {link} {THE}{_phrase(anchor, rng)}"
        case Ranked(of, measure, 1):
            return rng.pick(FIRST[measure]).format(_phrase(of, rng, last=False))
        case Ranked(of, measure, rank):
            return rng.pick(LATER[measure]).format(_phrase(of, rng, last=False), rank=RANKS[rank])
    raise TypeError(f"no words for {form!r}")


def _kind(values: tuple[str, ...], rng: RandomStream, plural: bool, last: bool) -> str:
    """Adjectives and a noun ("small red star"); where possible the last adjective may follow ("star that is red")."""
    *adjectives, noun = values if values and values[-1] in NOUNS else (*values, "")
    after = adjectives.pop() if adjectives and last and rng.chance(ATTRIBUTE_AFTER) else ""
    words = [rng.pick(ADJECTIVES.get(value, (value,))) for value in adjectives]
    words.append(_noun(noun, rng, plural))
    if after in WITH:
        words.append(rng.pick(WITH[after]))
    elif after:
        words.append(rng.pick(CLAUSE[plural][-2:]) + rng.pick(ADJECTIVES.get(after, (after,))))
    return " ".join(words)


def _noun(shape: str, rng: RandomStream, plural: bool) -> str:
    noun = rng.pick(NOUNS[shape])
    return PLURALS.get(noun, noun + "s") if plural else noun


def _lacking(value: str, rng: RandomStream, plural: bool) -> str:
    if value in LACKING and rng.chance(ATTRIBUTE_AFTER):
        return rng.pick(LACKING[value])
    if value in PLACED:
        what = rng.pick(PLACED[value])
    elif value in NOUNS:
        what = ("" if plural else ONE) + _noun(value, rng, plural)
    else:
        what = rng.pick(ADJECTIVES.get(value, (value,)))
    return rng.pick(NOT[plural]) + what


def vocabulary() -> list[str]:
    """Every word that can occur in a sentence, sorted."""
    tables = (NOUNS, ADJECTIVES, WITH, PLACED, RELATED, FIRST, LATER, CLAUSE, NOT, LACKING, COUNTED)
    texts = [text for table in tables for wordings in table.values() for text in wordings]
    nouns = [noun for wordings in NOUNS.values() for noun in wordings]
    texts += [*COLOURS, *MANY, *RANKS.values(), *(PLURALS.get(noun, noun + "s") for noun in nouns), THE, ONE, AND]
    return sorted({found for text in texts for found in text.split() if "{" not in found})
