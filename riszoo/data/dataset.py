"""Records as network inputs: images in the frame, sentences, ground truths; and their batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from riszoo.batch import Batch, Features, Geometry, GeometryKind, Sample, View
from riszoo.data.augment import Augment, augmented
from riszoo.data.controls import OF_CONTEXT, Control
from riszoo.data.features import FeatureCache, stack_maps
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.images import place_image, view_of
from riszoo.data.record import Record, Split
from riszoo.data.samplers import SampleKey


class Example(NamedTuple):
    """One image with its samples, before several are collated."""

    image: Tensor | None  # (3, H, W) uint8; None where cached features replace it
    geometry: Geometry
    samples: list[Sample]
    masks: Tensor | None  # (n, H, W) bool, for each sentence
    ground_truths: dict[str, list[Tensor]]  # variant -> (h, w) bool, for each distinct target
    target_index: list[int]  # for each sentence, into each list of `ground_truths`
    maps: list[Tensor]  # the cached features, each (C, h, w)
    views: list[Tensor]  # each (3, h, w) float


class RISDataset(Dataset[Example]):
    """The examples of a split, indexed by `SampleKey`.

    `masks` adds the union at network size (training); `ground_truths` lists the variants that protocols compare with.
    `name` is what results call the split: as it was asked for, such as `refcoco/val`, where that is more than its own
    name. A control changes the sentences only; `augment` changes images, masks and sentences together, for keys with a
    seed. With a `cache`, cached features replace the images, which are not decoded.
    """

    def __init__(
        self,
        split: Split,
        frame: tuple[int, int],
        geometry: GeometryKind,
        *,
        name: str | None = None,
        masks: bool = False,
        ground_truths: list[GroundTruth] | None = None,
        control: Control = "none",
        augment: Augment | None = None,
        cache: FeatureCache | None = None,
        views: Sequence[View] = (),
    ) -> None:
        self.split, self.frame, self.geometry, self.views = split, frame, geometry, views
        self.name = name or split.name
        self.augment, self.cache = augment, cache
        self.masks, self.ground_truths, self.control = masks, ground_truths or [], control

    def __getitem__(self, item: SampleKey) -> Example:
        record = self.split[item.image]
        if self.augment is not None and item.seed is not None:
            record = augmented(record, self._positions(record, item), self.augment, item.seed)
        geometry = Geometry.fit(self.geometry, record.size, self.frame)
        samples = self._samples(record, item)
        targets = [target for target, _ in self._positions(record, item)]
        distinct = sorted(set(targets))
        image, maps, views = self._inputs(record, item.image, geometry)
        return Example(
            image,
            geometry,
            samples,
            torch.stack([self._mask(record, target, geometry) for target in targets]) if self.masks else None,
            {
                t.key: [torch.from_numpy(record.targets[i].segmentation.draw(t)) for i in distinct]
                for t in self.ground_truths
            },
            [distinct.index(target) for target in targets],
            maps,
            views,
        )

    def _inputs(
        self, record: Record, index: int, geometry: Geometry
    ) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
        """The image in the frame or, with a cache, the maps that replace it; and the image's views."""
        if self.cache is None:
            pixels = record.load()
            return place_image(pixels, geometry), [], [view_of(pixels, view) for view in self.views]
        cached = self.cache.read(self.split.image_version(index))
        maps = len(cached) - len(self.views)
        return None, cached[:maps], cached[maps:]

    def decoded(self, batch: Batch, sentences: int) -> Batch:
        """The batch with the images of its first sentences, decoded where cached features replaced them."""
        if batch.raw is None:
            return batch
        indices = {
            int(image): int(self.split.sentence_image[sample.index])
            for image, sample in zip(batch.image_index[:sentences], batch.samples[:sentences], strict=True)
        }
        images = [place_image(self.split[index].load(), batch.geometry[image]) for image, index in indices.items()]
        return replace(batch, images=torch.stack(images))

    def samples(self, sentences: Iterable[int]) -> list[Sample]:
        """The samples of these sentences of the split, grouped by image; no image is decoded."""
        by_image: dict[int, list[int]] = {}
        for sentence in sentences:
            by_image.setdefault(int(self.split.sentence_image[sentence]), []).append(sentence)
        return [
            sample
            for image, own in by_image.items()
            for sample in self._samples(self.split[image], SampleKey(image, tuple(own)))
        ]

    def by_image(self) -> Iterator[tuple[Record, list[Sample], list[int]]]:
        """Each image's record and samples, and the index of each sample's target; no image is decoded."""
        sentences = range(len(self.split.sentence_target))
        for image, own in groupby(sentences, self.split.sentence_image.tolist().__getitem__):
            record, item = self.split[image], SampleKey(image, tuple(own))
            yield record, self._samples(record, item), [target for target, _ in self._positions(record, item)]

    def _positions(self, record: Record, item: SampleKey) -> list[tuple[int, int]]:
        """(index of the target, index of the sentence) within the record, for each sentence of the key."""
        first_target = np.searchsorted(self.split.target_image, item.image)
        first = int(np.searchsorted(self.split.sentence_target, first_target))
        targets = [target for target, _ in record.sentences()]
        return [(targets[index - first], index - first) for index in item.sentences]

    def _samples(self, record: Record, item: SampleKey) -> list[Sample]:
        sentences = record.sentences()
        samples = []
        for index, (target_index, within) in zip(item.sentences, self._positions(record, item), strict=True):
            sentence, target = sentences[within][1], record.targets[target_index]
            text = self._controlled(sentence.text, item.image, within)
            samples.append(
                Sample(
                    sentence_id=sentence.sentence_id,
                    index=index,
                    dataset=self.split.dataset,
                    split=self.name,
                    image_id=record.image_id,
                    target_id=target.target_id,
                    text=text,
                    tags=sentence.tags,
                    no_target=target.no_target,
                )
            )
        return samples

    def _controlled(self, text: str, image: int, within: int) -> str:
        if self.control in ("none", *OF_CONTEXT):
            return text
        if self.control == "blank":
            return ""
        other = self.split[(image + max(1, len(self.split) // 2)) % len(self.split)].sentences()
        return other[within % len(other)][1].text

    def _mask(self, record: Record, target: int, geometry: Geometry) -> Tensor:
        """A target's union in the network's frame, False outside the image."""
        top, left, bottom, right = geometry.valid
        inside = record.targets[target].segmentation.draw(GroundTruth(frame=geometry.inside))
        mask = torch.zeros(self.frame, dtype=torch.bool)
        mask[top:bottom, left:right] = torch.from_numpy(inside)
        return mask


def collate(examples: list[Example]) -> Batch:
    """One batch of several examples: images stacked, sentences and targets concatenated."""
    counts = torch.tensor([len(e.samples) for e in examples])
    samples = [sample for e in examples for sample in e.samples]
    starts = np.cumsum([0] + [max(e.target_index) + 1 for e in examples[:-1]]).tolist()
    images, frame = [e.image for e in examples if e.image is not None], examples[0].geometry.frame
    valid = torch.tensor([e.geometry.valid for e in examples])
    levels = zip(*(e.maps for e in examples), strict=True)
    return Batch(
        images=torch.stack(images) if images else torch.empty((0, 3, *frame), dtype=torch.uint8),
        valid=valid,
        image_ids=[e.samples[0].image_id for e in examples],
        geometry=[e.geometry for e in examples],
        texts=[sample.text for sample in samples],
        image_index=torch.repeat_interleave(torch.arange(len(examples)), counts),
        samples=samples,
        no_target=torch.tensor([sample.no_target for sample in samples]),
        masks=torch.cat([e.masks for e in examples if e.masks is not None]) if examples[0].masks is not None else None,
        ground_truths={
            key: [mask for e in examples for mask in e.ground_truths[key]] for key in examples[0].ground_truths
        },
        target_index=torch.tensor([i + s for e, s in zip(examples, starts, strict=True) for i in e.target_index]),
        raw=None if images else Features([stack_maps(level) for level in levels], valid, frame),
        views=[torch.stack(view).float() for view in zip(*(e.views for e in examples), strict=True)],
    )
