"""A run folder with a test, made without training: a toy model's checkpoint and predictions of a known quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from riszoo import recipes
from riszoo.batch import Batch, Output
from riszoo.build import instantiate
from riszoo.data.datamodule import RISData
from riszoo.data.dataset import RISDataset, collate
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.samplers import SampleKey
from riszoo.data.sets import Scenes
from riszoo.files import file_hash, write_atomically
from riszoo.inference.evidence import write_evidence
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.results import Evaluation, write_results
from riszoo.metrics.suite import RISMetrics
from riszoo.training import runs
from tests.support.zoo import TOY, Entry

IMAGES = 6


def make_run(
    root: Path,
    model: str = "toy",
    *,
    shift: int = 0,
    seen: int = 0,
    steps: int = 10,
    splits: tuple[str, ...] = ("val",),
    protocols: str = "original",
    class_path: str = "tests.support.toys.Early",
) -> Path:
    """The test's folder. Its predictions are the ground truths, shifted to the right by `shift` cells."""
    run = root / f"{model}-scenes-20260101-000000"
    network = Entry("toy", {"class_path": "tests.support.toys.Early", "init_args": TOY}).build()
    checkpoint: dict[str, Any] = {"state_dict": network.state_dict(), "hyper_parameters": dict(network.hparams)}
    network.on_save_checkpoint(checkpoint)
    checkpoint["riszoo"]["class_path"] = class_path
    file = runs.checkpoint(run)
    file.parent.mkdir(parents=True)
    torch.save(checkpoint, file)
    training = {"seconds": 5.0, "steps": steps, "sentences": 64 * steps}
    card = {"model": model, "data": "scenes", "scale": "tiny", "command": "riszoo fit", "training": training}
    write_atomically(run / runs.CARD, json.dumps(card))
    section = {"class_path": "riszoo.data.sets.Scenes", "init_args": {"image_size": 64, "workers": 0}}
    write_atomically(run / "config.yaml", yaml.safe_dump({"data": section}))
    write_atomically(run / "metrics.csv", "step,loss,val/mIoU\n4,0.7,\n9,0.4,31.5\n")
    circumstances = {
        "command": f"riszoo test --model {model}",
        "commit": "abc",
        "versions": {"torch": "2"},
        "device": "cpu",
        "devices": 1,
        "precision": "32-true",
        "started": 1767225600.0,
        "checkpoint": {"path": str(file), "sha256": file_hash(file)},
        "images_trained_on": dict.fromkeys(splits, seen),
        "data_section": recipes.data_section("scenes"),
    }
    test = run / "test-scenes-20260101-000001"
    results = {split: evaluated(split, shift, protocols) for split in splits}
    results[f"{splits[0]}-shuffled"] = evaluated(splits[0], 30, protocols, "shuffled")
    write_results(test, results, circumstances)
    means = {"chance": 5.0, "pointing of salience": 80.0 - shift}
    guess = {"all": 40.0, "by_type": {"attribute": 70.0}}
    write_evidence(test, {split: {"evidence": {"all": means, "by_type": {}}, "guess": guess} for split in splits})
    return test


def make_score(folder: Path, *, shift: int) -> Path:
    """The folder of a score of other code's masks: the ground truths of a few images, shifted by `shift` cells."""
    masks = folder / "othercode"
    masks.mkdir(parents=True)
    split = instantiate(RISData, recipes.data_section("scenes")).split("val")  # type: ignore[type-abstract]
    for record in (split[i] for i in range(IMAGES)):
        for target, sentence in record.sentences():
            mask = np.roll(record.targets[target].segmentation.draw(GroundTruth()), 2 * shift, -1)
            Image.fromarray(mask).save(masks / f"{sentence.sentence_id}.png")
    score = folder / "othercode-score"
    origin = {"command": "riszoo score othercode", "predictions": str(masks), "data": "scenes", "root": None}
    write_results(score, {"val": evaluated("val", shift, "original")}, origin)
    return score


def evaluated(split: str, shift: int, names: str, control: str = "none") -> Evaluation:
    protocols = get_protocols(names)
    ground_truths = list(dict.fromkeys(protocol.ground_truth for protocol in protocols))
    dataset = RISDataset(
        Scenes(image_size=64).split(split), (64, 64), "squeeze", masks=True, ground_truths=ground_truths
    )
    sentences = dataset.split.sentence_image
    items = [tuple(int(i) for i in (sentences == p).nonzero()[0]) for p in range(IMAGES)]
    batch = collate([dataset[SampleKey(p, own)] for p, own in enumerate(items)])
    suite = RISMetrics(protocols)
    suite.update(shifted(batch, shift), batch)
    table = suite.sentence_table()
    return Evaluation(table, dataset.samples(table.index.tolist()), {"control": control})


def shifted(batch: Batch, shift: int) -> Output:
    assert batch.masks is not None
    return Output(torch.roll(batch.masks, shift, -1)[:, None].float() * 2 - 1)
