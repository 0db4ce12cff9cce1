"""The plural and singular of English nouns."""

from __future__ import annotations

import re

ANYTHING = ("thing", "object")
"""Words for whatever there is."""
IRREGULAR = {
    **{"fish": "fish", "sheep": "sheep", "deer": "deer", "mouse": "mice", "goose": "geese", "wolf": "wolves"},
    **{"person": "people", "child": "children", "man": "men", "woman": "women"},
    **{"leaf": "leaves", "knife": "knives", "shelf": "shelves", "scarf": "scarves"},
    **{"tomato": "tomatoes", "potato": "potatoes", "hero": "heroes"},
    **{"cookie": "cookies", "brownie": "brownies", "movie": "movies"},
    **{"clothes": "clothes", "species": "species", "series": "series", "news": "news"},
    **{"lens": "lenses", "canvas": "canvases", "atlas": "atlases", "rhinoceros": "rhinoceroses"},
    "christmas": "christmases",
}
"""Plurals that no rule gives, and words whose singular none does."""


def plural_of(noun: str) -> str:
    """The plural of a noun by the usual rules."""
    *before, last = noun.split(" ")
    if last in IRREGULAR:
        ending = IRREGULAR[last]
    elif re.search(r"(s|x|z|ch|sh)$", last):
        ending = last + "es"
    elif re.search(r"[^aeiou]y$", last):
        ending = last[:-1] + "ies"
    else:
        ending = last + "s"
    return " ".join([*before, ending])


def singular_of(word: str) -> str:
    """The noun whose plural a word is, by the usual rules; a word that is no plural itself."""
    *before, last = word.split(" ")
    irregular = {plural: noun for noun, plural in IRREGULAR.items()}
    if last in IRREGULAR:
        ending = last
    elif last in irregular:
        ending = irregular[last]
    elif re.search(r"..[^aeiou]ies$", last):
        ending = last[:-3] + "y"
    elif re.search(r"(ss|[^aeo]us|x|ch|sh)es$", last):
        ending = last[:-2]
    elif re.search(r"..[^isu]s$", last):  # not bus, glass or iris
        ending = last[:-1]
    else:
        ending = last
    return " ".join([*before, ending])
