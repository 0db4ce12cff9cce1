"""How fast a set of RefCOCO's size opens, and what it costs each worker. Makes its own files, prints a table.

python benchmarks/index.py [--images 20000]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, build_index, open_split, prepare_indices

READER = get_reader("refcoco")
ANNOTATIONS = 10  # an image, about as many as COCO's images in RefCOCO have


def make(root: Path, images: int, random: np.random.Generator) -> None:
    """Refs and annotations with COCO's sizes of outlines: 5 refs for 2 images, 2.84 sentences a ref."""
    folder, photos = root / "refcoco", root / "images/train2014"
    folder.mkdir()
    photos.mkdir(parents=True)
    words = ["left", "right", "man", "woman", "in", "the", "red", "shirt", "dog", "near", "blue", "car", "on", "top"]
    rows, annotations, refs = [], [], []
    for image in range(1, images + 1):
        name = f"COCO_train2014_{image:012d}.jpg"
        (photos / name).touch()
        rows.append({"id": image, "file_name": name, "height": 480, "width": 640, "license": 1, "coco_url": "x" * 50})
        annotations += [_annotation(image * 100 + n, image, random) for n in range(ANNOTATIONS)]
    for ref in range(images * 5 // 2):
        refs.append(_ref(ref, ref * 2 // 5 + 1, words, random))
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    (folder / "instances.json").write_text(json.dumps({"images": rows, "annotations": annotations, "categories": []}))


def _annotation(number: int, image: int, random: np.random.Generator) -> dict[str, Any]:
    corners = int(random.integers(12, 60))
    angles = np.sort(random.uniform(0, 6.28, corners))
    centre, radius = random.uniform(150, 330, 2), random.uniform(20, 140)
    outline = (centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).ravel().round(2).tolist()
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 1000.5,
        "bbox": [1.5, 2.5, 100.25, 80.75], "segmentation": [outline],
    }  # fmt: skip


def _ref(ref: int, image: int, words: list[str], random: np.random.Generator) -> dict[str, Any]:
    sentences = []
    for n in range(3 if random.random() < 0.84 else 2):
        tokens = random.choice(words, random.integers(2, 6)).tolist()
        text = " ".join(tokens)
        sentences.append({"sent_id": ref * 4 + n, "raw": text.capitalize(), "sent": text, "tokens": tokens})
    return {
        "ref_id": ref, "ann_id": image * 100 + ref % ANNOTATIONS, "image_id": image, "category_id": 1,
        "file_name": f"COCO_train2014_{image:012d}_{ref}.jpg", "split": "train" if ref % 10 else "val",
        "sent_ids": [s["sent_id"] for s in sentences], "sentences": sentences,
    }  # fmt: skip


def plain(root: Path) -> None:
    """What every reader must at least do without an index: the two files, and tables by id."""
    with (root / "refcoco/refs(unc).p").open("rb") as file:
        refs = pickle.load(file)
    tables = json.loads((root / "refcoco/instances.json").read_text())
    _ = {row["ref_id"]: row for row in refs}, {row["id"]: row for row in tables["annotations"]}


def seconds(task: Callable[[], Any], times: int = 1) -> float:
    """The quickest of several, in CPU seconds."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        task()
        taken.append(time.process_time() - start)
    return min(taken)


def private_memory() -> float:
    """MB that belong to this process alone."""
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith(("Private_Clean", "Private_Dirty"))) / 1e3


def work(split: Any, place: int, answers: Any) -> None:
    """A worker's pass over its quarter of the records; masks are drawn as well."""
    before = private_memory()
    for image in range(place, len(split), 4):
        for target in split[image].targets:
            target.segmentation.draw(GroundTruth(frame=(480, 480)))
    answers.put(private_memory() - before)


def worker_memory(split: Any, method: str) -> float:
    """The most that one of four workers grows by, in MB."""
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    workers = [context.Process(target=work, args=(split, place, answers)) for place in range(4)]
    for worker in workers:
        worker.start()
    grown = max(answers.get() for _ in workers)
    for worker in workers:
        worker.join()
    return float(grown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, images, np.random.default_rng(0))
        options = Options(root=str(root))
        library = seconds(lambda: plain(root), 2)
        built = seconds(lambda: build_index(READER, READER.files(root, "unc"), "unc"))
        memory = {"in memory, forked": worker_memory(open_split(READER, "train", options), "fork")}
        preparing = seconds(lambda: prepare_indices(READER, options))
        opened = seconds(lambda: open_split(READER, "train", options), 3)
        for method in ("fork", "spawn"):
            memory[f"prepared, {method}ed"] = worker_memory(open_split(READER, "train", options), method)
        split = open_split(READER, "train", options)
        print(f"{len(split):,} images, {len(split.target_image):,} targets, {len(split.sentence_target):,} sentences")
        print(f"plain library, pickle and JSON   {library:6.2f} s")
        print(f"index built in memory            {built:6.2f} s  ({built / library:.2f} of the plain library)")
        print(f"riszoo data prepare              {preparing:6.2f} s")
        print(f"prepared split opened            {opened:6.2f} s  ({opened / library:.3f} of the plain library)")
        print(f"one record                       {seconds(lambda: [split[n] for n in range(2000)]) / 2:6.3f} ms")
        for name, grown in memory.items():
            print(f"a worker's own memory, {name:18} +{grown:.0f} MB")


if __name__ == "__main__":
    main()
