"""The splits of the collage data set.

train, val        images and sentences from one distribution
testA, testB      by kind of object, as in RefCOCO: targets of testA are animals, those of testB anything else, with one
                  of the other as a distractor
unseen            targets have nouns that no other split contains, with a seen one as a distractor
general           sentences that name one thing, several, or none
general-train     the same distribution, for training

Each split has its own random stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from riszoo.data.collage.layout import Collage, Pool, make_collage
from riszoo.data.collage.library import Library, find_folder, open_library
from riszoo.data.collage.render import CollageRendering, photographs
from riszoo.data.collage.sentences import GENERAL, SINGLE, CollageSampler, CollageWording
from riszoo.data.generated.rng import RandomStream, WeightedChoices
from riszoo.data.generated.split import GeneratedSplit, Plan, Size
from riszoo.errors import UserError
from riszoo.files import states_hash

VERSION = "2"
"""Version of compositions, sentences and pixels: raised with every change that shows in an image or a sentence."""

ANIMAL = "animal"
LEAST_NOUNS = 2

PoolName = Literal["seen", "animals", "others", "unseen"]


@dataclass(frozen=True)
class CollagePlan(Plan):
    """The contents of a split. `counts` are the least and the greatest number of things, distractors not counted.

    `balanced` is that of `CollageSampler`.
    """

    mix: WeightedChoices[str] = WeightedChoices(SINGLE)
    pool: PoolName = "seen"
    distractors: PoolName | None = None
    counts: tuple[int, int] = (6, 7)
    balanced: bool = False


PLANS = {
    "train": CollagePlan(60_000, 4),
    "val": CollagePlan(1_000, 3, balanced=True),
    "testA": CollagePlan(1_000, 3, pool="animals", distractors="others", balanced=True),
    "testB": CollagePlan(1_000, 3, pool="others", distractors="animals", balanced=True),
    "unseen": CollagePlan(1_000, 3, pool="unseen", distractors="seen", balanced=True),
    "general": CollagePlan(1_000, 3, WeightedChoices(GENERAL)),
    "general-train": CollagePlan(60_000, 4, WeightedChoices(GENERAL)),
}


class CollageSplit(GeneratedSplit[Collage]):
    """One split of the collage data set.

    `cutouts` is a folder of cut-outs, by default the installed stamps of Tux Paint; `grounds` a folder of photographs
    to put them on, by default textures drawn on the fly.
    """

    dataset = "collage"
    version = VERSION
    plans: ClassVar[dict[str, CollagePlan]] = PLANS
    plan: CollagePlan

    def __init__(
        self, name: str, size: Size = 192, seed: int = 0, cutouts: str | None = None, grounds: str | None = None
    ) -> None:
        super().__init__(name, size, seed)
        self.cutouts, self.grounds = find_folder(cutouts), grounds
        if grounds is not None:
            photographs(grounds)
        for pool in (self.plan.pool, self.plan.distractors):
            if pool is not None and len(_pool(self.library, pool)) < LEAST_NOUNS:
                raise UserError(
                    f"collage {name}: {self.cutouts} has fewer than {LEAST_NOUNS} nouns for it ({pool}): "
                    "add cut-outs, or choose another split"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "cutouts": self.cutouts, "grounds": self.grounds}

    @property
    def library(self) -> Library:
        return open_library(self.cutouts)

    @cached_property
    def _pools(self) -> tuple[Pool, Pool | None]:
        distractors = self.plan.distractors
        return _pool(self.library, self.plan.pool), _pool(self.library, distractors) if distractors else None

    @cached_property
    def _wording(self) -> CollageWording:
        return CollageWording(self.library.plurals)

    @cached_property
    def _nouns(self) -> dict[str, tuple[str, ...]]:
        """The nouns that the split's sentences may contain, with their kinds."""
        pools = (pool for pool in self._pools if pool)
        return {noun: self.library.kinds[noun] for pool in pools for noun in pool}

    @cached_property
    def _files(self) -> str:
        """Hashes of the state of the user's own cut-outs and photographs; empty where there are none."""
        grounds = photographs(self.grounds) if self.grounds is not None else ()
        return "".join(f" {state}" for state in (self.library.state, states_hash(grounds)) if state)

    def compose(self, rng: RandomStream, extent: tuple[float, float]) -> Collage:
        pool, distractors = self._pools
        return make_collage(rng, extent, self.library, pool, self.plan.counts, distractors)

    def sampler(self, scene: Collage, rng: RandomStream) -> CollageSampler:
        return CollageSampler(scene, rng, self._wording, self._nouns, self.plan.balanced)

    def rendering(self, scene: Collage, size: tuple[int, int]) -> CollageRendering:
        return CollageRendering(scene, size, self.cutouts, self.grounds)

    def vocabulary(self) -> list[str]:
        return self._wording.vocabulary()

    def image_version(self, image: int) -> str:
        return f"{super().image_version(image)} {self.library.digest} {self.grounds}{self._files}"

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "cutouts": self.library.digest, "grounds": self.grounds}

    def fingerprint(self) -> str:
        return f"{super().fingerprint()}-{self.library.digest[:16]}"


def _pool(library: Library, name: PoolName) -> Pool:
    """The nouns of a pool with their cut-outs."""
    return {noun: indices for noun, indices in library.by_noun.items() if _belongs(library, noun, name)}


def _belongs(library: Library, noun: str, name: PoolName) -> bool:
    if (noun in library.unseen) != (name == "unseen"):
        return False
    return name in ("seen", "unseen") or (ANIMAL in library.kinds[noun]) == (name == "animals")
