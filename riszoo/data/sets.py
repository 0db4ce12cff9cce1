"""Each data set as a data module: how its splits are opened, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_only

from riszoo.data.datamodule import RISData
from riszoo.data.mixed import ConcatSplit, leaks
from riszoo.data.readers.base import Reader
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, held_out, open_split
from riszoo.data.record import Split
from riszoo.data.splits import IndexSplit, TextField
from riszoo.errors import UserError


@rank_zero_only
def _say(text: str) -> None:
    print(text)


class Scenes(RISData):
    """The embedded set, rendered on the fly.

    Args:
        image_size: side of the images in pixels, (height, width), or `mixed`
        version_seed: the seed of the whole set; another seed gives another set
    """

    def __init__(
        self, *, image_size: int | tuple[int, int] | Literal["mixed"] = 96, version_seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.image_size, self.version_seed = image_size, version_seed

    def load_split(self, split: str) -> Split:
        from riszoo.data.scenes import ScenesSplit

        return ScenesSplit(split, size=self.image_size, seed=self.version_seed)

    def words(self) -> Iterable[str]:
        """The vocabulary of the grammar, the same for every split."""
        from riszoo.data.scenes import vocabulary

        return vocabulary()


class Collage(RISData):
    """Photographic cut-outs on the user's machine, composed on the fly.

    Args:
        image_size: side of the images in pixels, (height, width), or `mixed`
        version_seed: the seed of the whole set; another seed gives another set
        cutouts: the folder of cut-outs; left out, the variable RISZOO_CUTOUTS, then the installed stamps of Tux Paint
        grounds: a folder of photographs as backgrounds; left out, textures drawn on the fly
    """

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] | Literal["mixed"] = 192,
        version_seed: int = 0,
        cutouts: str | None = None,
        grounds: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size, self.version_seed = image_size, version_seed
        self.cutouts, self.grounds = cutouts, grounds

    def load_split(self, split: str) -> Split:
        from riszoo.data.collage import CollageSplit

        return CollageSplit(split, self.image_size, self.version_seed, self.cutouts, self.grounds)

    def words(self) -> Iterable[str]:
        """Every word of the grammar and of the table of cut-outs, the same for every split."""
        from riszoo.data.collage import CollageSplit

        return CollageSplit(self.train_split, cutouts=self.cutouts).vocabulary()


class OnDisk(RISData):
    """A set whose files a user has got.

    Args:
        root: the folder with annotation folders and images; left out: the variable RISZOO_DATA, then ./data
        images: the image folder, where it is somewhere else
        prepared: the folder of prepared indices, where they are not beside the annotations
        text: sentences `raw` as typed, or `sent`: lower-cased and tokenised
        expressions: `all`, `first` or `random(SEED)` of each target
        strict: bad records and missing, damaged or differently sized images are errors
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        images: str | None = None,
        prepared: str | None = None,
        text: TextField = "raw",
        expressions: str = "all",
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.options = Options(root, images, prepared, text, expressions, strict)


class RefCOCO(OnDisk):
    """Every set in the `refer` layout: refcoco, refcoco+, refcocog, grefcoco, refclef; `by` is the partition."""

    def __init__(self, *, dataset: str = "refcoco", by: str = "unc", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset, self.by = dataset, by

    def load_split(self, split: str) -> Split:
        return open_split(get_reader(self.dataset, self.by), split, self.options)


class ReferIt(OnDisk):
    """ReferIt in text_objseg's form."""

    def load_split(self, split: str) -> Split:
        return open_split(get_reader("referit"), split, self.options)


class PhraseCut(OnDisk):
    """PhraseCut; `val_miniv` is its whole validation set."""

    def load_split(self, split: str) -> Split:
        return open_split(get_reader("phrasecut"), split, self.options)


class Folder(OnDisk):
    """Your own images: `root` contains train.jsonl (or .csv), val.jsonl and so on."""

    def load_split(self, split: str) -> Split:
        return open_split(get_reader("folder"), split, self.options)


class Mixed(OnDisk):
    """Several sets for training together, without the images that an evaluation split of any of them uses.

    Args:
        sets: the training sets
        also_held_out: sets that are only evaluated; their evaluation images are kept out of training too
        report_leaks: print every image that was removed, and the splits that use it
    """

    leakage_filter: ClassVar[bool] = True

    def __init__(
        self,
        *,
        sets: list[str] = ["refcoco", "refcoco+", "refcocog"],  # noqa: B006 - read only
        also_held_out: list[str] = [],  # noqa: B006 - read only
        report_leaks: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sets, self.also_held_out, self.report_leaks = sets, also_held_out, report_leaks

    def load_split(self, split: str) -> Split:
        """`train` is the filtered union; `refcoco/testA` is one set's split; `val` is the union of all of them."""
        name, separator, rest = split.partition("/")
        if separator:
            return open_split(self._source(name), rest, self.options)
        parts = self._parts(split)
        if split.startswith("train"):
            parts = self._less_leaks(parts)
        return ConcatSplit("+".join(self.sets), split, parts, named=True)

    def _parts(self, split: str) -> list[IndexSplit]:
        opened = [open_split(get_reader(name), split, self.options) for name in self.sets]
        return [part for one in opened for part in (one.parts if isinstance(one, ConcatSplit) else [one])]

    def _less_leaks(self, parts: list[IndexSplit]) -> list[IndexSplit]:
        sources = [get_reader(name) for name in dict.fromkeys([*self.sets, *self.also_held_out])]
        found = leaks(parts, held_out(sources, self.options))
        _say(f"mixed training leaves out {len(found)} image(s) that evaluation splits use")
        if self.report_leaks:
            _say("\n".join(f"{leak.dataset}\t{leak.image}\t{leak.used_by}" for leak in found))
        barred = {leak.image for leak in found}
        return [part.without(barred) for part in parts]

    def _source(self, name: str) -> Reader:
        if name not in (*self.sets, *self.also_held_out):
            raise UserError(f"'{name}' is not one of the sets: add it to --data.sets or --data.also_held_out")
        return get_reader(name)
