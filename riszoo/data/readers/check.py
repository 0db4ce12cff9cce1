"""`riszoo data check`: what is there, what is missing, and what differs from what was published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from riszoo.cli.parser import CommandParser
from riszoo.data.images import ImageError, decode
from riszoo.data.index import Index
from riszoo.data.readers.base import Reader
from riszoo.data.readers.catalogue import source
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
from riszoo.errors import UserError

Facts = dict[str, Any]
Indices = dict[str, list[Index]]  # of each set that could be read
SHOWN = 10  # lines of one kind in the report for people; --json has them all


def run(argv: list[str]) -> int:
    """0 where everything is there and as published, otherwise 1."""
    given = _parser().parse_args(argv)
    options = Options(root=given.root, images=given.images_folder, prepared=given.prepared)
    sources = [source(name) for name in given.sets]
    if given.record is not None:
        return _look_up(sources, options, given.record)
    indices: Indices = {}
    reports = [examine(one, options, given.images, indices) for one in sources]
    facts: Facts = {"sets": reports, "leaks": _leaks(indices), "good": all(report["good"] for report in reports)}
    print(json.dumps(facts, indent=2) if given.json else "\n".join(_lines(facts)))
    return 0 if facts["good"] else 1


def _parser() -> CommandParser:
    parser = CommandParser(prog="riszoo data check", description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="SET", help="refcoco, refcocog-google, phrasecut, folder, ...")
    parser.add_argument("--root", help="the folder of data sets (default: RISZOO_DATA, then ./data)")
    parser.add_argument("--images-folder", help="the image folder, where it is somewhere else")
    parser.add_argument("--prepared", help="the folder of prepared indices")
    parser.add_argument("--images", action="store_true", help="decode every image: damaged ones, other sizes")
    parser.add_argument("--record", metavar="ID", help="show what is filed under one id, and nothing else")
    parser.add_argument("--json", action="store_true", help="machine-readable, with every id")
    return parser


def examine(one: Reader, options: Options, images: bool, indices: Indices) -> Facts:
    """Everything that can be said of one set; `good` is the verdict, `faults` its reasons. `indices` is added to."""
    facts: Facts = {"set": one.name, "by": one.by, "files": [], "splits": {}, "bad_records": [], "faults": []}
    try:
        root = options.folder()
        facts["root"] = str(root)
        facts["images"] = {"missing": [], "absent": [], "damaged": [], "other_size": []}
        for unit in one.all_units(root):
            index = _unit(one, unit, root, options, facts)
            if index is None:
                continue
            indices.setdefault(one.name, []).append(index)
            _images(one, index, image_folder(one, root, options.images, index), images, facts)
    except UserError as error:
        facts["faults"].append(str(error))
    facts["good"] = not facts["faults"]
    return facts


def _unit(one: Reader, unit: str, root: Path, options: Options, facts: Facts) -> Index | None:
    try:
        files = one.files(root, unit)
    except UserError as error:  # the other units may be there
        facts["faults"].append(str(error))
        return None
    facts["files"] += [{"path": str(path), **stamp(path)} for path in files]
    index = open_index(one, root, unit, options.prepared_folder())
    facts.setdefault("content", {})[unit] = index.digest
    facts["bad_records"] += [{"id": record, "reason": reason} for record, reason in index.problems]
    if index.problems:
        facts["faults"].append(f"{len(index.problems)} bad record(s) in {files[0].name}")
    for split in dict.fromkeys([*(s for s in one.published if one.units(s) == (unit,)), *index.splits()]):
        _split(one, split, index, facts)
    return index


def _split(one: Reader, split: str, index: Index, facts: Facts) -> None:
    targets = split_targets(index, split)
    first, last = index.arrays["target_sentences"][targets].T
    found = (len(targets), int((last - first).sum()), len(np.unique(index.target_image[targets])))
    names = ("targets", "sentences", "images")
    row: Facts = dict(zip(names, found, strict=True))
    if split in one.published:
        row["published"] = one.published[split]._asdict()
        differing = [n for n in names if row["published"][n] not in (None, row[n])]
        facts["faults"] += [f"{split}: {row[n]:,} {n}, published are {row['published'][n]:,}" for n in differing]
    facts["splits"][split] = row


def _images(one: Reader, index: Index, folder: Path, decoded: bool, facts: Facts) -> None:
    there, found = present(index, folder), facts["images"]
    found["folder"] = str(folder)
    names = list(index.strings["image_file"])
    gone = [name for name, here in zip(names, there, strict=True) if not here]
    missing = [name for name in gone if name not in one.absent]
    found["missing"] += missing
    found["absent"] += [name for name in gone if name in one.absent]
    if missing:
        facts["faults"].append(f"{len(missing)} of {len(names)} images are not in {folder}")
    if decoded:
        _decode(index, names, there.nonzero()[0].tolist(), folder, facts)


def _decode(index: Index, names: list[str], numbers: list[int], folder: Path, facts: Facts) -> None:
    found = facts["images"]
    for number in numbers:
        try:
            size = decode(folder / names[number]).shape[:2]
        except ImageError:
            found["damaged"].append(names[number])
            continue
        if size != index.size(number):
            found["other_size"].append(names[number])
    for kind, words in (("damaged", "cannot be read"), ("other_size", "are not of their annotated size")):
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


def _look_up(sources: list[Reader], options: Options, record: str) -> int:
    """Everything filed under an id: of an image, a target, a sentence or a bad record."""
    root = options.folder()
    found = [
        row
        for one in sources
        for unit in one.all_units(root)
        for row in _filed(open_index(one, root, unit, options.prepared_folder()), record)
    ]
    print(json.dumps(found, indent=2))
    return 0 if found else 1


def _filed(index: Index, record: str) -> Iterator[Facts]:
    yield from ({"id": name, "left_out": reason} for name, reason in index.problems if name == record)
    strings = index.strings
    image, target, sentence = (strings[f"{kind}_id"].find(record) for kind in ("image", "target", "sentence"))
    firsts, lasts = index.arrays["target_sentences"].T
    for number, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
        asked = sentence is not None and first <= sentence < last
        if asked or number == target or index.target_image[number] == image:
            place = int(index.target_image[number])
            phrases = [{"id": strings["sentence_id"][n], "raw": strings["text"][n]} for n in range(first, last)]
            yield {
                "id": strings["target_id"][number],
                "split": index.splits()[index.arrays["target_split"][number]],
                "image": strings["image_file"][place],
                "size": index.size(place),
                "sentences": phrases,
            }


# -- for people -------------------------------------------------------------------------------------------------------


def _lines(facts: Facts) -> Iterator[str]:
    for report in facts["sets"]:
        yield f"{report['set']} ({report['by']})" + (f" in {report['root']}" if "root" in report else "")
        yield from (f"  {one['path']}  {one['bytes']:,} bytes  sha256 {one['sha256'][:16]}" for one in report["files"])
        yield from (f"  content {digest[:16]} ({unit})" for unit, digest in report.get("content", {}).items())
        yield from _table(report["splits"])
        yield from _some("left out", [f"{row['id']}: {row['reason']}" for row in report["bad_records"]])
        for kind, names in report.get("images", {}).items():
            yield from _some(kind, names) if isinstance(names, list) else [f"  images in {names}"]
        yield from (f"  ! {fault}" for fault in report["faults"])
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
