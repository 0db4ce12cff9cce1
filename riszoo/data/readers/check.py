"""The report of `riszoo data check`: missing files and images, invalid records, differences from published counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from riszoo.data.images import ImageError, decode
from riszoo.data.index import Index
from riszoo.data.masks import Size
from riszoo.data.readers.base import Reader
from riszoo.data.readers.mask_files import read_mask
from riszoo.data.readers.opening import (
    Options,
    evaluation_keys,
    image_folder,
    open_index,
    present,
    split_targets,
    stamp,
    training_keys,
)
from riszoo.data.readers.validation import path_in
from riszoo.errors import UserError

Facts = dict[str, Any]
Indices = dict[str, list[Index]]  # of each set that could be read
SHOWN = 10  # lines of one kind in the text; --json lists all


def check_sets(readers: list[Reader], options: Options, decode_images: bool) -> Facts:
    """The report on several sets and on the training images that evaluation splits of the others use."""
    indices: Indices = {}
    reports = [_check_set(reader, options, decode_images, indices) for reader in readers]
    return {"sets": reports, "leaks": _leaks(indices), "good": all(report["good"] for report in reports)}


def find_record(readers: list[Reader], options: Options, record: str) -> list[Facts]:
    """Everything filed under the id of an image, a target, a sentence or an invalid record."""
    root = options.folder()
    return [
        row
        for reader in readers
        for unit in reader.all_units(root)
        for row in _filed(open_index(reader, root, unit, options.prepared_folder()), record)
    ]


def _check_set(reader: Reader, options: Options, decode_images: bool, indices: Indices) -> Facts:
    """The report on one set: `good` is the verdict, `faults` the reasons. Adds what it opens to `indices`."""
    root = options.folder()
    facts: Facts = {"set": reader.name, "by": reader.by, "root": str(root), "archive": reader.archive}
    facts |= {"files": [], "splits": {}, "bad_records": [], "faults": []}
    try:
        facts["images"] = {"missing": [], "absent": [], "damaged": [], "other_size": []}
        facts["masks"] = []
        for unit in reader.all_units(root):
            index = _check_unit(reader, unit, root, options, facts)
            if index is None:
                continue
            indices.setdefault(reader.name, []).append(index)
            _check_masks(reader, index, root, unit, decode_images or reader.own_masks, facts)
            _check_images(reader, index, image_folder(reader, root, options.images, index), decode_images, facts)
    except UserError as error:
        facts["faults"].append(str(error))
    facts["good"] = not facts["faults"]
    return facts


def _check_unit(reader: Reader, unit: str, root: Path, options: Options, facts: Facts) -> Index | None:
    try:
        files = reader.files(root, unit)
    except UserError as error:  # other units may exist
        facts["faults"].append(str(error))
        return None
    facts["files"] += [{"path": str(path), **stamp(path)} for path in files]
    try:
        index = open_index(reader, root, unit, options.prepared_folder())
    except UserError as error:
        facts["faults"].append(str(error))
        return None
    facts.setdefault("content", {})[unit] = index.digest
    facts["bad_records"] += [{"id": record, "reason": reason} for record, reason in index.problems]
    if index.problems:
        facts["faults"].append(f"{len(index.problems)} invalid record(s) in {files[0].name}")
    facts.setdefault("repeated_sentence_ids", []).extend(_repeated(index.strings["sentence_id"]))
    for split in dict.fromkeys([*(s for s in reader.published if reader.units(s) == (unit,)), *index.splits()]):
        _check_split(reader, split, index, facts)
    return index


def _repeated(ids: Iterable[str]) -> list[str]:
    """The ids of more than one sentence: no fault, but predictions are filed under them."""
    return sorted(name for name, times in Counter(ids).items() if times > 1)


def _check_split(reader: Reader, split: str, index: Index, facts: Facts) -> None:
    targets = split_targets(reader, index, split)
    first, last = index.arrays["target_sentences"][targets].T
    found = (len(targets), int((last - first).sum()), len(np.unique(index.target_image[targets])))
    names = ("targets", "sentences", "images")
    row: Facts = dict(zip(names, found, strict=True))
    if split in reader.published:
        row["published"] = reader.published[split]._asdict()
        differing = [n for n in names if row["published"][n] not in (None, row[n])]
        facts["faults"] += [f"{split}: {row[n]:,} {n}, published: {row['published'][n]:,}" for n in differing]
    facts["splits"][split] = row


def _check_masks(reader: Reader, index: Index, root: Path, unit: str, read: bool, facts: Facts) -> None:
    """Find mask files that are missing or, where each is read, cannot be used."""
    folder = reader.masks_folder(reader.files(root, unit))
    files = dict.fromkeys(index.mask_files())
    faults = [fault for name, size in files if (fault := _mask_fault(folder, name, size, read))]
    facts["masks"] += faults
    if faults:
        facts["faults"].append(f"{len(faults)} of {len(files)} masks of {unit} cannot be used, such as: {faults[0]}")


def _mask_fault(folder: Path, name: str, size: Size, read: bool) -> str | None:
    try:
        path = path_in(folder, name)
        if not path.is_file():
            return f"mask {path} is missing"
        if read and not read_mask(path, size).any():
            return f"mask {path} is empty: 0 is outside, all else inside"
    except UserError as error:
        return str(error)
    return None


def _check_images(reader: Reader, index: Index, folder: Path, decode_images: bool, facts: Facts) -> None:
    exists, found = present(index, folder), facts["images"]
    found["folder"] = str(folder)
    names = list(index.strings["image_file"])
    lacking = [name for name, found_it in zip(names, exists, strict=True) if not found_it]
    missing = [name for name in lacking if name not in reader.absent]
    found["missing"] += missing
    found["absent"] += [name for name in lacking if name in reader.absent]
    if missing:
        facts["faults"].append(f"{len(missing)} of {len(names)} images are not in {folder}")
    if decode_images:
        _decode_all(index, names, exists.nonzero()[0].tolist(), folder, facts)


def _decode_all(index: Index, names: list[str], numbers: list[int], folder: Path, facts: Facts) -> None:
    found = facts["images"]
    for number in numbers:
        try:
            size = decode(folder / names[number]).shape[:2]
        except ImageError:
            found["damaged"].append(names[number])
            continue
        if size != index.size(number):
            found["other_size"].append(names[number])
    for kind, words in (("damaged", "cannot be read"), ("other_size", "differ from their annotated size")):
        if found[kind]:
            facts["faults"].append(f"{len(found[kind])} images in {folder} {words}, such as {found[kind][0]}")


def _leaks(indices: Indices) -> list[Facts]:
    """For each pair of the chosen sets, how many training images of one an evaluation split of the other uses."""
    table = []
    for one, train in indices.items():
        keys = {key for index in train for key in training_keys(index)}
        for other, held in indices.items():
            shared = keys & {key for index in held for key, _ in evaluation_keys(index)}
            table.append({"train": one, "held_out": other, "images": len(shared), "keys": sorted(shared)})
    return [row for row in table if row["images"]]


def _filed(index: Index, record: str) -> Iterator[Facts]:
    yield from ({"id": name, "left_out": reason} for name, reason in index.problems if name == record)
    strings = index.strings
    image, target, sentence = (strings[f"{kind}_id"].find(record) for kind in ("image", "target", "sentence"))
    firsts, lasts = index.arrays["target_sentences"].T
    for number, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
        has_sentence = sentence is not None and first <= sentence < last
        if has_sentence or number == target or index.target_image[number] == image:
            row = int(index.target_image[number])
            sentences = [{"id": strings["sentence_id"][n], "raw": strings["text"][n]} for n in range(first, last)]
            yield {
                "id": strings["target_id"][number],
                "split": index.splits()[index.arrays["target_split"][number]],
                "image": strings["image_file"][row],
                "size": index.size(row),
                "sentences": sentences,
            }


# -- as text ---------------------------------------------------------------------------------------------------------


def report_lines(facts: Facts) -> Iterator[str]:
    """The report as lines of text; long lists are cut after SHOWN entries."""
    for report in facts["sets"]:
        yield f"{report['set']} ({report['by']}) in {report['root']}"
        yield from (f"  {one['path']}  {one['bytes']:,} bytes  sha256 {one['sha256'][:16]}" for one in report["files"])
        yield from (f"  content {digest[:16]} ({unit})" for unit, digest in report.get("content", {}).items())
        yield from _table(report["splits"])
        yield from _some("left out", [f"{row['id']}: {row['reason']}" for row in report["bad_records"]])
        yield from _some("id of several sentences", report.get("repeated_sentence_ids", []))
        yield from _some("mask", report.get("masks", []))
        for kind, names in report.get("images", {}).items():
            yield from _some(kind, names) if isinstance(names, list) else [f"  images in {names}"]
        yield from (f"  ! {fault}" for fault in report["faults"])
        if report["archive"] and not report["files"]:
            about = f"unpack it into {report['root']}; no hash of it is published"
            yield f"  an archive copy ({about}): {report['archive']}"
        yield "  good" if report["good"] else "  not good"
    for leak in facts["leaks"]:
        images = f"{leak['images']:,} training images of {leak['train']}"
        yield f"{images} are in evaluation splits of {leak['held_out']}"


def _table(splits: dict[str, Facts]) -> Iterator[str]:
    for name, row in splits.items():
        cells = []
        for kind in ("targets", "sentences", "images"):
            published = row.get("published", {}).get(kind)
            cells.append(f"{row[kind]:>9,} {kind}" + (f" (published {published:,})" if published is not None else ""))
        yield f"  {name:10}" + "  ".join(cells)


def _some(kind: str, lines: list[str]) -> Iterator[str]:
    yield from (f"  {kind.replace('_', ' ')}: {line}" for line in lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"  {kind.replace('_', ' ')}: and {len(lines) - SHOWN:,} more (--json lists them)"
