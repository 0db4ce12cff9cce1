"""Meanings put into words, each in several ways.

All words a sentence can hold stand in the tables of this file. What follows a noun belongs to the noun just before
it: "the star left of the ring above the heart" has the ring above the heart.
"""

from __future__ import annotations

from riszoo.data.scenes.chance import Dice
from riszoo.data.scenes.layout import COLOURS
from riszoo.data.scenes.logic import Both, Form, Kind, Placed, Ranked, Related, Without

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

BRIEF = 0.22
"""How often a sentence leaves out its articles."""
AFTER = 0.2
"""How often an attribute follows its noun where it may."""


def word(form: Form, dice: Dice, plural: bool = False, count: int = 0) -> str:
    """A sentence for a form; a plural one may say how many things it names, where a count is given."""
    if isinstance(form, Both):
        text = AND.join(THE + _phrase(part, dice) for part in (form.first, form.second))
    elif plural:
        text = dice.pick(MANY + COUNTED.get(count, ())) + _phrase(form, dice, plural)
    else:
        text = THE + _phrase(form, dice)
    return text.replace(THE, "") if dice.chance(BRIEF) else text


def _phrase(form: Form, dice: Dice, plural: bool = False, last: bool = True) -> str:
    """A form without its article; `last` where nothing follows that could belong to another noun."""
    match form:
        case Kind(values):
            return _kind(values, dice, plural, last)
        case Without(of, value):
            return f"{_phrase(of, dice, plural, False)} {_lacking(value, dice, plural)}"
        case Placed(of, place):
            return f"{_phrase(of, dice, plural, False)} {dice.pick(CLAUSE[plural])}{dice.pick(PLACED[place])}"
        case Related(of, relation, anchor):
            link = dice.pick(CLAUSE[plural]) + dice.pick(RELATED[relation])
            return f"{_phrase(of, dice, plural, False)} {link} {THE}{_phrase(anchor, dice)}"
        case Ranked(of, measure, 1):
            return dice.pick(FIRST[measure]).format(_phrase(of, dice, last=False))
        case Ranked(of, measure, rank):
            return dice.pick(LATER[measure]).format(_phrase(of, dice, last=False), rank=RANKS[rank])
    raise TypeError(f"no words for {form!r}")


def _kind(values: tuple[str, ...], dice: Dice, plural: bool, last: bool) -> str:
    """Adjectives and a noun: "small red star"; where it may be, the last adjective follows: "star that is red"."""
    *adjectives, noun = values if values and values[-1] in NOUNS else (*values, "")
    after = adjectives.pop() if adjectives and last and dice.chance(AFTER) else ""
    said = [dice.pick(ADJECTIVES.get(value, (value,))) for value in adjectives]
    said.append(_noun(noun, dice, plural))
    if after in WITH:
        said.append(dice.pick(WITH[after]))
    elif after:
        said.append(dice.pick(CLAUSE[plural][-2:]) + dice.pick(ADJECTIVES.get(after, (after,))))
    return " ".join(said)


def _noun(shape: str, dice: Dice, plural: bool) -> str:
    noun = dice.pick(NOUNS[shape])
    return PLURALS.get(noun, noun + "s") if plural else noun


def _lacking(value: str, dice: Dice, plural: bool) -> str:
    if value in LACKING and dice.chance(AFTER):
        return dice.pick(LACKING[value])
    if value in PLACED:
        what = dice.pick(PLACED[value])
    elif value in NOUNS:
        what = ("" if plural else ONE) + _noun(value, dice, plural)
    else:
        what = dice.pick(ADJECTIVES.get(value, (value,)))
    return dice.pick(NOT[plural]) + what


def vocabulary() -> list[str]:
    """Every word a sentence can hold, sorted."""
    spoken = (NOUNS, ADJECTIVES, WITH, PLACED, RELATED, FIRST, LATER, CLAUSE, NOT, LACKING, COUNTED)
    texts = [text for table in spoken for wordings in table.values() for text in wordings]
    nouns = [noun for wordings in NOUNS.values() for noun in wordings]
    texts += [*COLOURS, *MANY, *RANKS.values(), *(PLURALS.get(noun, noun + "s") for noun in nouns), THE, ONE, AND]
    return sorted({found for text in texts for found in text.split() if "{" not in found})
