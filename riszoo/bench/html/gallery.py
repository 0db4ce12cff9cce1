"""The report's gallery: sentences selected from the files of several tests, with every model's mask and evidence."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from riszoo.batch import Sample
from riszoo.bench.html.evaluated import EvaluatedRun, common_protocols, sentence_ious
from riszoo.bench.html.pointing import Hit, Mask, peak_is_inside, with_peak
from riszoo.data.dataset import RISDataset, collate
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.masks import shrink
from riszoo.data.samplers import SampleKey
from riszoo.errors import UserError
from riszoo.inference.drawing import heat, overlay
from riszoo.inference.predictions import evidence_of, predictions
from riszoo.metrics.external import by_sentence, mask_or_empty, read_predictions
from riszoo.metrics.protocols import Protocol
from riszoo.training.checkpoints import from_checkpoint

SIDE, EVIDENCE_SIDE = 240, 112  # pixels of the longer side in the page
QUALITY = 65  # of WebP: a page of 24 sentences and two models with many maps stays near 1 MB
MAX_WORDS = 8  # words of one sentence whose maps are shown
IMAGES_PER_BATCH = 8
REASONS = ("worst", "best", "disagreement", "types")
Maps = list[tuple[str, str, Hit]]
"""The label of each evidence map, its image as a data URL, and whether its peak is inside the target."""
Predicted = tuple[str, Mask, Any, list[tuple[str, Any]]]
"""The id of a sentence, the mask, the pixels of the image, and the labelled evidence maps."""


@dataclass
class Example:
    """One sentence, every run's IoU on it (0..1) by protocol, the main one first, and why it is shown."""

    sample: Sample
    ious: dict[str, dict[str, float]]
    reasons: list[str] = field(default_factory=list)

    @property
    def main(self) -> list[float]:
        """The IoUs under the main protocol."""
        return list(next(iter(self.ious.values())).values())

    @property
    def mean(self) -> float:
        return float(np.mean(self.main))

    @property
    def spread(self) -> float:
        return max(self.main) - min(self.main)


@dataclass
class Images:
    """The images of one example as data URLs; masks and evidence by run."""

    image: str
    ground_truth: str
    masks: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)  # runs that predicted an empty mask
    evidence: dict[str, Maps] = field(default_factory=dict)


