"""Opening a split by name: its root folder, its index, its images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from riszoo.data.index import Index
from riszoo.data.mixed import ConcatSplit
from riszoo.data.readers.base import Reader, Report
from riszoo.data.record import Record
from riszoo.data.splits import IndexSplit, TextField
from riszoo.errors import UserError, reason
from riszoo.files import file_hash


@dataclass(frozen=True)
class Options:
    """The options of every set on disk.

    root         the folder with the annotation folders and the images; left out: RISZOO_DATA, then ./data
    images       the image folder, if it is elsewhere
    prepared     the folder of prepared indices, if they are not beside the annotations
    text         `raw` as typed, or `sent`: lower-cased and tokenised
    expressions  `all`, `first` or `random(SEED)` of each target
    strict       an invalid record, a missing, damaged or differently sized image is an error, not a warning
    """

    root: str | None = None
    images: str | None = None
    prepared: str | None = None
    text: TextField = "raw"
    expressions: str = "all"
    strict: bool = False

    def folder(self) -> Path:
        """The root. It is not checked here: the error about a missing file names more."""
        return Path(self.root or os.environ.get("RISZOO_DATA") or "data").expanduser()

    def prepared_folder(self) -> Path | None:
        return Path(self.prepared).expanduser() if self.prepared else None


def open_split(reader: Reader, split: str, options: Options) -> IndexSplit | ConcatSplit:
    """One split of a set; several units are concatenated."""
    reader.check_split(split)
    root = options.folder()
    parts = [_open_unit(reader, split, unit, root, options) for unit in reader.units(split)]
    return parts[0] if len(parts) == 1 else ConcatSplit(reader.name, split, parts)


def _open_unit(reader: Reader, split: str, unit: str, root: Path, options: Options) -> IndexSplit:
    index = open_index(reader, root, unit, options.prepared_folder())
    targets = split_targets(reader, index, split)
    if len(targets) == 0:
        example = next((f"{record}: {reason}" for record, reason in index.problems), "")
        if example and not index.splits():
            raise UserError(f"{reader.name}: all {len(index.problems)} record(s) are invalid, such as {example}")
        filed = ", ".join(sorted(index.splits()))
        invalid = f"; {len(index.problems)} record(s) are invalid, such as {example}" if example else ""
        raise UserError(f"{reader.name} has no split '{split}': its file contains {filed}{invalid}")
    masks = reader.masks_folder(reader.files(root, unit))
    folder = image_folder(reader, root, options.images, index)
    exists = present(index, folder)
    missing = _missing(index, targets, exists)
    if len(missing) == len(np.unique(index.target_image[targets])):
        raise UserError(
            f"{reader.name}: none of the {len(missing)} image(s) of {split} is in {folder}, such as {missing[0]}: put "
            "them there, or name their folder with --data.images"
        )
    _report(reader, split, index, missing, folder, options.strict)
    facts = {"by": reader.by, "missing_images": len(missing), "bad_records": len(index.problems)}
    return IndexSplit(
        index, targets, dataset=reader.name, name=split, folder=folder, masks=masks, text=options.text,
        expressions=options.expressions, strict=options.strict, keep=exists, facts=facts,
    )  # fmt: skip


def held_out(readers: Iterable[Reader], options: Options) -> dict[str, list[str]]:
    """The key of each image in any evaluation split of the sets, and the splits that use it.

    Only annotations are read; the images need not exist.
    """
    used: dict[str, list[str]] = {}
    root = options.folder()
    for reader in readers:
        for unit in (unit for unit in reader.all_units(root) if not is_training(unit)):
            for key, split in evaluation_keys(open_index(reader, root, unit, options.prepared_folder())):
                used.setdefault(key, []).append(f"{reader.name}/{split}")
    return used


def is_training(split: str) -> bool:
    return split.startswith("train") or split.endswith("-train")


def evaluation_keys(index: Index) -> Iterator[tuple[str, str]]:
    """(image key, split) for each use of an image by a split that is not for training."""
    filed, keys = index.splits(), index.strings["image_key"]
    pairs = np.stack([index.target_image, index.arrays["target_split"]], axis=1)
    for image, split in np.unique(pairs, axis=0).tolist():
        if not is_training(filed[split]):
            yield keys[image], filed[split]


def training_keys(index: Index) -> set[str]:
    """The keys of the images that training splits use."""
    training = [number for number, split in enumerate(index.splits()) if is_training(split)]
    uses = np.isin(index.arrays["target_split"], training)
    return {index.strings["image_key"][image] for image in np.unique(index.target_image[uses]).tolist()}


def split_targets(reader: Reader, index: Index, split: str) -> NDArray[np.int64]:
    """The targets filed under a split, as the set matches their names."""
    numbers = [number for number, filed in enumerate(index.splits()) if reader.has(filed, split)]
    return np.flatnonzero(np.isin(index.arrays["target_split"], numbers))


def _report(reader: Reader, split: str, index: Index, missing: list[str], folder: Path, strict: bool) -> None:
    """One warning for all missing images and one for all bad records, or an error."""
    messages = []
    if missing:
        messages.append(f"{len(missing)} image(s) of {split} are not in {folder}, such as {missing[0]}")
    if index.problems:
        (record, reason), *_ = index.problems
        messages.append(f"{len(index.problems)} invalid record(s) left out, such as {record}: {reason}")
    for message in messages:
        advice = f"`riszoo data check {reader.name}` lists them"
        if strict:
            raise UserError(f"{reader.name}: {message}; {advice}, and --data.strict false leaves them out")
        warnings.warn(f"{reader.name}: {message}; {advice}", stacklevel=2)


# -- the index --------------------------------------------------------------------------------------------------------


def open_index(reader: Reader, root: Path, unit: str, prepared: Path | None = None) -> Index:
    """The prepared index if it was made from these files, otherwise one built in memory."""
    path = reader.index_file(root, unit, prepared)
    files = reader.files(root, unit)
    return load_prepared(path, files + reader.optional_files(files)) or build_index(reader, files, unit)


def build_index(reader: Reader, files: list[Path], unit: str) -> Index:
    problems: list[tuple[str, str]] = []

    def report(record: str, reason: str) -> None:
        problems.append((record, reason))

    return Index.build(_unique(reader.records(files, unit, report), report), problems)


def _unique(records: Iterable[Record], report: Report) -> Iterator[Record]:
    """The records without targets whose id an earlier one has: results are stored under ids."""
    used: set[str] = set()
    for record in records:
        repeated = [target.target_id for target in record.targets if target.target_id in used]
        for name in repeated:
            report(name, "an earlier record has the same id")
        used.update(target.target_id for target in record.targets)
        if not repeated:
            yield record


def load_prepared(path: Path, files: list[Path]) -> Index | None:
    """The index in a file; None if it does not exist or the annotations have changed since."""
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
    """How a file is recognised: quickly by size and modification time, exactly by content."""
    stat = path.stat()
    return {"name": path.name, "bytes": stat.st_size, "changed": stat.st_mtime_ns, "sha256": file_hash(path)}


def _unchanged(stamps: list[dict[str, Any]], files: list[Path]) -> bool:
    """Files whose modification time differs are compared by content, so that copies are accepted."""
    if [one["name"] for one in stamps] != [path.name for path in files]:
        return False
    for one, path in zip(stamps, files, strict=True):
        stat = path.stat()
        if stat.st_size != one["bytes"]:
            return False
        if stat.st_mtime_ns != one["changed"] and file_hash(path) != one["sha256"]:
            return False
    return True


def prepare_indices(reader: Reader, options: Options) -> list[Path]:
    """Saves the index of every unit whose files exist; raises a UserError where none do."""
    root, errors, paths = options.folder(), [], []
    for unit in reader.all_units(root):
        try:
            files = reader.files(root, unit)
        except UserError as error:
            errors.append(error)
            continue
        paths.append(_prepare_unit(reader, unit, root, files, options.prepared_folder()))
    if not paths:
        raise errors[0]
    return paths


def _prepare_unit(reader: Reader, unit: str, root: Path, files: list[Path], folder: Path | None) -> Path:
    path = reader.index_file(root, unit, folder)
    with warnings.catch_warnings():  # an outdated index is replaced at once
        warnings.simplefilter("ignore")
        current = load_prepared(path, files + reader.optional_files(files))
    if current:
        return path
    index = build_index(reader, files, unit)
    index.about["files"] = [stamp(file) for file in files + reader.optional_files(files)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        index.save(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {reason(error)}; name another folder with --prepared") from error
    return path


# -- the images -----------------------------------------------------------------------------------------------------


def image_folder(reader: Reader, root: Path, named: str | None, index: Index | None = None) -> Path:
    """The first spelling that contains an image of the set, or else the first that exists."""
    base = Path(named).expanduser() if named else root
    tried = [base, *(base / tail for tail in _tails(reader))] if named else [base / name for name in reader.folders]
    found = [folder for folder in tried if folder.is_dir()]
    if not found:
        raise UserError(
            f"{reader.name}: no image folder; tried {', '.join(map(str, tried))}. Get the images from "
            f"{reader.images_from}, or name their folder (--data.images in a run, --images-folder in `data check`)"
        )
    if index is None or not index.images:
        return found[0]
    samples = [index.strings["image_file"][n] for n in sorted({0, index.images // 2, index.images - 1})]
    return next((folder for folder in found if any((folder / name).is_file() for name in samples)), found[0])


def _tails(reader: Reader) -> Iterable[str]:
    """The ends of the usual spellings: a named folder may be the images' own or one above."""
    return dict.fromkeys(
        "/".join(parts[start:]) for parts in (n.split("/") for n in reader.folders) for start in range(len(parts))
    )


def present(index: Index, folder: Path) -> NDArray[np.bool_]:
    """Whether the file of each image of an index exists, by one listing of each folder."""
    names = list(index.strings["image_file"])
    folders = {name.rpartition("/")[0] for name in names}
    listed = {f"{sub}/{entry}" if sub else entry for sub in folders for entry in _listing(folder / sub)}
    return np.array([name in listed for name in names], dtype=np.bool_)


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names, not paths


def _missing(index: Index, targets: NDArray[np.int64], exists: NDArray[np.bool_]) -> list[str]:
    images = np.unique(index.target_image[targets])
    return [index.strings["image_file"][number] for number in images[~exists[images]].tolist()]
