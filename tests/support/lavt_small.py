"""The official LAVT at a small size, with the tensors that its authors' code gave for it."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from riszoo.batch import Batch, Tokens
from riszoo.model import RISModule
from riszoo.models.lavt.published import translate
from tests.support import official

SIZE = 64
"""Side of the frame that the small official files state."""
STAGES = range(4)


@dataclass
class Reference:
    """`weights` by official name, `tensors` (inputs, maps, outputs, gradients), and the float32 rounding of each."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    rounding: dict[str, float]


def reference(name: str = "lavt_small") -> Reference:
    about, tensors = official.stored(name)
    weights = official.with_prefix(tensors, "weights.")
    return Reference(about["config"], weights, tensors, about["max_abs_float32_minus_float64"])


def encoders(config: dict[str, Any]) -> dict[str, Any]:
    """The options of the fixture's encoders."""
    bert = dict(config["bert"])
    vocabulary = official.vocabulary(bert.pop("vocab_size"))
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
            "vocabulary": vocabulary,
            "options": {**bert, **dropout},
        },
    }


def section(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the fixture's model."""
    options = {**encoders(config), "decoder_width": config["decoder_hidden"]}
    return {"class_path": "riszoo.models.lavt.model.LAVT", "init_args": options}


def build(source: Reference, **over: Any) -> RISModule:
    """The fixture's model with its weights, in evaluation mode."""
    return official.build(section(source.config), translate({"model": source.weights}).state, **over)


def batch(source: Reference) -> Batch:
    """The fixture's image with its two sentences."""
    image, masks = source.tensors["input.picture"], source.tensors["input.target"].bool()
    ids, mask = source.tensors["input.ids"].long(), source.tensors["input.mask"].bool()
    return official.make_batch(image[None], Tokens(ids, mask, [[] for _ in ids]), [0] * len(ids), masks)


def stage_modules(model: RISModule) -> dict[str, nn.Module]:
    """The modules of the four stages by the fixture's names of their outputs."""
    modules: dict[str, nn.Module] = {}
    for stage in STAGES:
        modules[f"stage{stage + 1}.blocks"] = model.vision.stages[stage]
        modules[f"stage{stage + 1}.pwam"] = model.fusion[stage]
        modules[f"stage{stage + 1}.gate"] = model.gates[stage]
        modules[f"stage{stage + 1}.out"] = model.norms[stage]
    return modules


def tensors_of(caught: dict[str, Any]) -> dict[str, Tensor]:
    """The outputs of modules without the attention beside them."""
    caught = {name: value[0] if name.endswith("pwam") else value for name, value in caught.items()}
    return caught | {"text.states": caught["text.states"].last_hidden_state}


def save_bert(folder: Path, config: dict[str, Any]) -> None:
    """Write a small BERT's configuration and tokenizer, whose words are w0, w1, ..."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *official.vocabulary(config["vocab_size"])]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **marks}))
    BertConfig(**config).save_pretrained(folder)


def container(weights: dict[str, Tensor], layout: str, **args: Any) -> dict[str, Any]:
    """What the authors' training script saves."""
    arguments = argparse.Namespace(**{"img_size": SIZE, "mha": "", "window12": False, "swin_type": "base", **args})
    bert = {name: tensor for name, tensor in weights.items() if name.startswith("text_encoder.")}
    rest = {name: tensor for name, tensor in weights.items() if name not in bert}
    training = {"optimizer": {"state": {}, "param_groups": []}, "epoch": 39, "args": arguments, "lr_scheduler": {}}
    if layout == "lavt_one":
        return {"model": dict(weights), **training}
    return {"model": rest, "bert_model": {n.removeprefix("text_encoder."): t for n, t in bert.items()}, **training}
