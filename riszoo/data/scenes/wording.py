"""The words for the things of a scene; with the shared phrases, every word of a sentence."""

from __future__ import annotations

from riszoo.data.generated.phrases import CLAUSE, NOT, PLACED, Wording, words_of
from riszoo.data.generated.rng import RandomStream
from riszoo.data.scenes.layout import COLOURS

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
LACKING = {"striped": ("without stripes",), "dotted": ("without dots", "without spots")}
ONE = "a "

ATTRIBUTE_AFTER = 0.2
"""Probability that an attribute follows its noun where that is possible."""


class SceneWording(Wording):
    """Things are shapes with size, texture and colour."""

    def noun_phrase(self, values: tuple[str, ...], rng: RandomStream, plural: bool, last: bool) -> str:
        """Adjectives and a noun ("small red star"); where possible the last adjective may follow."""
        *adjectives, noun = values if values and values[-1] in NOUNS else (*values, "")
        after = adjectives.pop() if adjectives and last and rng.chance(ATTRIBUTE_AFTER) else ""
        words = [rng.pick(ADJECTIVES.get(value, (value,))) for value in adjectives]
        words.append(_noun(noun, rng, plural))
        if after in WITH:
            words.append(rng.pick(WITH[after]))
        elif after:
            words.append(rng.pick(CLAUSE[plural][-2:]) + rng.pick(ADJECTIVES.get(after, (after,))))
        return " ".join(words)

    def lacking(self, value: str, rng: RandomStream, plural: bool) -> str:
        if value in LACKING and rng.chance(ATTRIBUTE_AFTER):
            return rng.pick(LACKING[value])
        if value in PLACED:
            what = rng.pick(PLACED[value])
        elif value in NOUNS:
            what = ("" if plural else ONE) + _noun(value, rng, plural)
        else:
            what = rng.pick(ADJECTIVES.get(value, (value,)))
        return rng.pick(NOT[plural]) + what


def _noun(shape: str, rng: RandomStream, plural: bool) -> str:
    noun = rng.pick(NOUNS[shape])
    return PLURALS.get(noun, noun + "s") if plural else noun


def vocabulary() -> list[str]:
    """Every word that can occur in a sentence, sorted."""
    tables = (NOUNS, ADJECTIVES, WITH, LACKING)
    texts = [text for table in tables for wordings in table.values() for text in wordings]
    nouns = [noun for wordings in NOUNS.values() for noun in wordings]
    return words_of([*texts, *COLOURS, *(PLURALS.get(noun, noun + "s") for noun in nouns), ONE])
