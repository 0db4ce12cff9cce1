"""`riszoo init-model NAME`: write the class, the recipe and a test of a new model, which trains at once."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.files import write_atomically

MODEL = '''"""{title}: describe the paper here, with the letters of shapes that riszoo/batch.py does not define.

A word vector is compared with every cell of the coarsest map: replace this by the paper's own layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from riszoo.batch import Batch, Features, Output, Words
from riszoo.losses import bce, shrink_mask
from riszoo.model import RISModule


class {title}(RISModule):
    """The model of the recipe `{name}`.

    Args:
        width: channels in which words and image are compared
    """

    def __init__(self, *, width: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.key = nn.Linear(self.text.width, width)
        self.value = nn.Conv2d(self.vision.channels[-1], width, 3, padding=1)
        self.classify = nn.Conv2d(width, 1, 1)

    def decode(self, images: Features, image_index: Tensor, words: Words) -> Output:
        value = self.value(images.per_sentence(image_index).maps[-1])  # (N, C, h, w)
        sentence = words.states.sum(1) / words.mask.sum(1, keepdim=True)  # (N, C)
        compared = torch.tanh(self.key(sentence))[:, :, None, None] * value  # (N, C, h, w)
        return Output(self.classify(torch.relu(compared)))

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.masks is not None
        logits = output.logits[:, 0]
        return {{"mask": bce(logits, shrink_mask(batch.masks, (logits.shape[-2], logits.shape[-1])))}}
'''

RECIPE = """title: "{title}: one line about the model"
class_path: riszoo.models.{module}.{title}
reference: "arXiv 0000.00000"
assumed:                   # choices that the paper leaves open, each with the reason
  width: "64, which the paper does not state"

tiny:                      # trains on the embedded data set without GPU or download: riszoo fit --model {name}
  model:
    size: 96
    vision: {{name: resnet18, options: {{channels: [32, 64, 128, 160], layers: [1, 2, 2, 2], output_stride: 8}}}}
    text: {{name: bigru, options: {{embedding: 64, width: 128}}}}
    width: 64
    optim: {{lr: 2.0e-3, weight_decay: 0.01, schedule: cosine, warmup: 0.05}}

paper:                     # the paper's own numbers: riszoo fit --model {name} --data refcoco
  model:
    size: 480
    vision: {{name: resnet50, weights: pretrained}}
    text: {{name: bigru, options: {{embedding: 300, width: 512}}}}
    width: 512
    optim: {{lr: 1.0e-4, weight_decay: 0.01, schedule: poly}}
  data: {{batch_size: 16, total_batch_size: 32, workers: 4}}
  trainer: {{max_epochs: 40}}
"""

TEST = '''"""{title}: what is its own. The contract of every model is tested in test_models.py."""

from __future__ import annotations

import torch

from riszoo import recipes
from tests.support.zoo import Entry, batch_of


def test_the_mask_depends_on_the_sentence() -> None:
    model = Entry("{name}", recipes.resolve("{name}", "scenes", "tiny")["model"]).build().eval()
    with torch.no_grad():
        one, other = model(batch_of(model, images=1, sentences=2)).logits
    assert not torch.allclose(one, other)


def test_width_is_an_option() -> None:
    model = Entry("{name}", recipes.resolve("{name}", "scenes", "tiny")["model"]).build(width=8)
    assert model.value.out_channels == 8
'''


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo init-model", description=__doc__)
    parser.add_argument("name", help="the name of the recipe: small letters, digits, - and _")
    parser.add_argument("--root", type=Path, default=Path(), help="a checkout of riszoo; default: this folder")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    name, module = args.name, args.name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or keyword.iskeyword(module):
        raise UserError(f"'{name[:80]}' cannot name a model: use small letters, digits, - and _, such as my-model")
    title = "".join(part.capitalize() for part in re.split("[-_]", name))
    if re.search(rf"\bimport .*\b{title}\b", MODEL):
        raise UserError(f"'{name}' cannot name a model: its class {title} would replace another; choose another name")
    if recipes.find("models", name) is not None:
        raise UserError(f"there is a model '{name}' already: choose another name")
    for folder in ("riszoo/models", "configs/models"):
        if not (args.root / folder).is_dir():
            raise UserError(
                f"{args.root / folder} is not a folder: run this in a checkout of riszoo or give --root; a model "
                "outside of it is a plug-in (docs/your-model.md)"
            )
    files = {
        f"riszoo/models/{module}.py": MODEL,
        f"configs/models/{name}.yaml": RECIPE,
        f"tests/models/test_{module}.py": TEST,
    }
    for file in files:
        if (args.root / file).exists():
            raise UserError(f"{args.root / file} exists already: choose another name or remove it")
    for file, template in files.items():
        write_atomically(args.root / file, template.format(name=name, module=module, title=title))
        print(f"written: {args.root / file}")
    print(f"train it:  riszoo fit --model {name}\ntest it:   python -m pytest tests/models/test_{module}.py")
    return 0
