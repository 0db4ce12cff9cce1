"""Each data set as a data module: how its splits are opened, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from riszoo.data.base import Split
from riszoo.data.module import RISData


class Scenes(RISData):
    """The embedded set, rendered on the fly.

    Args:
        picture: side of the pictures in pixels, or `mixed`
        version_seed: the seed that makes the set; another one makes another set
    """

    def __init__(self, *, picture: int | str = 96, version_seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.picture, self.version_seed = picture, version_seed

    def open(self, split: str) -> Split:
        from riszoo.data.scenes import ScenesSplit

        return ScenesSplit(split, size=self.picture, seed=self.version_seed)

    def words(self) -> Iterable[str]:
        """The grammar's own words: the same vocabulary for every split."""
        from riszoo.data.scenes import vocabulary

        return vocabulary()
