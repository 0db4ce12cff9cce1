"""How the things of a collage are described, by their nouns and kinds, and which types of sentence its splits have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from riszoo.data.collage.layout import Collage
from riszoo.data.collage.nouns import ANYTHING
from riszoo.data.generated.logic import Form, Kind, kind
from riszoo.data.generated.phrases import NOT, PLACED, Wording, words_of
from riszoo.data.generated.rng import RandomStream, WeightedChoices
from riszoo.data.generated.sampling import FormSampler

SINGLE = {
    "attribute": 0.24,
    "place": 0.18,
    "relation": 0.18,
    "superlative": 0.12,
    "ordinal": 0.10,
    "negation": 0.10,
    "two-hop": 0.08,
}
"""Types of sentence that name one thing, with their shares; `attribute` is a noun or a kind alone."""

GENERAL = {**{name: 0.45 * weight for name, weight in SINGLE.items()}, "plural": 0.35, "none": 0.20}

DESCRIBED = WeightedChoices({"noun": 7, "kind": 3})
GROUPED = WeightedChoices({"noun": 5, "kind": 4, "thing": 3})
VOWELS = "aeiouAEIOU"


class CollageWording(Wording):
    """Things are called by a noun or one of its kinds."""

    def __init__(self, plurals: Mapping[str, str]) -> None:
        self.plurals = plurals

    def noun_phrase(self, values: tuple[str, ...], rng: RandomStream, plural: bool, last: bool) -> str:
        word = values[0] if values else rng.pick(ANYTHING)
        return self._plural(word) if plural else word

    def lacking(self, value: str, rng: RandomStream, plural: bool) -> str:
        if value in PLACED:
            return rng.pick(NOT[plural]) + rng.pick(PLACED[value])
        return rng.pick(NOT[plural]) + (self._plural(value) if plural else with_article(value))

    def _plural(self, word: str) -> str:
        return self.plurals.get(word, word + "s")

    def vocabulary(self) -> list[str]:
        """Every word that can occur in a sentence, sorted."""
        return words_of(
            [*ANYTHING, *(self._plural(word) for word in ANYTHING), *self.plurals, *self.plurals.values(), "a an"]
        )


def with_article(word: str) -> str:
    """A noun with its indefinite article."""
    return ("an " if word[0] in VOWELS else "a ") + word


class CollageSampler(FormSampler):
    """Draws sentences about things with nouns and kinds.

    `nouns` are those that a sentence may seek in vain, each with its kinds. `balanced` asks first about the things that
    few sentences name: otherwise most are about the same ones, and a reader who skips the sentence guesses well.
    """

    def __init__(
        self,
        scene: Collage,
        rng: RandomStream,
        wording: CollageWording,
        nouns: Mapping[str, Sequence[str]],
        balanced: bool = False,
    ) -> None:
        super().__init__(scene, rng)
        self.wording = wording
        self.nouns = nouns
        self.balanced = balanced

    def order(self) -> list[int]:
        return sorted(super().order(), key=self._ways.__getitem__) if self.balanced else super().order()

    @cached_property
    def _ways(self) -> dict[int, int]:
        """The number of types of sentence for which one about a thing is found."""
        return {target: sum(self.find(name, target) is not None for name in SINGLE) for target in self.chosen}

    def description(self, target: int) -> Kind:
        return self._named(target, DESCRIBED)

    def group(self, target: int) -> Kind:
        return self._named(target, GROUPED)

    def distinction(self, head: Kind, other: int) -> str:
        """A name of the other thing that is narrower than the head."""
        names = self.facts.attributes[other]
        narrower = names[: names.index(head.values[0])] if head.values else names
        return self.rng.pick(narrower or names)

    def missing(self, target: int, other: int) -> Kind | None:
        """A noun of the target's kind that no thing has."""
        kinds = self.facts.attributes[target][1:2]
        kin = [noun for noun, own in self.nouns.items() if tuple(own[:1]) == kinds and not self.facts.having[noun]]
        return kind(self.rng.pick(kin)) if kin else None

    def aspects(self, form: Form) -> set[str]:
        values = [part.values[0] for part in form.parts() if isinstance(part, Kind) and part.values]
        return {_aspect(value, self.nouns) for value in values}

    def _named(self, target: int, choices: WeightedChoices[str]) -> Kind:
        noun, *kinds = self.facts.attributes[target]
        choice = self.rng.draw(choices)
        if choice == "thing":
            return kind()
        return kind(self.rng.pick(kinds) if choice == "kind" and kinds else noun)


def _aspect(word: str, nouns: Collection[str]) -> str:
    return "noun" if word in nouns else "kind"
