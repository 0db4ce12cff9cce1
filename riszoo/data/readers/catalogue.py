"""The readers of all data sets on disk by name, with their publishers and published sizes."""

from __future__ import annotations

from riszoo.data.readers.base import Counts, Reader
from riszoo.data.readers.folder import Folder
from riszoo.data.readers.parquet.refcoco_m import RefCOCOM
from riszoo.data.readers.phrasecut import PhraseCut
from riszoo.data.readers.refer import RefClef, Refer
from riszoo.data.readers.referit import ReferIt
from riszoo.errors import UserError, unknown_name

REFER = "Licheng Yu's `refer` project (UNC; an issue there lists mirrors)"
UNKNOWN = Counts(None, None, None)

_ALL: list[Reader] = [
    Refer(
        "refcoco",
        "refcoco",
        "unc",
        {
            "train": Counts(42_404, 120_624, 16_994),
            "val": Counts(3_811, 10_834, 1_500),
            "testA": Counts(1_975, 5_657, 750),
            "testB": Counts(1_810, 5_095, 750),
        },
        REFER,
    ),
    Refer(
        "refcoco-google",
        "refcoco",
        "google",
        {
            "train": Counts(40_000, None, 19_213),
            "val": Counts(5_000, None, 4_559),
            "test": Counts(5_000, None, 4_527),
        },
        REFER,
    ),
    Refer(
        "refcoco+",
        "refcoco+",
        "unc",
        {
            "train": Counts(42_278, 120_191, 16_992),
            "val": Counts(3_805, 10_758, 1_500),
            "testA": Counts(1_975, 5_726, 750),
            "testB": Counts(1_798, 4_889, 750),
        },
        REFER,
    ),
    Refer(
        "refcocog",
        "refcocog",
        "umd",
        {
            "train": Counts(42_226, 80_512, 21_899),
            "val": Counts(2_573, 4_896, 1_300),
            "test": Counts(5_023, 9_602, 2_600),
        },
        REFER,
    ),
    Refer(
        "refcocog-google",
        "refcocog",
        "google",
        {"train": Counts(44_822, 85_474, 24_698), "val": Counts(5_000, 9_536, 4_650)},
        REFER,
    ),
    Refer(
        "grefcoco",
        "grefcoco",
        "unc",
        {
            "train": Counts(None, 209_344, None),
            "val": Counts(None, None, 1_500),
            "testA": Counts(None, None, 750),
            "testB": Counts(None, None, 750),
        },
        "Henghui Ding's gRefCOCO project",
        refs="grefs",
    ),
    RefClef(
        "refclef",
        "refclef",
        "berkeley",
        {"train": Counts(None, None, None), "val": Counts(None, 5_842, None), "test": Counts(None, 60_103, None)},
        REFER,
    ),
    RefClef(
        "refclef-unc",
        "refclef",
        "unc",
        dict.fromkeys(("train", "val", "testA", "testB", "testC"), UNKNOWN),
        REFER,
    ),
    RefCOCOM(),
    ReferIt(),
    PhraseCut(),
    Folder(),
]
READERS = {reader.name: reader for reader in _ALL}


def get_reader(name: str, by: str | None = None) -> Reader:
    """The reader of a set, by its name, or by its folder's name and its partition."""
    named = READERS.get(name)
    if named and by in (None, named.by):
        return named
    for other in _ALL:
        if (other.dataset, other.by) == (name, by):
            return other
    if named or any(other.dataset == name for other in _ALL):
        partitions = ", ".join(other.by for other in _ALL if other.dataset == name)
        raise UserError(f"{name} has no partition '{by}': choose among {partitions}")
    raise unknown_name("data set", name, READERS)
