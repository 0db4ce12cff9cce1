"""Every reader of untrusted bytes, each with a valid file to start from."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from riszoo import recipes
from riszoo.cli.request import Request
from riszoo.data.images import decode
from riszoo.data.index import Index
from riszoo.data.masks import GroundTruth
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.mask_files import read_mask
from riszoo.data.readers.opening import Options, open_split, prepare_indices
from riszoo.data.readers.validation import RecordError, read_rle
from riszoo.encoders.darknet import read_floats
from riszoo.encoders.weights import read_state
from riszoo.errors import UserError
from riszoo.metrics.external import read_predictions
from riszoo.training.checkpoints import model_section, read_checkpoint
from tests.support import data_trees as trees


@dataclass(frozen=True)
class Target:
    """A reader, the file it reads, and the errors with which it may refuse it.

    create  writes a valid file, and whatever else the reader needs, below a folder
    """

    name: str
    file: str
    create: Callable[[Path], object]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...] = (UserError,)

    def path(self, folder: Path) -> Path:
        return folder / self.file

    def prepare(self, folder: Path) -> bool:
        """Create the valid file, keep its content, and check that it is accepted."""
        folder.mkdir(parents=True)
        self.create(folder)
        (folder / "original").write_bytes(self.path(folder).read_bytes())
        self.read(self.path(folder))
        return True

    def content(self, folder: Path) -> bytes:
        return (folder / "original").read_bytes()


def _read_everything(name: str, root: Path, split: str = "train") -> None:
    """Open a split and draw every mask."""
    opened = open_split(get_reader(name), split, Options(root=str(root)))
    for image in range(len(opened)):
        record = opened[image]
        for target in record.targets:
            target.segmentation.draw(GroundTruth())


def _lines(folder: Path) -> list[dict[str, object]]:
    trees.photo(folder / "a.png")
    return [
        {"image": "a.png", "sentence": "the box", "mask": [trees.BOX], "id": 1},
        {"image": "a.png", "sentence": "the other", "mask": trees.rle((2, 3, 5, 9)), "id": 2},
        {"image": "a.png", "sentence": "nothing", "mask": "none"},
    ]


def _jsonl(folder: Path) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _lines(folder)))


def _csv(folder: Path) -> None:
    trees.photo(folder / "m.png", mode="L")
    _lines(folder)
    (folder / "train.csv").write_text('image,sentence,mask\na.png,"the box, red",m.png\na.png,the other,m.png\n')


def _index(folder: Path) -> None:
    trees.refcoco(folder)
    (path,) = prepare_indices(get_reader("refcoco"), Options(root=str(folder)))
    path.replace(folder / "prepared.index")


def _read_index(path: Path) -> None:
    index = Index.load(path)
    list(index.strings["text"]), index.problems, index.splits()


def _checkpoint(folder: Path) -> None:
    content = {
        "state_dict": {"head.weight": torch.zeros(4, 4)},
        "riszoo": {"class_path": "riszoo.models.lts.LTS"},
        "hyper_parameters": {"size": 64, "vision": {"name": "resnet18"}},
    }
    torch.save(content, folder / "a.ckpt")


def _predictions(folder: Path) -> None:
    entries = [{"id": "a", "segmentation": trees.rle((2, 3, 5, 9)), "no_target": False, "score": 0.5}]
    entries.append({"id": "b", "segmentation": {"size": [2, 3], "counts": [1, 3, 2]}})
    (folder / "p.json").write_text(json.dumps(entries))


def _config(folder: Path) -> None:
    text = "model: lts\ndata: scenes\nrun: {root: runs}\ntrainer: {max_steps: 7}\nbase: &a {x: 1}\nmore: [*a, *a]\n"
    (folder / "c.yaml").write_text(text)


def _floats(folder: Path) -> None:
    (folder / "d.weights").write_bytes(struct.pack("<3iq", 0, 2, 0, 32) + np.arange(64, dtype="<f4").tobytes())


def _state(folder: Path) -> dict[str, torch.Tensor]:
    return {"layer.weight": torch.zeros(3, 3), "layer.bias": torch.ones(3)}


TARGETS = [
    Target("refs pickle", "refcoco/refs(unc).p", trees.refcoco, lambda p: _read_everything("refcoco", p.parents[1])),
    Target("instances", "refcoco/instances.json", trees.refcoco, lambda p: _read_everything("refcoco", p.parents[1])),
    Target("jsonl", "train.jsonl", _jsonl, lambda p: _read_everything("folder", p.parent)),
    Target("csv", "train.csv", _csv, lambda p: _read_everything("folder", p.parent)),
    Target(
        "rle",
        "rle.json",
        lambda folder: (folder / "rle.json").write_text(json.dumps({"size": [2, 3], "counts": [1, 3, 2]})),
        lambda p: read_rle(json.loads(p.read_bytes())),
        (RecordError, json.JSONDecodeError, UnicodeDecodeError),
    ),
    Target("png", "a.png", lambda folder: trees.photo(folder / "a.png"), decode),
    Target("jpeg", "a.jpg", lambda folder: trees.photo(folder / "a.jpg"), decode),
    Target(
        "mat",
        "m.mat",
        lambda f: (f / "m.mat").write_bytes(trees.matlab(np.ones((20, 30), np.uint8))),
        lambda p: read_mask(p, (20, 30)),
    ),
    Target("index", "prepared.index", _index, _read_index, (ValueError, LookupError, TypeError, OSError)),
    Target("yaml", "c.yaml", _config, recipes.read_yaml),
    Target("--config", "c.yaml", _config, lambda p: Request.read("fit", ["--config", str(p)]).argv),
    Target("checkpoint", "a.ckpt", _checkpoint, lambda p: model_section(read_checkpoint(p))),
    Target("pth", "a.pth", lambda folder: torch.save(_state(folder), folder / "a.pth"), read_state),
    Target("safetensors", "a.safetensors", lambda f: save_file(_state(f), f / "a.safetensors"), read_state),
    Target("darknet", "d.weights", _floats, read_floats),
    Target("predictions", "p.json", _predictions, read_predictions),
]
