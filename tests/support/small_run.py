"""A run folder with the weights of a small LTS, without a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from riszoo import recipes
from riszoo.data.scenes import ScenesSplit
from riszoo.training import runs
from tests.support.zoo import TOY, Entry, batch_of


def small_run(root: Path, **over: Any) -> Path:
    """The run's folder; the model is biased so that about half of an image is inside its masks.

    `over` overrides options of the model.
    """
    tiny = recipes.merge(
        recipes.resolve("lts", "scenes", "tiny")["model"], {"init_args": {**TOY, "fusion": {"width": 16}}}
    )
    model = Entry("lts", tiny).build(segment={"width": 16}, **over).eval()
    with torch.no_grad():
        model.segment.classify.bias -= model(batch_of(model, 1, 1)).logits.median()
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    folder = root / "lts-scenes-1"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, runs.checkpoint(folder))
    (folder / runs.CARD).write_text(json.dumps({"model": "lts", "data": "scenes", "scale": "tiny", "started": 1}))
    return folder


def scene(image: int = 0) -> Image.Image:
    """An image of the embedded data set, 90 x 60."""
    return Image.fromarray(ScenesSplit("val", (64, 96))[image].load()).resize((90, 60))
