"""Every reader of untrusted bytes, each with a valid file to start from."""

from __future__ import annotations

import json
import shutil
import struct
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from riszoo import recipes
from riszoo.cli.request import Request
from riszoo.cli.weights.describe import described
from riszoo.data.ground_truth import GroundTruth
from riszoo.data.images import decode
from riszoo.data.index import Index
from riszoo.data.readers.catalogue import get_reader
from riszoo.data.readers.mask_files import read_mask
from riszoo.data.readers.opening import Options, open_split, prepare_indices
from riszoo.data.readers.validation import RecordError, read_rle
from riszoo.encoders.clip.archive import read_archive
from riszoo.encoders.darknet import CONVOLUTIONS, SLOPE, body_tensors
from riszoo.encoders.sam_weights import load_official
from riszoo.encoders.weights import load_weights
from riszoo.errors import UserError
from riszoo.metrics.external import read_predictions
from riszoo.training.checkpoints import model_section, read_checkpoint
from riszoo.training.exchange import write_weights
from tests.support import data_trees as trees
from tests.support.official import FIXTURES


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


def _read_referit(path: Path) -> None:
    _read_everything("referit", next(p.parent for p in path.parents if p.name == "referit"))


def _read_phrasecut(path: Path) -> None:
    _read_everything("phrasecut", path.parents[1], "val")


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


def _content() -> dict[str, Any]:
    """A checkpoint of riszoo."""
    return {
        "state_dict": {"head.weight": torch.zeros(4, 4)},
        "riszoo": {"class_path": "riszoo.models.lts.LTS"},
        "hyper_parameters": {"size": 64, "vision": {"name": "resnet18"}},
    }


def _published() -> dict[str, Any]:
    """The tensors by which a checkpoint of LAVT's authors is recognised and its options are read."""
    shapes = {
        "backbone.layers.0.fusion.image_lang_att.W.0.weight": (4, 4, 1),
        "backbone.layers.0.res_gate.0.weight": (4, 4),
        "backbone.layers.0.blocks.0.attn.relative_position_bias_table": (49, 2),
        "backbone.patch_embed.proj.weight": (4, 3, 4, 4),
        "text_encoder.embeddings.position_embeddings.weight": (20, 4),
        "classifier.conv1_1.weight": (2, 4, 1, 1),
    }
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    return {"model": state, "epoch": 1, "args": Namespace(img_size=480, mha="1-1")}


def _predictions(folder: Path) -> None:
    entries = [{"id": "a", "segmentation": trees.rle((2, 3, 5, 9)), "no_target": False, "score": 0.5}]
    entries.append({"id": "b", "segmentation": {"size": [2, 3], "counts": [1, 3, 2]}})
    (folder / "p.json").write_text(json.dumps(entries))


def _config(folder: Path) -> None:
    text = "model: lts\ndata: scenes\nrun: {root: runs}\ntrainer: {max_steps: 7}\nbase: &a {x: 1}\nmore: [*a, *a]\n"
    (folder / "c.yaml").write_text(text)


class _Tables(nn.Module):
    """A part of SAM's image encoder: one weight, and the tables that are resized."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, 2))
        self.attn = nn.ParameterDict({"rel_pos_h": torch.zeros(2 * side - 1, 2)})
        self.proj = nn.Linear(2, 3)


class _Unit(nn.Module):
    """A convolution of Darknet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1), nn.LeakyReLU(SLOPE)


@cache
def _layers() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


@cache
def _sam(side: int) -> nn.Module:
    return nn.ModuleDict({"image_encoder": _Tables(side)})


@cache
def _darknet() -> nn.Module:
    return nn.Sequential(*(_Unit() for _ in range(CONVOLUTIONS)))


def _floats(folder: Path) -> None:
    count = sum(tensor.numel() for tensor in body_tensors(_darknet()))
    header = struct.pack("<3iq", 0, 2, 0, 32)
    (folder / "d.weights").write_bytes(header + np.arange(count, dtype="<f4").tobytes())


def _state() -> dict[str, Tensor]:
    return {name: value.clone() for name, value in _layers().state_dict().items()}


def _torch_file(name: str, content: object, *, zipped: bool = True) -> Callable[[Path], object]:
    """Writes a file of torch, or one as before version 1.6, which was not a zip archive: many weights still are."""
    return lambda folder: torch.save(content, folder / name, _use_new_zipfile_serialization=zipped)


def _load(path: Path) -> None:
    load_weights(_layers(), str(path), "layers")


TARGETS = [
    Target("refs pickle", "refcoco/refs(unc).p", trees.refcoco, lambda p: _read_everything("refcoco", p.parents[1])),
    Target("instances", "refcoco/instances.json", trees.refcoco, lambda p: _read_everything("refcoco", p.parents[1])),
    Target("jsonl", "train.jsonl", _jsonl, lambda p: _read_everything("folder", p.parent)),
    Target("csv", "train.csv", _csv, lambda p: _read_everything("folder", p.parent)),
    Target("referit", "referit/referit_query_train.json", trees.referit, _read_referit),
    Target("referit sizes", "referit/referit_imsize.json", trees.referit, _read_referit),
    Target("referit mask", "referit/mask/10_1.mat", trees.referit, _read_referit),
    Target("phrasecut", "VGPhraseCut_v0/refer_val.json", trees.phrasecut, _read_phrasecut),
    Target("vg images", "VGPhraseCut_v0/image_data_split3000.json", trees.phrasecut, _read_phrasecut),
    Target("vg counts", "VGPhraseCut_v0/name_att_rel_count.json", trees.phrasecut, _read_phrasecut),
    Target("refclef", "refclef/instances.json", trees.refclef, lambda p: _read_everything("refclef-unc", p.parents[1])),
    Target("grefs", "grefcoco/grefs(unc).json", trees.grefcoco, lambda p: _read_everything("grefcoco", p.parents[1])),
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
    Target("checkpoint", "a.ckpt", _torch_file("a.ckpt", _content()), lambda p: model_section(read_checkpoint(p))),
    Target("published", "a.pth", _torch_file("a.pth", _published()), lambda p: model_section(read_checkpoint(p))),
    Target(
        "converted",
        "a.safetensors",
        lambda folder: write_weights(_content(), folder / "a.safetensors"),
        lambda p: model_section(read_checkpoint(p)),
    ),
    Target("info", "a.ckpt", _torch_file("a.ckpt", _content()), described),
    Target("pth", "a.pth", _torch_file("a.pth", {"model": _state()}), _load),
    Target("pth, old form", "a.pth", _torch_file("a.pth", _state(), zipped=False), _load),
    Target("safetensors", "a.safetensors", lambda folder: save_file(_state(), folder / "a.safetensors"), _load),
    Target("darknet", "d.weights", _floats, lambda p: load_weights(_darknet(), str(p), "darknet53")),
    Target("sam", "a.pth", _torch_file("a.pth", _sam(2).state_dict()), lambda p: load_official(_sam(3), p)),
    Target("archive", "RN50.pt", lambda f: shutil.copyfile(FIXTURES / "clip_small_rn.pt", f / "RN50.pt"), read_archive),
    Target("predictions", "p.json", _predictions, read_predictions),
]
