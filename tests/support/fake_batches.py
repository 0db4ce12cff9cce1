"""Batches of blobs for the metric tests: images of mixed sizes, smooth logits near the masks, and sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from riszoo.batch import Batch, Geometry, Output, Sample
from riszoo.data.masks import Bitmap, shrink
from riszoo.data.record import Record, Sentence, Split, Target
from riszoo.metrics.protocols import PROTOCOLS, Protocol, get_protocols
from riszoo.metrics.results import Evaluation
from riszoo.metrics.sentence_table import NO_HEAD, SentenceTable, width
from riszoo.metrics.suite import RISMetrics
from riszoo.metrics.summary import summarise

FRAME = (96, 96)
NAMES = "original,lavt480,refzom,cris035,phrasecut"


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.ogrid[: size[0], : size[1]]
    return (y + 0.5 - centre[0]) ** 2 + (x + 0.5 - centre[1]) ** 2 < radius**2


class Blobs:
    """A small split: `images` of mixed sizes, `each` sentences about each, every fifth meaning nothing."""

    def __init__(self, images: int = 7, each: int = 3, grid: int = 24, kind: str = "letterbox", head: bool = False):
        rng = np.random.default_rng(5)
        self.samples, self.geometry, self.masks, self.image = [], [], [], []
        for p in range(images):
            size = (int(rng.integers(60, 140)), int(rng.integers(60, 140)))
            geometry = Geometry.fit(kind, size, FRAME)
            self.geometry.append(geometry)
            for _ in range(each):
                i = len(self.samples)
                nothing = i % 5 == 4
                mask = disc(size, rng.uniform(20, min(size) - 20, 2), rng.uniform(8, 30)) & (not nothing)
                self.masks.append(mask)
                self.image.append(p)
                tags = ("none",) if nothing else (("colour", "big") if i % 2 else ("place",))
                text = "the blob " * (i % 3 + 1)
                self.samples.append(Sample(f"s{i}", i, "blobs", "val", f"p{p}", f"t{i}", text, tags, nothing))
        torch.manual_seed(3)
        self.logits = torch.nn.functional.interpolate(torch.randn(len(self.samples), 1, 6, 6), size=(grid, grid))
        for i, mask in enumerate(self.masks):
            inside = np.zeros(FRAME, dtype=bool)
            top, left, bottom, right = self.geometry[self.image[i]].valid
            inside[top:bottom, left:right] = shrink(mask, (bottom - top, right - left))
            near = torch.from_numpy(inside).float()[None, None]
            self.logits[i] += 4 * torch.nn.functional.interpolate(near, size=(grid, grid), mode="area")[0] - 2
        self.head = torch.randn(len(self.samples)) if head else None

    def batch(self, chosen: Sequence[int], protocols: Sequence[Protocol], grouped: bool = True) -> tuple[Output, Batch]:
        """The sentences at these places; `grouped`: an image appears once however many of them are about it."""
        images = sorted({self.image[i] for i in chosen}) if grouped else [self.image[i] for i in chosen]
        place = [images.index(self.image[i]) if grouped else k for k, i in enumerate(chosen)]
        geometry = [self.geometry[p] for p in images]
        ground_truths = {
            p.ground_truth.key: [torch.from_numpy(Bitmap(self.masks[i]).draw(p.ground_truth)) for i in chosen]
            for p in protocols
        }
        samples = [self.samples[i] for i in chosen]
        batch = Batch(
            images=torch.zeros(len(images), 3, *FRAME, dtype=torch.uint8),
            valid=torch.tensor([g.valid for g in geometry]),
            image_ids=[f"p{p}" for p in images],
            geometry=geometry,
            texts=[s.text for s in samples],
            image_index=torch.tensor(place),
            samples=samples,
            no_target=torch.tensor([s.no_target for s in samples]),
            ground_truths=ground_truths,
            target_index=torch.arange(len(chosen)),
        )
        head = None if self.head is None else self.head[list(chosen)]
        return Output(self.logits[list(chosen)], no_target=head), batch


def evaluated(blobs: Blobs, names: str = NAMES) -> Evaluation:
    metrics = RISMetrics(get_protocols(names))
    metrics.update(*blobs.batch(range(len(blobs.samples)), metrics.protocols))
    return Evaluation(metrics.sentence_table(), blobs.samples, {"expressions": "all"})


def values_of(name: str, *cases: tuple) -> dict[str, float]:
    """The metrics of sentences given by their counts.

    Cases are (I, |P|, |G|) and, on sets with no-target sentences, (I, |P|, |G|, no_target, head).
    """
    protocol = PROTOCOLS[name]
    values = np.zeros((len(cases), width([protocol])), np.int64)
    for i, case in enumerate(cases):
        intersection, predicted, true, no_target, head = (*case, False, NO_HEAD) if len(case) == 3 else case
        values[i, :6] = i, no_target, head, intersection, predicted, true
    return summarise(SentenceTable.sort([protocol], values), protocol)


class BlobSplit(Split):
    """The blobs as a reader would yield them."""

    dataset, name = "blobs", "val"

    def __init__(self, blobs: Blobs):
        self.blobs = blobs
        self.target_image = np.array(blobs.image)
        self.sentence_target = np.arange(len(blobs.samples))

    def __len__(self) -> int:
        return len(self.blobs.geometry)

    def __getitem__(self, image: int) -> Record:
        own = [s for s in self.blobs.samples if s.image_id == f"p{image}"]
        targets = [
            Target(
                s.target_id, Bitmap(self.blobs.masks[s.index]), (Sentence(s.sentence_id, s.text, s.tags),), s.no_target
            )
            for s in own
        ]
        size = self.blobs.geometry[image].original
        return Record(f"p{image}", size, tuple(targets), lambda: np.zeros((*size, 3), np.uint8))

    def fingerprint(self) -> str:
        return "blobs"
