"""What a model's evidence maps show over a whole split.

pointing    how often, in %, the largest cell of a map is on the target; of maps for each word, their mean is taken
chance      that percentage for a random point: the mean area of the targets
overlap     mean IoU, in %, of the cells that two words of a sentence retrieve (maps named `retrieved`)
guess       mIoU of a reader with perfect masks that knows only words of appearance (generated data sets)
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from riszoo.batch import Batch, Output, valid_cells
from riszoo.data.generated.guessing import guesses
from riszoo.data.generated.split import GeneratedSplit
from riszoo.data.record import Split
from riszoo.errors import UserError, reason
from riszoo.files import write_atomically
from riszoo.metrics.protocols import Protocol

FILE = "evidence.json"
SETS = "retrieved"
Values = dict[str, float]


class EvidenceTable:
    """The measures of the sentences of one split, by their index, and the types of the sentences."""

    def __init__(self) -> None:
        self.values: dict[int, Values] = {}
        self.types: dict[int, tuple[str, ...]] = {}

    def update(self, output: Output, batch: Batch, protocol: Protocol) -> None:
        """Measure a batch; the targets are the ground truths of a protocol."""
        columns = measures(output, batch, protocol)
        for i, sample in enumerate(batch.samples):
            self.values[sample.index] = {name: column[i] for name, column in columns.items()}
            self.types[sample.index] = sample.tags

    def merge(self, others: Iterable[EvidenceTable]) -> None:
        """Add the sentences of other processes."""
        for other in others:
            self.values |= other.values
            self.types |= other.types

    def summary(self) -> dict[str, Any]:
        """Each measure's mean over all sentences and over those of each type, where it is defined."""
        by_type: dict[str, list[Values]] = defaultdict(list)
        for index in sorted(self.values):
            for kind in self.types[index]:
                by_type[kind].append(self.values[index])
        everything = [self.values[index] for index in sorted(self.values)]
        return {"all": means(everything), "by_type": {kind: means(rows) for kind, rows in sorted(by_type.items())}}


def means(rows: Sequence[Values]) -> Values:
    """The mean of each measure over the rows where it is a number."""
    columns: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            if value == value:
                columns[name].append(value)
    return {name: fmean(column) for name, column in columns.items()}


def appearance_guess(split: Split, samples: Iterable[int]) -> dict[str, Any]:
    """mIoU, for all sentences and by type, of the reader that knows words of appearance; empty for other data sets."""
    if not isinstance(split, GeneratedSplit):
        return {}
    found = guesses(split, sorted({int(split.sentence_image[index]) for index in samples}))
    every = [score for scores in found.values() for score in scores]
    return {"all": 100 * fmean(every), "by_type": {kind: 100 * fmean(scores) for kind, scores in sorted(found.items())}}


# -- the measures of a batch ------------------------------------------------------------------------------------------


def measures(output: Output, batch: Batch, protocol: Protocol) -> dict[str, list[float]]:
    """Each measure's value for each sentence, in %, NaN where it is not defined."""
    assert batch.target_index is not None
    ground_truths = batch.ground_truths[protocol.ground_truth.key]
    targets = [ground_truths[index] for index in batch.target_index.tolist()]
    columns = {"chance": [100 * float(target.float().mean()) if target.any() else torch.nan for target in targets]}
    for name, maps in output.evidence.items():
        if name == SETS:
            columns[f"overlap of {name}"] = (100 * word_overlap(maps, batch)).tolist()
        else:
            columns[f"pointing of {name}"] = pointing(of_sentence(maps, batch), batch, targets)
    return columns


def of_sentence(maps: Tensor, batch: Batch) -> Tensor:
    """(N, L, h, w) -> (N, h, w): the mean over the words of each sentence; (N, 1, h, w) maps are the sentence's own."""
    if maps.shape[1] == 1:
        return maps[:, 0].float()
    words = word_tokens(batch).to(maps.device, torch.float32)  # (N, L)
    return torch.einsum("nl,nlhw->nhw", words / words.sum(1, keepdim=True).clamp(min=1), torch.nan_to_num(maps.float()))


