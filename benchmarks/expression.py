"""What the keys and values of a trained VIPA contribute, by type of sentence, on `val` of scenes.

    python benchmarks/expression.py CHECKPOINT [--images 200]

own         mIoU of the model as it is
constant    with keys and values of zero in the decoder: what it then keeps comes from fusion in the encoder
other       with those of the next image's sentences
looks       of a reader with perfect masks that knows colour and shape words and guesses the rest
pointing    share of sentences for which the most relevant cell of the global cue is on the target
overlap     mean IoU of the sets of tokens that two words of a sentence retrieve

The last two need a visual expression (`kv: ve`). Intersection and union are taken in the network's frame.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.batch import Batch, Output
from riszoo.data.dataset import RISDataset, collate
from riszoo.data.samplers import SampleKey
from riszoo.data.sets import Scenes
from riszoo.inference.predictor import load
from riszoo.losses import majority, shrink_mask
from riszoo.models.vipa.expression import Expression
from riszoo.models.vipa.model import VIPA
from tests.support.scene_oracles import colour_and_shape

COLUMNS = ("own", "constant", "other", "looks", "pointing", "overlap")
AT_ONCE = 10
"""Images of a batch, each with the same number of sentences."""


def iou(output: Output, batch: Batch) -> Tensor:
    """(N,)"""
    assert batch.masks is not None
    size = batch.masks.shape[-2:]
    predicted = F.interpolate(output.logits, size=size, mode="bilinear")[:, 0] > 0
    either = (predicted | batch.masks).sum((1, 2))
    return (predicted & batch.masks).sum((1, 2)) / either.clamp(min=1)


def pointing(output: Output, batch: Batch) -> Tensor:
    """(N,) 1 where the peak of the global cue's relevance is on a cell of the target."""
    assert batch.masks is not None
    relevance = output.aux["alignment"]
    target = majority(shrink_mask(batch.masks, (relevance.shape[-2], relevance.shape[-1])))
    return target.flatten(1).gather(1, relevance.flatten(1).argmax(1, keepdim=True))[:, 0]


def overlap(output: Output, batch: Batch) -> Tensor:
    """(N,) mean over all pairs of words, special tokens left out."""
    assert batch.tokens is not None
    means = []
    for retrieved, mask in zip(output.evidence["retrieved"].flatten(2), batch.tokens.mask, strict=True):
        sets = retrieved[mask][1:-1]
        both = sets @ sets.T
        either = sets.sum(1, keepdim=True) + sets.sum(1) - both
        pairs = torch.triu(torch.ones_like(both), 1).bool()
        means.append((both / either)[pairs].mean() if len(sets) > 1 else torch.ones(()))
    return torch.stack(means)


@contextmanager
def rows_of_next_image(model: VIPA, sentences: int) -> Iterator[None]:
    """Every sentence gets the expression of one about another image of the batch."""

    def exchange(_: nn.Module, __: object, expression: Expression) -> Expression:
        rows, mask = expression.states.roll(sentences, 0), expression.mask.roll(sentences, 0)
        return replace(expression, states=rows, mask=mask)

    hook = model.expression.register_forward_hook(exchange)
    try:
        yield
    finally:
        hook.remove()


def measure(model: VIPA, batch: Batch) -> dict[str, Tensor]:
    """Each measure's value for each sentence, (N,)."""
    each = len(batch) // AT_ONCE
    output = model(batch)
    values = {"own": iou(output, batch)}
    model.constant_context = True
    values["constant"] = iou(model(batch), batch)
    model.constant_context = False
    with rows_of_next_image(model, each):
        values["other"] = iou(model(batch), batch)
    if "alignment" in output.aux:
        values |= {"pointing": pointing(output, batch), "overlap": overlap(output, batch)}
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load("vipa", options.checkpoint).model
    assert isinstance(model, VIPA)
    data = RISDataset(Scenes().split("val"), model.size, model.geometry, masks=True, ground_truths=[])
    each = len(data.split.sentence_target) // len(data.split)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for kind, scores in colour_and_shape("val", range(options.images)).items():
        found[kind]["looks"] += scores
    for first, last in pairwise(range(0, options.images + 1, AT_ONCE)):
        keys = [SampleKey(image, tuple(range(image * each, (image + 1) * each))) for image in range(first, last)]
        batch = collate([data[key] for key in keys])
        batch.tokens = model.tokenize(batch.texts)
        with torch.inference_mode():
            measured = measure(model, batch)
        for name, values in measured.items():
            for sample, value in zip(batch.samples, values.tolist(), strict=True):
                found[sample.tags[0]][name].append(value)
    names = [name for name in COLUMNS if any(name in by for by in found.values())]
    print(f"{'':12}" + "".join(f"{name:>10}" for name in names))
    found["all"] = {name: [value for by in found.values() for value in by[name]] for name in names}
    for kind, values in found.items():
        print(f"{kind:12}" + "".join(f"{100 * sum(values[name]) / len(values[name]):10.1f}" for name in names))


if __name__ == "__main__":
    main()
