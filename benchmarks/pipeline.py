"""How many samples one core decodes, resizes, draws and stacks a second. Makes its own JPEGs, prints a table.

python benchmarks/pipeline.py [--images 60] [--seconds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from PIL import Image

from riszoo.data.dataset import RISDataset, collate
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.images import decode, resize
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.opening import Options, open_split
from riszoo.data.samplers import EvalBatchSampler, StepPlan, TrainBatchSampler

SIZE = (480, 640)
GRAIN = 16  # of 255
TARGETS = (3, 2, 2)  # sentences of each of an image's targets: seven an image, as in RefCOCO


def photo(random: np.random.Generator) -> Image.Image:
    """Blobs of every size with grain: a JPEG of about 160 KB, as the mean of COCO's train2014 is."""
    values = np.zeros((*SIZE, 3))
    for octave in range(2, 10):
        cells = random.integers(0, 256, (2**octave * 3 // 4 + 1, 2**octave + 1, 3), dtype=np.uint8)
        values += np.asarray(Image.fromarray(cells).resize(SIZE[::-1], Image.Resampling.BICUBIC)) * 0.62**octave
    values = (values - values.min()) / np.ptp(values) * 255 + random.normal(0, GRAIN, values.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def make(root: Path, images: int) -> float:
    """A RefCOCO of images with three targets and seven sentences each; gives the mean size of a JPEG in KB."""
    random = np.random.default_rng(0)
    photos = root / "images/train2014"
    (root / "refcoco").mkdir()
    photos.mkdir(parents=True)
    images, annotations, refs = [], [], []
    for image in range(1, images + 1):
        name = f"COCO_train2014_{image:012d}.jpg"
        photo(random).save(photos / name, quality=90)
        images.append({"id": image, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for place, count in enumerate(TARGETS):
            number = image * 10 + place
            annotations.append({"id": number, "image_id": image, "segmentation": [_outline(random)]})
            sentences = [
                {"sent_id": number * 10 + n, "raw": f"the thing {n}", "sent": f"the thing {n}"} for n in range(count)
            ]
            refs.append({"ref_id": number, "ann_id": number, "image_id": image, "split": "val", "sentences": sentences})
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    (root / "refcoco/instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return float(np.mean([path.stat().st_size for path in photos.iterdir()])) / 1e3


def _outline(random: np.random.Generator) -> list[float]:
    angles = np.sort(random.uniform(0, 6.28, 40))
    centre, radius = random.uniform(150, 330, 2), random.uniform(30, 140)
    points: list[float] = (centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).ravel().tolist()
    return points


def rate(task: Callable[[], int], seconds: float) -> float:
    """Things a CPU second: `task` says how many it did."""
    task()
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        done += task()
    return done / (time.process_time() - start)


def over(paths: list[Path], step: Callable[[Path], Any]) -> Callable[[], int]:
    def task() -> int:
        for path in paths:
            step(path)
        return len(paths)

    return task


def batches(questions: RISDataset, order: Any) -> Callable[[], int]:
    def task() -> int:
        return sum(len(collate([questions[item] for item in batch])) for batch in order)

    return task


def rows(root: Path, seconds: float) -> Iterator[tuple[str, float]]:
    split = open_split(get_reader("refcoco"), "val", Options(root=str(root)))
    paths = split.paths()
    pixels = [decode(path) for path in paths[:8]]
    masks = [split[n].targets[0].segmentation for n in range(8)]
    yield "decode, Pillow", rate(over(paths, lambda path: np.asarray(Image.open(path))), seconds)
    yield "decode, as here", rate(over(paths, decode), seconds)

    def pillow(one: Any) -> Any:
        return np.asarray(Image.fromarray(one).resize((480, 480), Image.Resampling.BILINEAR))

    yield "resize to 480, Pillow", rate(lambda: len([pillow(one) for one in pixels]), seconds)
    yield "resize to 480, as here", rate(lambda: len([resize(one, (480, 480)) for one in pixels]), seconds)
    shrunk = GroundTruth(frame=(480, 480))
    yield "masks drawn, shrunk to 480", rate(lambda: len([one.draw(shrunk) for one in masks]), seconds)
    train = TrainBatchSampler(split, StepPlan(16, 16, 1, 1), "targets", 0, 0, 1)
    yield "training samples", rate(batches(RISDataset(split, (480, 480), "squeeze", masks=True), train), seconds)
    evaluation = EvalBatchSampler(split, 16, True, 0, 1)
    for name, ground_truth in {"original": GroundTruth(), "480": shrunk}.items():
        questions = RISDataset(split, (480, 480), "squeeze", ground_truths=[ground_truth])
        yield f"evaluation sentences, {name}", rate(batches(questions, evaluation), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        size = make(Path(folder), given.images)
        print(f"{SIZE[1]} x {SIZE[0]} JPEGs of {size:.0f} KB, one core, a CPU second:")
        for name, value in rows(Path(folder), given.seconds):
            print(f"  {name:32} {value:8,.0f}")


if __name__ == "__main__":
    main()
