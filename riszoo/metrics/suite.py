"""RISMetrics: every protocol in one pass over the logits, bit-equal on any number of processes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from riszoo.batch import Batch, Geometry, Output
from riszoo.metrics.bits import Words, count_words, pack
from riszoo.metrics.counts import count
from riszoo.metrics.protocols import Protocol
from riszoo.metrics.resample import Size, foreground, score
from riszoo.metrics.sentence_table import COUNTS, NO_HEAD, SentenceTable, width
from riszoo.metrics.summary import Values, summarise
from riszoo.metrics.window import Maps, foreground_window

Kind = TypeVar("Kind", bound=Hashable)

CELLS_AT_ONCE = {"cpu": 2**18, "cuda": 2**24}
"""Pixels processed at a time: as many as a CPU cache holds, or as a device's memory allows."""

COUNTED_AT_ONCE = 2**22
"""Pixels counted at a time on a CPU, where they are bits."""


class RISMetrics(Metric):
    """One row of integers a sentence; `compute` sums them up, independent of their order.

    `update` takes a model's output and its batch, which carries the ground truth of every protocol.
    `sentence_table()`, inside `sync_context`, is the table that the files of a run are written from.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    blocks: list[Tensor]

    def __init__(self, protocols: Sequence[Protocol], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocols = tuple(protocols)
        self.add_state("blocks", default=[], dist_reduce_fx="cat")

    def update(self, output: Output, batch: Batch) -> None:
        geometries = [batch.geometry[i] for i in batch.image_index.tolist()]
        columns = [_shared_columns(output, batch)]
        columns += [protocol_counts(output.logits, geometries, batch, protocol) for protocol in self.protocols]
        self.blocks.append(torch.cat(columns, -1))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """A process without a sentence takes part with an empty block."""
        if not self.blocks:
            self.blocks.append(torch.zeros(0, width(self.protocols), dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def sentence_table(self) -> SentenceTable:
        """The rows of this process; inside `with metrics.sync_context():`, the rows of all."""
        blocks = [self.blocks] if isinstance(self.blocks, Tensor) else self.blocks
        values = [block.cpu().numpy() for block in blocks]
        empty = np.zeros((0, width(self.protocols)), np.int64)
        return SentenceTable.sort(self.protocols, np.concatenate([empty, *values]))

    def compute(self) -> dict[str, Values]:
        """protocol -> metric -> value, times 100."""
        table = self.sentence_table()
        return {protocol.name: summarise(table, protocol) for protocol in self.protocols}


def _shared_columns(output: Output, batch: Batch) -> Tensor:
    """(N, 3): index in the split, whether the sentence has no target, what the no-target head predicts."""
    device = output.logits.device
    sample = torch.tensor([(s.index, s.no_target) for s in batch.samples], device=device, dtype=torch.int64)
    head = sample.new_full((len(sample),), NO_HEAD) if output.no_target is None else (output.no_target > 0).long()
    return torch.cat([sample, head.to(device)[:, None]], -1)


def protocol_counts(logits: Tensor, geometries: Sequence[Geometry], batch: Batch, protocol: Protocol) -> Tensor:
    """(N, 13) int64 counts of one protocol, computed a chunk of sentences at a time."""
    ground_truths, targets = _ground_truths(batch, protocol)
    true = [ground_truths[target] for target in targets]
    sizes = [protocol.ground_truth.frame or geometry.original for geometry in geometries]
    _check_sizes(true, sizes)
    counted = _counts_on_cpu if logits.device.type == "cpu" else _counts_on_device
    return counted(logits[:, 0].detach(), geometries, sizes, true, protocol)


def _counts_on_cpu(
    logits: Tensor, geometries: Sequence[Geometry], sizes: Sequence[Size], true: Sequence[Tensor], protocol: Protocol
) -> Tensor:
    """By NumPy, on masks as bits: one resize for all sentences of a geometry, one count for all of a size."""
    scores = score(logits, protocol).numpy()
    counts = np.empty((len(scores), len(COUNTS)), np.int64)
    for size, alike in _groups(range(len(sizes)), sizes).items():
        for chunk in _pieces(alike, size, COUNTED_AT_ONCE):
            pieces = [
                piece
                for group in _groups(chunk, geometries).values()
                for piece in _pieces(group, size, CELLS_AT_ONCE["cpu"])
            ]
            words = [
                _packed(scores[piece], geometries[piece[0]], [true[i] for i in piece], protocol) for piece in pieces
            ]
            counts[[i for piece in pieces for i in piece]] = count_words(np.concatenate(words, 1), size, protocol.band)
    return torch.from_numpy(counts)


def _packed(scores: Maps, geometry: Geometry, true: Sequence[Tensor], protocol: Protocol) -> Words:
    """(2, n, M0, V): the predictions and ground truths of sentences that share a geometry, as bits."""
    masks = np.stack([mask.numpy() for mask in true])
    predicted, corner = foreground_window(scores, geometry, (masks.shape[1], masks.shape[2]), protocol)
    return pack(predicted, masks, corner)


def _counts_on_device(
    logits: Tensor, geometries: Sequence[Geometry], sizes: Sequence[Size], true: Sequence[Tensor], protocol: Protocol
) -> Tensor:
    """By PyTorch, in few calls: a chunk may mix geometries."""
    blocks, order = [], []
    for chunk in _chunks(sizes, geometries, logits.device.type):
        own = [sizes[i] for i in chunk]
        mask = foreground(logits[chunk], [geometries[i] for i in chunk], own, protocol)
        blocks.append(count(mask, _padded([true[i] for i in chunk], own), own, protocol.band))
        order += chunk
    counts = torch.cat(blocks)
    return torch.empty_like(counts).index_copy_(0, torch.tensor(order, device=logits.device), counts)


def _ground_truths(batch: Batch, protocol: Protocol) -> tuple[list[Tensor], list[int]]:
    if protocol.ground_truth.key not in batch.ground_truths or batch.target_index is None:
        raise ValueError(
            f"the batch has no ground truth '{protocol.ground_truth.key}' of protocol '{protocol.name}':"
            " give the data module the same protocols as the metrics"
        )
    return batch.ground_truths[protocol.ground_truth.key], batch.target_index.tolist()


def _check_sizes(ground_truths: Sequence[Tensor], sizes: Sequence[Size]) -> None:
    for ground_truth, size in zip(ground_truths, sizes, strict=True):
        if tuple(ground_truth.shape) != tuple(size):
            raise ValueError(
                f"a ground truth of size {tuple(ground_truth.shape)} cannot be compared at {tuple(size)}: wrong variant"
            )


def _groups(indices: Iterable[int], kinds: Sequence[Kind]) -> dict[Kind, list[int]]:
    """The indices of each kind."""
    groups: dict[Kind, list[int]] = {}
    for i in indices:
        groups.setdefault(kinds[i], []).append(i)
    return groups


def _pieces(indices: list[int], size: Size, most: int) -> Iterator[list[int]]:
    """The indices of maps of one size in pieces of at most so many pixels."""
    count = max(1, most // (size[0] * size[1]))
    return (indices[start : start + count] for start in range(0, len(indices), count))


def _chunks(sizes: Sequence[Size], geometries: Sequence[Geometry], device: str) -> Iterator[list[int]]:
    """Indices of sentences sorted by size, so that chunks are few; at most `CELLS_AT_ONCE` pixels."""
    most = CELLS_AT_ONCE.get(device, 2**22)
    kinds = [(size, geometry.frame, geometry.valid) for size, geometry in zip(sizes, geometries, strict=True)]
    chunk: list[int] = []
    tall = wide = 0
    for i in sorted(range(len(sizes)), key=kinds.__getitem__):
        single = max(sizes[i][0], geometries[i].frame[0]), max(sizes[i][1], geometries[i].frame[1])
        grown = max(tall, single[0]), max(wide, single[1])
        if chunk and (len(chunk) + 1) * grown[0] * grown[1] > most:
            yield chunk
            chunk, grown = [], single
        chunk, (tall, wide) = [*chunk, i], grown
    if chunk:
        yield chunk


def _padded(ground_truths: Sequence[Tensor], sizes: Sequence[Size]) -> Tensor:
    """The chunk's ground truths in one tensor, False beyond each size."""
    if len(set(sizes)) == 1:
        return torch.stack(list(ground_truths))
    padded = ground_truths[0].new_zeros(len(ground_truths), *(max(size[i] for size in sizes) for i in range(2)))
    for row, ground_truth, (height, wide) in zip(padded, ground_truths, sizes, strict=True):
        row[:height, :wide] = ground_truth
    return padded
