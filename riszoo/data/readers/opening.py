"""From names to a split: where the root is, which index serves, which images are there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riszoo.data.index import Index
from riszoo.data.mixed import ConcatSplit
from riszoo.data.readers.base import Reader, matches
from riszoo.data.splits import IndexSplit, TextField
from riszoo.errors import UserError
from riszoo.files import file_hash


@dataclass(frozen=True)
class Options:
    """What every set on disk lets a user choose.

    root         the folder with the annotation folders and the images; left out: RISZOO_DATA, then ./data
    images     the image folder, where it is somewhere else
    prepared     the folder of prepared indices, where they are not beside the annotations
    text         `raw` as typed, or `sent`: lower-cased and tokenised
    expressions  `all`, `first` or `random(SEED)` of each target
    strict       a bad record, a missing, damaged or differently sized image is an error, not a warning
    """

    root: str | None = None
    images: str | None = None
    prepared: str | None = None
    text: TextField = "raw"
    expressions: str = "all"
    strict: bool = False

    def folder(self) -> Path:
        """The root. Whether it is there shows when files are looked for, and then their names can be told."""
        return Path(self.root or os.environ.get("RISZOO_DATA") or "data").expanduser()

    def prepared_folder(self) -> Path | None:
        return Path(self.prepared).expanduser() if self.prepared else None


def open_split(source: Reader, split: str, options: Options) -> IndexSplit | ConcatSplit:
    """One split of a set; of several units, their sum."""
    source.check_split(split)
    root = options.folder()
    parts = [_open_unit(source, split, unit, root, options) for unit in source.units(split)]
    return parts[0] if len(parts) == 1 else ConcatSplit(source.name, split, parts)


def _open_unit(source: Reader, split: str, unit: str, root: Path, options: Options) -> IndexSplit:
    index = open_index(source, root, unit, options.prepared_folder())
    targets = split_targets(index, split)
    if len(targets) == 0:
        raise UserError(f"{source.name} has no split '{split}': filed are {', '.join(sorted(index.splits()))}")
    masks = source.masks_folder(source.files(root, unit))
    folder = image_folder(source, root, options.images, index)
    there = present(index, folder)
    missing = _missing(index, targets, there)
    _tell(source, split, index, missing, folder, options.strict)
    facts = {"by": source.by, "missing_images": len(missing), "bad_records": len(index.problems)}
    return IndexSplit(
        index, targets, dataset=source.name, name=split, folder=folder, masks=masks, text=options.text,
        expressions=options.expressions, strict=options.strict, keep=there, facts=facts,
    )  # fmt: skip


def held_out(sources: Iterable[Reader], options: Options) -> dict[str, list[str]]:
    """By its key, each image that any evaluation split of any of the sets uses, and the splits that do.

    Annotations are enough: the images need not be there.
    """
    used: dict[str, list[str]] = {}
    root = options.folder()
    for source in sources:
        for unit in (unit for unit in source.all_units(root) if not is_training(unit)):
            for key, split in evaluation_keys(open_index(source, root, unit, options.prepared_folder())):
                used.setdefault(key, []).append(f"{source.name}/{split}")
    return used


def is_training(split: str) -> bool:
    return split.startswith("train")


def evaluation_keys(index: Index) -> Iterator[tuple[str, str]]:
    """(image, split) for each use of an image by whatever is not filed as training."""
    filed, keys = index.splits(), index.strings["image_key"]
    pairs = np.stack([index.target_image, index.arrays["target_split"]], axis=1)
    for image, split in np.unique(pairs, axis=0).tolist():
        if not is_training(filed[split]):
            yield keys[image], filed[split]


def training_keys(index: Index) -> set[str]:
    """The images of whatever is filed as training."""
    training = [place for place, split in enumerate(index.splits()) if is_training(split)]
    uses = np.isin(index.arrays["target_split"], training)
    return {index.strings["image_key"][image] for image in np.unique(index.target_image[uses]).tolist()}


def split_targets(index: Index, split: str) -> NDArray[np.int64]:
    """The targets filed under a split, by the official matching."""
    wanted = [place for place, filed in enumerate(index.splits()) if matches(filed, split)]
    return np.flatnonzero(np.isin(index.arrays["target_split"], wanted))


def _tell(source: Reader, split: str, index: Index, missing: list[str], folder: Path, strict: bool) -> None:
    """One warning for all missing images and one for all bad records, or an error."""
    messages = []
    if missing:
        messages.append(f"{len(missing)} image(s) of {split} are not in {folder}, such as {missing[0]}")
    if index.problems:
        (record, reason), *_ = index.problems
        messages.append(f"{len(index.problems)} bad record(s) left out, such as {record}: {reason}")
    for message in messages:
        look = f"`riszoo data check {source.name}` lists them"
        if strict:
            raise UserError(f"{source.name}: {message}; {look}, and --data.strict false goes on without them")
        warnings.warn(f"{source.name}: {message}; {look}", stacklevel=2)


# -- the index --------------------------------------------------------------------------------------------------------


def open_index(source: Reader, root: Path, unit: str, prepared: Path | None = None) -> Index:
    """The prepared index where it is of the files at hand, otherwise one built in memory."""
    path = source.index_file(root, unit, prepared)
    files = source.files(root, unit)
    return load_prepared(path, files) or build_index(source, files, unit)


def build_index(source: Reader, files: list[Path], unit: str) -> Index:
    problems: list[tuple[str, str]] = []
    return Index.build(source.records(files, unit, lambda record, reason: problems.append((record, reason))), problems)


def load_prepared(path: Path, files: list[Path]) -> Index | None:
    """The index in a file, unless there is none or the annotations have changed since."""
    if not path.is_file():
        return None
    try:
        index = Index.load(path)
        if _unchanged(index.about["files"], files):
            return index
        reason = "the annotations have changed since"
    except (ValueError, LookupError, TypeError, OSError) as error:
        reason = str(error)
    warnings.warn(f"prepared index {path} is not used: {reason}; run `riszoo data prepare` again", stacklevel=2)
    return None


def stamp(path: Path) -> dict[str, Any]:
    """What a file is recognised by: at a glance by size and time of change, for certain by content."""
    stat = path.stat()
    return {"name": path.name, "bytes": stat.st_size, "changed": stat.st_mtime_ns, "sha256": file_hash(path)}


def _unchanged(stamps: list[dict[str, Any]], files: list[Path]) -> bool:
    """Files whose time of change differs are compared by content: a copy is as good as the original."""
    if [one["name"] for one in stamps] != [path.name for path in files]:
        return False
    for one, path in zip(stamps, files, strict=True):
        stat = path.stat()
        if stat.st_size != one["bytes"]:
            return False
        if stat.st_mtime_ns != one["changed"] and file_hash(path) != one["sha256"]:
            return False
    return True


# -- the images -----------------------------------------------------------------------------------------------------


def image_folder(source: Reader, root: Path, named: str | None, index: Index | None = None) -> Path:
    """The first spelling that holds an image of the set, or else the first there is."""
    base = Path(named).expanduser() if named else root
    tried = [base, *(base / tail for tail in _tails(source))] if named else [base / name for name in source.folders]
    there = [folder for folder in tried if folder.is_dir()]
    if not there:
        raise UserError(
            f"{source.name}: no image folder; tried {', '.join(map(str, tried))}. Get the images from "
            f"{source.images_from}, or name their folder with --data.images"
        )
    if index is None or not index.images:
        return there[0]
    samples = [index.strings["image_file"][n] for n in sorted({0, index.images // 2, index.images - 1})]
    return next((folder for folder in there if any((folder / name).is_file() for name in samples)), there[0])


def _tails(source: Reader) -> Iterable[str]:
    """The ends of the usual spellings: a named folder may be the images' own or one above."""
    return dict.fromkeys(
        "/".join(parts[start:]) for parts in (n.split("/") for n in source.folders) for start in range(len(parts))
    )


def present(index: Index, folder: Path) -> NDArray[np.bool_]:
    """Whether each image of an index is there, by one listing of each folder."""
    names = list(index.strings["image_file"])
    folders = {name.rpartition("/")[0] for name in names}
    listed = {f"{sub}/{entry}" if sub else entry for sub in folders for entry in _listing(folder / sub)}
    return np.array([name in listed for name in names], dtype=np.bool_)


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names, not paths


def _missing(index: Index, targets: NDArray[np.int64], there: NDArray[np.bool_]) -> list[str]:
    images = np.unique(index.target_image[targets])
    return [index.strings["image_file"][number] for number in images[~there[images]].tolist()]
