"""RISMetrics: the same bytes for any batch size, order and number of processes."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch.nn.functional import interpolate

from riszoo.batch import Geometry, Output
from riszoo.metrics import suite
from riszoo.metrics.counts import band_width, count
from riszoo.metrics.protocols import PROTOCOLS, get_protocols
from riszoo.metrics.resample import foreground
from riszoo.metrics.suite import RISMetrics
from tests.support.fake_batches import Blobs
from tests.support.metrics_worker import evaluate, join, written

FULL, FEW = ("split", "shuffled"), ("few",)


@pytest.fixture(scope="module")
def single_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    evaluate(folder, 0, 1)
    return folder


def test_batch_size_grouping_and_order_change_no_byte(single_process: Path):
    assert len(written(single_process, FULL)) == 1


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_change_no_byte(world: int, single_process: Path, tmp_path: Path):
    multiprocessing.set_forkserver_preload(["torchmetrics"])  # imported once instead of in each process
    torch.multiprocessing.start_processes(join, (str(tmp_path), world), world, start_method="forkserver")
    assert written(tmp_path, FULL) == written(single_process, FULL)
    assert written(tmp_path, FEW) == written(single_process, FEW)


def test_original_is_bilinear_interpolation_and_a_threshold():
    """Compared with a plain computation that shares no code with the suite."""
    blobs = Blobs(kind="squeeze")
    metrics = RISMetrics(get_protocols("original"))
    metrics.update(*blobs.batch(range(len(blobs.samples)), metrics.protocols))
    ious, intersection, union = [], 0, 0
    for sample, logits, true in zip(blobs.samples, blobs.logits, blobs.masks, strict=True):
        if sample.no_target:
            continue
        mask = (interpolate(logits[None], true.shape, mode="bilinear")[0, 0] > 0).numpy()
        i, u = int((mask & true).sum()), int((mask | true).sum())
        ious, intersection, union = [*ious, i / u], intersection + i, union + u
    got = metrics.compute()["original"]
    assert got["oIoU"] == 100 * intersection / union
    assert got["mIoU"] == 100 * math.fsum(ious) / len(ious)
    assert got["Pr@0.7"] == 100 * sum(iou >= 0.7 for iou in ious) / len(ious)
    assert 20 < got["bIoU"] < got["mIoU"]


def test_perfect_logits_score_high_under_every_protocol():
    """Less under protocols whose threshold before the resize enlarges the mask."""
    blobs = Blobs(kind="squeeze", images=3)
    protocols = get_protocols(",".join(PROTOCOLS))
    metrics = RISMetrics(protocols)
    _, batch = blobs.batch([i for i, s in enumerate(blobs.samples) if not s.no_target], protocols)
    sure = [
        interpolate(torch.from_numpy(blobs.masks[s.index])[None, None].float(), (512, 512))[0] for s in batch.samples
    ]
    metrics.update(Output(torch.stack(sure) * 20 - 10), batch)
    for name, values in metrics.compute().items():
        assert values["mIoU"] > (85 if name in ("simrec", "rmi") else 96), name
        assert values["box@0.5"] == 100, name


def test_chunks_change_no_count(monkeypatch: pytest.MonkeyPatch):
    blobs = Blobs(images=4)
    protocols = get_protocols("original,lavt480,mcn")
    everything = blobs.batch(range(len(blobs.samples)), protocols)
    whole, pieces = RISMetrics(protocols), RISMetrics(protocols)
    whole.update(*everything)
    monkeypatch.setattr(suite, "CELLS_AT_ONCE", {"cpu": 1})
    monkeypatch.setattr(suite, "COUNTED_AT_ONCE", 1)
    pieces.update(*everything)
    assert np.array_equal(whole.sentence_table().values, pieces.sentence_table().values)


def test_the_no_target_head_decides_if_there_is_one():
    with_head, without = Blobs(head=True), Blobs()
    metrics = [RISMetrics(get_protocols("rela")) for _ in range(2)]
    for metric, blobs in zip(metrics, (with_head, without), strict=True):
        metric.update(*blobs.batch(range(len(blobs.samples)), metric.protocols))
    predicted = (with_head.head > 0).numpy()
    no_target = np.array([s.no_target for s in with_head.samples])
    assert metrics[0].compute()["rela"]["N-acc"] == 100 * predicted[no_target].sum() / no_target.sum()
    assert metrics[1].compute()["rela"]["N-acc"] != metrics[0].compute()["rela"]["N-acc"]


def test_a_missing_ground_truth_is_named():
    blobs = Blobs(images=1)
    output, batch = blobs.batch([0], get_protocols("original"))
    with pytest.raises(ValueError, match="no ground truth 'once-coco-480x480-nearest' of protocol 'lavt480'"):
        RISMetrics(get_protocols("lavt480")).update(output, batch)
    batch.ground_truths = {key: [ground_truth[0][:-1]] for key, ground_truth in batch.ground_truths.items()}
    with pytest.raises(ValueError, match="wrong variant"):
        RISMetrics(get_protocols("original")).update(output, batch)


def test_reset_clears_the_table_and_means_over_nothing_are_nan():
    blobs = Blobs(images=1)
    metrics = RISMetrics(get_protocols("original"))
    metrics.update(*blobs.batch([0, 1], metrics.protocols))
    metrics.reset()
    assert len(metrics.sentence_table()) == 0
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert math.isnan(metrics.compute()["original"]["mIoU"])


def test_two_sentences_can_share_a_target():
    """The batch has one ground truth a target."""
    blobs = Blobs(images=1)
    protocols = get_protocols("original")
    output, batch = blobs.batch([0, 1, 2], protocols)
    batch.target_index = torch.tensor([2, 2, 0])
    metrics = RISMetrics(protocols)
    metrics.update(output, batch)
    areas = [int(blobs.masks[i].sum()) for i in (2, 2, 0)]
    assert metrics.sentence_table().counts(protocols[0]).true.tolist() == areas


@pytest.mark.parametrize("kind", ["squeeze", "letterbox"])
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_counts_equal_those_of_a_plain_implementation(name: str, kind: str):
    """With all optimisations: windows, chunks of one geometry, bands computed around the masks only."""
    blobs = Blobs(kind=kind, images=4)
    metrics = RISMetrics(get_protocols(name))
    (protocol,) = metrics.protocols
    output, batch = blobs.batch(range(len(blobs.samples)), metrics.protocols)
    output.logits[3] = -1.0
    metrics.update(output, batch)
    geometries = [batch.geometry[i] for i in batch.image_index.tolist()]
    sizes = [protocol.ground_truth.frame or geometry.original for geometry in geometries]
    masks = foreground(output.logits[:, 0], geometries, sizes, protocol)
    plain = []
    for mask, true, (height, wide) in zip(masks, batch.ground_truths[protocol.ground_truth.key], sizes, strict=True):
        plain.append(plain_counts(mask[:height, :wide].numpy(), true.numpy(), protocol.band))
    assert np.array_equal(metrics.sentence_table().values[:, 3:], plain)
    padded = suite._padded([batch.ground_truths[protocol.ground_truth.key][i] for i in batch.target_index], sizes)
    assert np.array_equal(count(masks, padded, sizes, protocol.band), plain)  # as on a device, many sizes at once


def plain_counts(mask: np.ndarray, true: np.ndarray, share: float) -> list[int]:
    """The thirteen numbers; only the width of the band is shared with the suite."""
    bands = [0, 0]
    if share:
        reach = 2 * band_width(mask.shape, share) + 1
        padded = [np.pad(~m, reach // 2, constant_values=True) for m in (mask, true)]
        near = [sliding_window_view(p, (reach, reach)).any((-2, -1)) for p in padded]
        a, b = (m & n for m, n in zip((mask, true), near, strict=True))
        bands = [int((a & b).sum()), int((a | b).sum())]
    return [int((mask & true).sum()), int(mask.sum()), int(true.sum()), *bands, *box_of(mask), *box_of(true)]


def box_of(mask: np.ndarray) -> tuple[int, ...]:
    ys, xs = np.nonzero(mask)
    return (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1) if len(ys) else (0, 0, 0, 0)


def test_a_chunk_on_a_device_has_similar_sizes():
    sizes = [(40, 40), (8, 8), (40, 40), (8, 8), (8, 8)]
    geometries = [Geometry.fit("letterbox" if i == 4 else "pad", size, (16, 8)) for i, size in enumerate(sizes)]
    assert list(suite._chunks(sizes, geometries, "cuda")) == [[1, 3, 4, 0, 2]]
