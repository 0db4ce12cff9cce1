"""The folder of an exported model: both graphs, the tokenizer, the runner, and model.json, which describes them.

The folder gets its name only after every graph has given the model's own results.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from riszoo.files import new_folder
from riszoo.inference.export import runner
from riszoo.inference.export.formats import Format
from riszoo.inference.export.graphs import programs
from riszoo.inference.export.parity import check_parity, tracing_case
from riszoo.inference.export.quantized import add_int8, measured_loss
from riszoo.inference.export.tokenization import write_tokenizer
from riszoo.model import RISModule

Description = dict[str, Any]
DESCRIPTION, RUNNER = "model.json", "run.py"


def export(model: RISModule, out: Path, format: Format, *, int8: bool = False, about: Description) -> Description:
    """Write the folder `out`; returns its model.json.

    Args:
        model: in evaluation mode, on the CPU
        int8: ONNX only: also graphs whose matrix products have 8-bit weights, with their measured loss
        about: what model.json says of the model besides
    """
    with new_folder(out) as folder:
        model.memory_format = torch.contiguous_format
        model.to(memory_format=torch.contiguous_format).requires_grad_(False)
        description = {**about, **_written(model, folder, format)}
        _save(description, folder)
        if int8:
            _say("writing graphs with 8-bit weights, and measuring their loss")
            description = add_int8(description, folder)
            _save(description, folder)
            description["int8"] = measured_loss(folder)
            _save(description, folder)
    return description


def _written(model: RISModule, folder: Path, format: Format) -> Description:
    """Write graphs, tokenizer, runner and description, and compare the results with the model's."""
    _say("tracing the graphs")
    image, sentence = programs(model, tracing_case(model).batch)
    features = [f"features_{i}" for i in range(len(sentence.inputs["features"]))]
    decoded = ["logits", "no_target"][: sentence.outputs]
    files = []
    _say("writing the graphs")
    for name, graph, outputs in (("image", image, features), ("sentence", sentence, decoded)):
        files.append(f"{name}{format.suffix}")
        format.write(graph, outputs, folder / files[-1])
    description = {
        "size": list(model.size),
        "geometry": model.geometry,
        "views": [{"size": list(v.size), "kernel": v.kernel, "antialias": v.antialias} for v in model.views],
        "tokenizer": write_tokenizer(model.text, folder),
        "graphs": {"float32": files},
        "outputs": decoded,
    }
    shutil.copyfile(Path(runner.__file__), folder / RUNNER)
    _save(description, folder)
    _say("comparing their results with the model's")
    return {**description, "parity": check_parity(model, folder)}


def _say(step: str) -> None:
    print(f"riszoo: {step}", file=sys.stderr)


def _save(description: Description, folder: Path) -> None:
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