def gallery(found: Sequence[EvaluatedRun], splits: Sequence[str], size: int) -> dict[str, Any]:
    """The data of the page's script: about `size` examples over all splits."""
    items: list[dict[str, Any]] = []
    shown: Counter[str] = Counter()
    for split in splits:
        examples = select(found, split, max(1, size // len(splits)), shown)
        images = draw(found, split, examples)
        items += [{"split": split, **_entry(example, images[example.sample.sentence_id])} for example in examples]
    return {
        "models": [run.name for run in found],
        "splits": list(splits),
        "protocols": [protocol.name for protocol in common_protocols(found)],
        "items": items,
    }


def _entry(example: Example, images: Images) -> dict[str, Any]:
    return {
        "id": example.sample.sentence_id,
        "text": example.sample.text,
        "types": list(example.sample.tags),
        "no_target": example.sample.no_target,
        "reasons": example.reasons,
        "iou": {
            protocol: {name: round(100 * value, 1) for name, value in ious.items()}
            for protocol, ious in example.ious.items()
        },
        **vars(images),
    }


# -- selection --------------------------------------------------------------------------------------------------------


def select(found: Sequence[EvaluatedRun], split: str, count: int, shown: Counter[str]) -> list[Example]:
    """About `count` sentences: the worst, the best, the most disputed, and some of types that `shown` counts least."""
    examples = shared_examples(found, split)
    share = max(1, count // len(REASONS))
    ranked = {
        "worst": sorted(examples, key=lambda example: example.mean),
        "best": sorted(examples, key=lambda example: -example.mean),
    }
    if len(found) > 1:
        ranked["disagreement"] = sorted(examples, key=lambda example: -example.spread)
    for reason, order in ranked.items():
        for example in order[:share]:
            example.reasons.append(reason)
    selected = [example for example in examples if example.reasons]
    shown.update(tag for example in selected for tag in example.sample.tags)
    for example in _of_rare_types(examples, max(1, count - len(selected)), shown):
        example.reasons.append("types")
    return [example for example in examples if example.reasons]


def _of_rare_types(examples: Sequence[Example], count: int, shown: Counter[str]) -> list[Example]:
    """`count` sentences, one after the other that whose types were shown least; `shown` counts them."""
    remaining = [example for example in examples if example.sample.tags and not example.reasons]
    chosen: list[Example] = []
    while remaining and len(chosen) < count:
        best = max(remaining, key=lambda example: sum(0.5 ** shown[tag] for tag in example.sample.tags))
        remaining.remove(best)
        chosen.append(best)
        shown.update(best.sample.tags)
    return chosen


def shared_examples(found: Sequence[EvaluatedRun], split: str) -> list[Example]:
    """The sentences that all runs measured, in the split's order, with the runs' IoUs under each protocol."""
    results = {run.name: run.evaluation(split) for run in found}
    rows = {run: {s.sentence_id: i for i, s in enumerate(each.row_samples())} for run, each in results.items()}
    ious = {
        protocol.name: {
            run: sentence_ious(each, protocol) for run, each in results.items() if protocol in each.table.protocols
        }
        for protocol in common_protocols(found)
    }
    examples = [
        Example(sample, _select_row({run: own[sample.sentence_id] for run, own in rows.items()}, ious))
        for sample in results[found[0].name].row_samples()
        if all(sample.sentence_id in own for own in rows.values())
    ]
    if not examples:
        raise UserError(f"the runs have no sentence of '{split}' in common: report runs on the same data")
    return examples


def _select_row(
    row_of: Mapping[str, int], ious: Mapping[str, Mapping[str, Sequence[float]]]
) -> dict[str, dict[str, float]]:
    """protocol -> run -> the IoU in the run's own row."""
    return {protocol: {run: own[row_of[run]] for run, own in by_run.items()} for protocol, by_run in ious.items()}


# -- drawing ----------------------------------------------------------------------------------------------------------


def draw(found: Sequence[EvaluatedRun], split: str, examples: Sequence[Example]) -> dict[str, Images]:
    """The images of every example by sentence; each checkpoint predicts again, under the main protocol.

    Masks of other code are read from their files.
    """
    targets: dict[str, Mask] = {}
    images: dict[str, Images] = {}
    dataset = RISDataset(found[0].split(split), (8, 8), "squeeze")
    for name, pixels, mask in _ground_truths(dataset, examples):
        targets[name] = mask
        images[name] = Images(data_url(Image.fromarray(pixels)), data_url(overlay(pixels, None, mask)))
    protocol = common_protocols(found)[0]
    for run in found:
        if run.predictions is not None:
            predicted = _scored(run, run.predictions, split, examples)
        else:
            predicted = _predicted(run, split, examples, protocol)
        for name, mask, pixels, evidence in predicted:
            own, target = images[name], targets[name]
            own.masks[run.name] = data_url(overlay(pixels, shrink(mask, pixels.shape[:2])))
            own.evidence[run.name] = [_drawn(pixels, label, values, target) for label, values in evidence]
            own.empty += [] if mask.any() else [run.name]
    return images


def _drawn(pixels: Any, label: str, values: Any, target: Mask) -> tuple[str, str, Hit]:
    """A map over the image with a ring around its peak."""
    image = heat(resized(pixels, EVIDENCE_SIDE), values)
    return label, data_url(with_peak(image, values)), peak_is_inside(values, target)


def sample_keys(examples: Sequence[Example], dataset: RISDataset) -> list[SampleKey]:
    """The examples as indices into the data set, grouped by image."""
    ids, images = dataset.split.sentence_ids(), dataset.split.sentence_image
    indices = sorted(_index(example.sample, ids) for example in examples)
    return [SampleKey(image, tuple(own)) for image, own in groupby(indices, key=lambda index: int(images[index]))]


def _index(sample: Sample, ids: list[str]) -> int:
    """The index of a sentence, which another run may have measured in another order, in a data set with these ids."""
    if ids[sample.index : sample.index + 1] == [sample.sentence_id]:
        return sample.index
    if sample.sentence_id not in ids:
        raise UserError(
            f"the data has no sentence '{sample.sentence_id}' any more, which was tested: test the runs again"
        )
    return ids.index(sample.sentence_id)


def _ground_truths(dataset: RISDataset, examples: Sequence[Example]) -> Iterator[tuple[str, Any, Mask]]:
    """The id, the pixels and the target of every example."""
    for item in sample_keys(examples, dataset):
        record = dataset.split[item.image]
        pixels = resized(record.load(), SIDE)
        targets = {target.target_id: target for target in record.targets}
        for sample in dataset.samples(item.sentences):
            mask = targets[sample.target_id].segmentation.draw(GroundTruth())
            yield sample.sentence_id, pixels, shrink(mask, pixels.shape[:2])


def _scored(run: EvaluatedRun, file: Path, split: str, examples: Sequence[Example]) -> Iterator[Predicted]:
    """Each example's mask in the file or folder that `riszoo score` measured, and pixels; there is no evidence."""
    dataset = RISDataset(run.split(split), (8, 8), "squeeze")
    given = by_sentence(read_predictions(file), dataset.split.sentence_ids())
    for item in sample_keys(examples, dataset):
        record = dataset.split[item.image]
        pixels = resized(record.load(), SIDE)
        for sample in dataset.samples(item.sentences):
            yield sample.sentence_id, mask_or_empty(given.get(sample.sentence_id), record.size), pixels, []


@torch.no_grad()
def _predicted(run: EvaluatedRun, split: str, examples: Sequence[Example], protocol: Protocol) -> Iterator[Predicted]:
    """Each example's mask, pixels and labelled evidence maps from the run's checkpoint."""
    model = from_checkpoint(run.checkpoint)
    dataset = RISDataset(
        run.split(split),
        model.size,
        model.geometry,
        ground_truths=[protocol.ground_truth],
        views=model.views,
    )
    items = sample_keys(examples, dataset)
    for start in range(0, len(items), IMAGES_PER_BATCH):
        chunk = items[start : start + IMAGES_PER_BATCH]
        batch = collate([dataset[item] for item in chunk])
        batch.tokens = model.tokenize(batch.texts)
        output = model(batch)
        pixels = [resized(dataset.split[item.image].load(), SIDE) for item in chunk]
        for i, prediction in enumerate(predictions(output, batch, protocol)):
            evidence = _labelled(evidence_of(output, batch, i))
            yield prediction.sentence_id, prediction.mask, pixels[int(batch.image_index[i])], evidence


def _labelled(evidence: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A map of the whole sentence for each name, of maps of words their mean; then the words of the first such name."""
    by_word = {name: maps for name, maps in evidence.items() if not isinstance(maps, np.ndarray) and maps}
    whole = {name: maps for name, maps in evidence.items() if isinstance(maps, np.ndarray)}
    whole |= {name: np.mean([values for _, values in maps], 0) for name, maps in by_word.items()}
    words = [
        (f"{name}: {word}", values) for name, maps in list(by_word.items())[:1] for word, values in maps[:MAX_WORDS]
    ]
    return [*whole.items(), *words]


def resized(image: Any, side: int) -> Any:
    """(H, W, 3) whose longer side has `side` pixels."""
    loaded = Image.fromarray(image)
    scale = side / max(loaded.size)
    size = (max(1, round(loaded.width * scale)), max(1, round(loaded.height * scale)))
    return np.asarray(loaded.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
