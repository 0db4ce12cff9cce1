"""A reader of the sentences of `collage`: as that of `scenes`, with nouns and kinds in place of attributes."""

from __future__ import annotations

from dataclasses import dataclass, field

from riszoo.data.collage.layout import Collage
from tests.support.scene_reader import Reader


@dataclass
class CollageReader(Reader):
    """`singular` maps every form of a noun or kind to its singular; "" is any thing."""

    singular: dict[str, str] = field(default_factory=dict)

    def nouns(self) -> set[int]:
        word = next(word for word in self.longest() if self.take(word))
        return self.having(self.singular[word]) if self.singular[word] else set(range(len(self.scene.things)))

    def longest(self) -> list[str]:
        return sorted(self.singular, key=len, reverse=True)

    def having(self, *values: str) -> set[int]:
        return {k for k, thing in enumerate(self.scene.things) if {*values} <= {*thing.values}}

    def said(self) -> set[int]:
        if self.take("an|a") or any(self.left == word or self.left.startswith(f"{word} ") for word in self.singular):
            return self.nouns()
        return super().said()


def read(text: str, scene: Collage, plurals: dict[str, str], jolt: float = 0.0) -> set[int]:
    """The things of the collage that a sentence names."""
    singular = {"thing": "", "things": "", "object": "", "objects": ""}
    for word, plural in plurals.items():
        singular |= {word: word, plural: word}
    return CollageReader(scene, text, jolt, singular).sentence()  # type: ignore[arg-type]
