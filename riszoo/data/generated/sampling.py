"""Random sentences about a scene that name exactly their targets.

A sentence of a type is found by rejection sampling: a random form that is true of its target is evaluated on the scene,
and kept if it names the target and nothing else without any unclear case. In a sentence with a place, relation, order
or negation, the head ("the red star ...") alone must name at least two things, so that the rest is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from riszoo.data.generated.logic import (
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
    Scene,
    Without,
    bits,
    kind,
    names,
)
from riszoo.data.generated.phrases import Wording
from riszoo.data.generated.rng import RandomStream, WeightedChoices

DESCRIPTION = "attribute"
"""The type of a sentence without place, relation, order or negation."""
ANCHORED = WeightedChoices({"relation": 5, "superlative": 3, "place": 2})
"""Types of the description of the second thing in a two-hop sentence."""
PLURAL = WeightedChoices({DESCRIPTION: 7, "place": 4, "relation": 3, "negation": 3, "both": 3})
NO_TARGET = WeightedChoices({DESCRIPTION: 5, "place": 3, "relation": 3})

MAX_TRIES = 10
"""Forms drawn for one target before the next one is tried."""
MAX_DRAWS = 50
"""Types drawn for the sentences of a scene before the scene is discarded."""


@dataclass(frozen=True, slots=True)
class SceneSentence:
    """A sentence with its logical form, the things it names (one bit each), and its type, which is its first tag."""

    text: str
    form: Form
    things: int
    tags: tuple[str, ...]

    @property
    def sentence_type(self) -> str:
        return self.tags[0]


class FormSampler(ABC):
    """Draws sentences about a scene. A data set says how its things are described."""

    wording: Wording

    def __init__(self, scene: Scene, rng: RandomStream) -> None:
        self.facts = Facts(scene)
        self.rng = rng
        self.chosen = list(bits(scene.chosen))
        self.all = range(len(scene.things))

    @abstractmethod
    def description(self, target: int) -> Kind:
        """Random words that are true of a thing, and of few others."""

    @abstractmethod
    def group(self, target: int) -> Kind:
        """Random words that are true of a thing, and of many others."""

    @abstractmethod
    def distinction(self, head: Kind, other: int) -> str:
        """A word that is true of another thing that the head names."""

    @abstractmethod
    def missing(self, target: int, other: int) -> Kind | None:
        """Words like those of two things, that may be true of no thing."""

    def aspects(self, form: Form) -> set[str]:
        """What the words of a form describe: the tags of a sentence beside its type."""
        return set()

    def order(self) -> list[int]:
        """The things that may be targets, in the order in which a sentence is looked for."""
        return self.rng.sample(self.chosen, len(self.chosen))

    def sample(self, count: int, mix: WeightedChoices[str]) -> list[SceneSentence] | None:
        """`count` sentences, about different targets as far as possible; None if the scene does not allow as many."""
        sentences: dict[str, SceneSentence] = {}
        fresh: list[int] = []
        for _ in range(MAX_DRAWS):
            fresh = fresh or self.order()
            found = self._about_one_of(fresh, self.rng.draw(mix))
            if found:
                sentences.setdefault(found.text, found)
            if len(sentences) == count:
                return list(sentences.values())
        return None

    def _about_one_of(self, targets: list[int], sentence_type: str) -> SceneSentence | None:
        """A sentence of a type about the first target for which one is found; removes the target from the list."""
        for target in targets:
            form = self.find(sentence_type, target)
            if form is not None:
                targets.remove(target)
                things = form.answer(self.facts)[0]
                text = self._text(form, sentence_type, things.bit_count())
                return SceneSentence(text, form, things, (sentence_type, *sorted(self.aspects(form))))
        return None

    def _text(self, form: Form, sentence_type: str, count: int) -> str:
        plural = sentence_type == "plural" or (sentence_type == "none" and self.rng.chance(0.3))
        return self.wording.sentence(form, self.rng, plural, count)

    def find(self, sentence_type: str, target: int) -> Form | None:
        """A form of a type that names exactly what it should."""
        for _ in range(MAX_TRIES):
            form = _FORMS[sentence_type](self, target)
            named = names(form, self.facts) if form else None
            if named is not None and self._fits(sentence_type, named, target):
                return form
        return None

    def _fits(self, sentence_type: str, named: int, target: int) -> bool:
        if sentence_type == "plural":
            return 2 <= named.bit_count() <= 4 and named != self.facts.everything
        return named == (0 if sentence_type == "none" else 1 << target)

    def head(self, target: int) -> Kind:
        """A description that names the target and at least one other thing."""
        for _ in range(4):
            head = self.group(target)
            if head.answer(self.facts)[0].bit_count() >= 2:
                return head
        return kind()

    def other(self, target: int) -> int:
        """Any other thing."""
        return (target + 1 + self.rng.below(len(self.all) - 1)) % len(self.all)

    def relate(self, head: Form, target: int, anchor: Form | None, there: int) -> Form | None:
        """The head in a random relation that the target has to the anchor."""
        relations = [name for name in RELATIONS if self.facts.related(name, there)[0] >> target & 1]
        return Related(head, self.rng.pick(relations), anchor) if anchor and relations else None


def _description(sampler: FormSampler, target: int) -> Form:
    return sampler.description(target)


def _place(sampler: FormSampler, target: int) -> Form | None:
    places = [name for name in PLACES if sampler.facts.placed(name)[0] >> target & 1]
    return Placed(sampler.head(target), sampler.rng.pick(places)) if places else None


def _relation(sampler: FormSampler, target: int) -> Form | None:
    there = sampler.other(target)
    anchor = sampler.find(DESCRIPTION, there)
    return sampler.relate(sampler.head(target), target, anchor, there)


def _two_hop(sampler: FormSampler, target: int) -> Form | None:
    there = sampler.other(target)
    anchor = sampler.find(sampler.rng.draw(ANCHORED), there)
    return sampler.relate(sampler.head(target), target, anchor, there)


def _superlative(sampler: FormSampler, target: int) -> Form:
    return Ranked(sampler.head(target), sampler.rng.pick(tuple(MEASURES)))


def _ordinal(sampler: FormSampler, target: int) -> Form | None:
    head, name = sampler.head(target), sampler.rng.pick(tuple(MEASURES))
    things, measure = sampler.facts.things, MEASURES[name][0]
    mine = measure(things[target])
    rank = 1 + sum(measure(things[other]) < mine for other in bits(head.answer(sampler.facts)[0]))
    return Ranked(head, name, rank) if 2 <= rank <= 4 else None


def _negation(sampler: FormSampler, target: int) -> Form | None:
    """The head without a word or the place of another thing that the head names."""
    head = sampler.head(target)
    other = sampler.rng.pick(list(bits(head.answer(sampler.facts)[0])))
    if sampler.rng.chance(0.8):
        return Without(head, sampler.distinction(head, other))
    places = [name for name in PLACES if sampler.facts.placed(name)[0] >> other & 1]
    return Without(head, sampler.rng.pick(places)) if places else None


def _both(sampler: FormSampler, target: int) -> Form | None:
    first, second = sampler.find(DESCRIPTION, target), sampler.find(DESCRIPTION, sampler.other(target))
    return Both(first, second) if first and second else None


def _plural(sampler: FormSampler, target: int) -> Form | None:
    sentence_type = sampler.rng.draw(PLURAL)
    return sampler.group(target) if sentence_type == DESCRIPTION else _FORMS[sentence_type](sampler, target)


def _none(sampler: FormSampler, target: int) -> Form | None:
    """Something like what exists: words of two things mixed, or one sought where it is not."""
    sentence_type, other = sampler.rng.draw(NO_TARGET), sampler.other(target)
    if sentence_type == DESCRIPTION:
        return sampler.missing(target, other)
    head = sampler.description(target)
    if sentence_type == "place":
        return Placed(head, sampler.rng.pick(tuple(PLACES)))
    anchor = sampler.find(DESCRIPTION, other)
    return Related(head, sampler.rng.pick(tuple(RELATIONS)), anchor) if anchor else None


_FORMS: Mapping[str, Callable[[FormSampler, int], Form | None]] = {
    DESCRIPTION: _description,
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
