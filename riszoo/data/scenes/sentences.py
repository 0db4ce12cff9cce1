"""How the things of a scene are described, and which types of sentence its splits have."""

from __future__ import annotations

from riszoo.data.generated.logic import Form, Kind, kind
from riszoo.data.generated.rng import WeightedChoices
from riszoo.data.generated.sampling import FormSampler
from riszoo.data.scenes.layout import COLOURS, HELD_OUT, SIZES, TEXTURES
from riszoo.data.scenes.wording import SceneWording

SINGLE = {
    "attribute": 0.45,
    "place": 0.12,
    "relation": 0.13,
    "superlative": 0.09,
    "ordinal": 0.07,
    "negation": 0.07,
    "two-hop": 0.07,
}
"""Types of sentence that name one thing, with their shares."""

GENERAL = {**{name: 0.45 * weight for name, weight in SINGLE.items()}, "plural": 0.35, "none": 0.20}

SPATIAL = {"place": 0.30, "relation": 0.25, "superlative": 0.15, "attribute": 0.30}
"""Types of sentence of a training set in which attributes alone do not get far."""

Z, T, C, S = range(4)  # size, texture, colour, shape: their indices in a thing's values
HEADS = WeightedChoices({(): 3, (S,): 6, (C,): 3, (C, S): 2, (T,): 1, (T, S): 1, (Z, S): 1})
"""The attributes in the head of a description, with weights."""
FULL = WeightedChoices(
    {(C, S): 6, (S,): 1, (C,): 1, (T, S): 3, (Z, S): 3, (T, C): 1, (Z, C): 1, (T, C, S): 2, (Z, C, S): 2}
)
"""The same for a description by attributes only."""

ASPECT = {
    **dict.fromkeys(COLOURS, "colour"),
    **dict.fromkeys(TEXTURES, "texture"),
    **dict.fromkeys(SIZES, "size"),
}
"""The attribute that a word describes; any other word is a shape."""


class SentenceSampler(FormSampler):
    """Draws sentences about things with size, texture, colour and shape."""

    wording = SceneWording()

    def description(self, target: int) -> Kind:
        return self._attributes(target, FULL)

    def group(self, target: int) -> Kind:
        return self._attributes(target, HEADS)

    def distinction(self, head: Kind, other: int) -> str:
        return self.facts.attributes[other][self.rng.pick((T, C, C, S))]

    def missing(self, target: int, other: int) -> Kind | None:
        """Texture and colour of one thing, the shape of another; no combination that training never shows."""
        _, texture, colour, _ = self.facts.attributes[target]
        mixed = texture, colour, self.facts.attributes[other][S]
        return None if mixed[1:][::-1] in HELD_OUT else kind(*mixed[self.rng.below(2) :])

    def aspects(self, form: Form) -> set[str]:
        values = [value for part in form.parts() if isinstance(part, Kind) for value in part.values]
        return {ASPECT.get(value, "shape") for value in values}

    def _attributes(self, target: int, choices: WeightedChoices[tuple[int, ...]]) -> Kind:
        values = self.facts.attributes[target]
        return kind(*[values[aspect] for aspect in self.rng.draw(choices)])