def word_tokens(batch: Batch) -> Tensor:
    """(N, L) bool: the tokens of words, without special ones."""
    assert batch.tokens is not None
    inside = torch.zeros(batch.tokens.mask.shape, dtype=torch.bool)
    for row, spans in zip(inside, batch.tokens.spans, strict=True):
        for _, first, last in spans:
            row[first:last] = True
    return inside


def pointing(maps: Tensor, batch: Batch, targets: Sequence[Tensor]) -> list[float]:
    """For each sentence how much, in %, of the largest cells of its map (h, w) is on the target; NaN without a target.

    Most maps have one largest cell; a map of zeros and ones has many.
    """
    (height, width), (rows, cols) = batch.images.shape[-2:], maps.shape[-2:]
    boxes = batch.valid[batch.image_index].cpu()
    cells = valid_cells(boxes, (height, width), (rows, cols))
    maps = maps.cpu().masked_fill(~cells, -torch.inf)
    largest = (maps == maps.amax((1, 2), keepdim=True)) & cells
    found = []
    for peaks, (top, left, bottom, right), target in zip(largest, boxes.tolist(), targets, strict=True):
        down = centres(rows, height, top, bottom, target.shape[0])
        across = centres(cols, width, left, right, target.shape[1])
        inside = target.cpu()[down][:, across][peaks]
        found.append(100 * float(inside.float().mean()) if target.any() else torch.nan)
    return found


def centres(cells: int, length: int, first: int, last: int, pixels: int) -> Tensor:
    """(cells,) the pixel of the image under the centre of each cell of the frame; the image lies from first to last."""
    centre = (torch.arange(cells) + 0.5) * length / cells
    return ((centre - first) / (last - first) * pixels).floor().long().clamp(0, pixels - 1)


def word_overlap(sets: Tensor, batch: Batch) -> Tensor:
    """(N,) mean IoU over all pairs of words of a sentence of the sets of cells (N, L, h, w); NaN for a single word."""
    assert batch.tokens is not None
    found = sets.new_full((len(sets),), torch.nan)
    for i, spans in enumerate(batch.tokens.spans):
        if len(spans) > 1:
            words = torch.stack([sets[i, first:last].amax(0).flatten() for _, first, last in spans])
            both = words @ words.T
            either = words.sum(1, keepdim=True) + words.sum(1) - both
            pairs = torch.triu(torch.ones_like(both), 1).bool()
            found[i] = (both / either.clamp(min=1))[pairs].mean()
    return found


# -- the file and its text --------------------------------------------------------------------------------------------


def write_evidence(folder: Path, splits: Mapping[str, Any]) -> None:
    """Write `evidence.json`: for each split the summary of its evidence and the guess from appearance."""
    write_atomically(folder / FILE, json.dumps({"format": 1, "splits": splits}, indent=2) + "\n")


def read_evidence(folder: Path, split: str) -> dict[str, Any]:
    """The entry of a split in a test's `evidence.json`; empty where the test measured none."""
    path = folder / FILE
    empty: dict[str, Any] = {"evidence": {}, "guess": {}}
    if not path.is_file():
        return empty
    try:
        entry: dict[str, Any] = json.loads(path.read_bytes())["splits"].get(split, empty)
        return {name: entry[name] for name in empty}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({reason(error, 80)}): test the run again, or remove the file") from error


def describe(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """The content of `evidence.json` as text: a line for each split and measure."""
    lines = []
    for name, entry in splits.items():
        values = entry["evidence"]["all"]
        for measure in sorted(set(values) - {"chance"}):
            chance = f" (chance {values['chance']:.1f})" if measure.startswith("pointing") else ""
            lines.append(f"{measure} on {name}: {values[measure]:.1f} %{chance}")
        if entry["guess"]:
            by_type = ", ".join(f"{kind} {value:.1f}" for kind, value in entry["guess"]["by_type"].items())
            lines.append(f"mIoU of perfect masks guessed from words of appearance on {name}: {by_type}")
    return "\n".join(lines)
