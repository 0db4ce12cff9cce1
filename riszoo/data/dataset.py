"""From a record to what the network sees: images in the frame, sentences, ground truths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from riszoo.batch import Batch, Features, Geometry, GeometryKind, Sample
from riszoo.data.augment import Augment, augmented
from riszoo.data.controls import Control
from riszoo.data.features import FeatureCache, stack_maps
from riszoo.data.images import place_image
from riszoo.data.masks import GroundTruth
from riszoo.data.record import Record, Split
from riszoo.data.samplers import SampleKey


class Example(NamedTuple):
    """One image with its questions, before several are stacked."""

    image: Tensor | None  # (3, H, W) uint8; None where features are kept
    geometry: Geometry
    samples: list[Sample]
    masks: Tensor | None  # (n, H, W) bool, for each sentence
    ground_truths: dict[str, list[Tensor]]  # variant -> (h, w) bool, for each target asked about
    target_index: list[int]  # for each sentence, into each list of `ground_truths`
    maps: list[Tensor]  # the kept features, each (C, h, w)


class RISDataset(Dataset[Example]):
    """A split as the network is asked about it.

    `masks` gives the union at network size (training); `ground_truths` lists the variants that protocols compare with.
    A control changes the sentences and nothing else; `augment` changes images, masks and sentences together, for
    items that carry a seed. With a `cache`, kept features stand in for images, and none is decoded.
    """

    def __init__(
        self,
        split: Split,
        frame: tuple[int, int],
        geometry: GeometryKind,
        *,
        masks: bool = False,
        ground_truths: list[GroundTruth] | None = None,
        control: Control = "none",
        augment: Augment | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        self.split, self.frame, self.geometry, self.augment, self.cache = split, frame, geometry, augment, cache
        self.masks, self.ground_truths, self.control = masks, ground_truths or [], control

    def __getitem__(self, item: SampleKey) -> Example:
        record = self.split[item.image]
        if self.augment is not None and item.seed is not None:
            record = augmented(record, self._chosen(record, item), self.augment, item.seed)
        geometry = Geometry.fit(self.geometry, record.size, self.frame)
        samples = self._samples(record, item)
        places = [place for place, _ in self._chosen(record, item)]
        asked = sorted(set(places))
        return Example(
            place_image(record.load(), geometry) if self.cache is None else None,
            geometry,
            samples,
            torch.stack([self._mask(record, place, geometry) for place in places]) if self.masks else None,
            {
                t.key: [torch.from_numpy(record.targets[p].segmentation.draw(t)) for p in asked]
                for t in self.ground_truths
            },
            [asked.index(place) for place in places],
            [] if self.cache is None else self.cache.read(self.split.image_version(item.image)),
        )

    def decoded(self, batch: Batch, sentences: int) -> Batch:
        """The batch with the images of its first sentences, where features stood in for them."""
        if batch.raw is None:
            return batch
        places = {
            int(image): int(self.split.sentence_image[sample.index])
            for image, sample in zip(batch.image_index[:sentences], batch.samples[:sentences], strict=True)
        }
        shown = [place_image(self.split[place].load(), batch.geometry[image]) for image, place in places.items()]
        return replace(batch, images=torch.stack(shown))

    def samples(self, places: Iterable[int]) -> list[Sample]:
        """The questions at these places of the split, without decoding an image."""
        images = self.split.sentence_image
        asked: dict[int, list[int]] = {}
        for place in places:
            asked.setdefault(int(images[place]), []).append(place)
        return [
            sample
            for image, within in asked.items()
            for sample in self._samples(self.split[image], SampleKey(image, tuple(within)))
        ]

    def by_image(self) -> Iterator[tuple[Record, list[Sample], list[int]]]:
        """Every sentence, an image at a time, with its target's place in the record; no image is decoded."""
        places = np.arange(len(self.split.sentence_target))
        for image, within in groupby(places.tolist(), self.split.sentence_image.tolist().__getitem__):
            record, item = self.split[image], SampleKey(image, tuple(within))
            yield record, self._samples(record, item), [place for place, _ in self._chosen(record, item)]

    def _chosen(self, record: Record, item: SampleKey) -> list[tuple[int, int]]:
        """(place of the target, place of the sentence) of each sentence asked, within the record."""
        first_target = np.searchsorted(self.split.target_image, item.image)
        first = int(np.searchsorted(self.split.sentence_target, first_target))
        flat = [place for place, _ in record.sentences()]
        return [(flat[index - first], index - first) for index in item.sentences]

    def _samples(self, record: Record, item: SampleKey) -> list[Sample]:
        flat = record.sentences()
        samples = []
        for index, (place, within) in zip(item.sentences, self._chosen(record, item), strict=True):
            sentence, target = flat[within][1], record.targets[place]
            text = self._asked(sentence.text, item.image, within)
            samples.append(
                Sample(
                    sentence_id=sentence.sentence_id,
                    index=index,
                    dataset=self.split.dataset,
                    split=self.split.name,
                    image_id=record.image_id,
                    target_id=target.target_id,
                    text=text,
                    tags=sentence.tags,
                    no_target=target.no_target,
                )
            )
        return samples

    def _asked(self, text: str, image: int, within: int) -> str:
        if self.control == "none":
            return text
        if self.control == "blank":
            return ""
        other = self.split[(image + max(1, len(self.split) // 2)) % len(self.split)].sentences()
        return other[within % len(other)][1].text

    def _mask(self, record: Record, place: int, geometry: Geometry) -> Tensor:
        """The union in the network's frame; nothing is named outside the image."""
        top, left, bottom, right = geometry.valid
        inside = record.targets[place].segmentation.draw(GroundTruth(frame=geometry.inside))
        mask = torch.zeros(self.frame, dtype=torch.bool)
        mask[top:bottom, left:right] = torch.from_numpy(inside)
        return mask


def collate(examples: list[Example]) -> Batch:
    """Images stacked; sentences, and targets, in one row over all of them."""
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
    )
