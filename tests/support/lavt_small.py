"""The official LAVT at a small size, with the tensors that its authors' code gave for it."""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from riszoo.batch import Batch, Geometry, Sample, Tokens
from riszoo.build import instantiate
from riszoo.model import RISModule
from riszoo.models.lavt.published import translate

FIXTURES = Path(__file__).parents[1] / "models" / "fixtures"
SIZE = 64
"""Side of the frame that the small official files state."""


@dataclass
class Reference:
    """`weights` by official name, `tensors` (inputs, maps, outputs, gradients), and the float32 rounding of each."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    rounding: dict[str, float]


def reference(name: str = "lavt_small") -> Reference:
    described = json.loads((FIXTURES / f"{name}.json").read_text())
    content = load_file(FIXTURES / f"{name}.safetensors")
    weights = {n.removeprefix("weights."): tensor for n, tensor in content.items() if n.startswith("weights.")}
    tensors = {name: tensor for name, tensor in content.items() if not name.startswith("weights.")}
    return Reference(described["config"], weights, tensors, described["max_abs_float32_minus_float64"])


def encoders(config: dict[str, Any]) -> dict[str, Any]:
    """The options of the fixture's encoders."""
    bert = dict(config["bert"])
    words = bert.pop("vocab_size") - 4
    swin = {"embed_dim": config["embed_dim"], "depths": config["depths"], "num_heads": config["heads"]}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {
        "size": config["size"],
        "vision": {
            "name": "swin_base_patch4_window12_384",
            "options": {
                **swin,
                "window_size": config["window"],
                "drop_path_rate": config["drop_path"],
                "pad_before_shift": True,
            },
        },
        "text": {
            "name": "bert",
            "length": config["words"],
            "vocabulary": [f"w{index}" for index in range(words)],
            "options": {**bert, **dropout},
        },
    }


def section(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the fixture's model."""
    options = {**encoders(config), "decoder_width": config["decoder_hidden"]}
    return {"class_path": "riszoo.models.lavt.model.LAVT", "init_args": options}


def build(source: Reference, **over: Any) -> RISModule:
    """The fixture's model with its weights, in evaluation mode."""
    described = section(source.config)
    described["init_args"] |= over
    model = instantiate(RISModule, described)  # type: ignore[type-abstract]
    model.load_state_dict(translate({"model": source.weights}).state)
    return model.eval()


def batch(source: Reference) -> Batch:
    """The fixture's image with its two sentences."""
    image, target = source.tensors["input.picture"], source.tensors["input.target"].bool()
    size = image.shape[1], image.shape[2]
    ids, mask = source.tensors["input.ids"].long(), source.tensors["input.mask"].bool()
    count = len(ids)
    return Batch(
        images=image[None],
        valid=torch.tensor([[0, 0, *size]]),
        image_ids=["image"],
        geometry=[Geometry.fit("squeeze", size, size)],
        texts=[""] * count,
        image_index=torch.zeros(count, dtype=torch.long),
        samples=[Sample(str(i), i, "own", "own", "image", "", "") for i in range(count)],
        no_target=torch.zeros(count, dtype=torch.bool),
        masks=target,
        tokens=Tokens(ids, mask, [[] for _ in range(count)]),
    )


def save_bert(folder: Path, config: dict[str, Any]) -> None:
    """Write a small BERT's configuration and tokenizer, whose words are w0, w1, ..."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{index}" for index in range(config["vocab_size"] - 4))]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **marks}))
    BertConfig(**config).save_pretrained(folder)


def full_size(keys: str) -> dict[str, Any]:
    """An official file of full size without values, from its list of keys."""
    content: dict[str, Any] = {}
    with (FIXTURES / f"{keys}.csv").open() as listed:
        for row in csv.DictReader(listed):
            shape = [int(side) for side in row["shape"].split("x") if side != "scalar"]
            tensor = torch.empty(shape, dtype=getattr(torch, row["dtype"]), device="meta")
            content.setdefault(row["container"], {})[row["key"]] = tensor
    return content


def container(weights: dict[str, Tensor], layout: str, **args: Any) -> dict[str, Any]:
    """What the authors' training script saves."""
    arguments = argparse.Namespace(**{"img_size": SIZE, "mha": "", "window12": False, "swin_type": "base", **args})
    bert = {name: tensor for name, tensor in weights.items() if name.startswith("text_encoder.")}
    rest = {name: tensor for name, tensor in weights.items() if name not in bert}
    training = {"optimizer": {"state": {}, "param_groups": []}, "epoch": 39, "args": arguments, "lr_scheduler": {}}
    if layout == "lavt_one":
        return {"model": dict(weights), **training}
    return {"model": rest, "bert_model": {n.removeprefix("text_encoder."): t for n, t in bert.items()}, **training}
