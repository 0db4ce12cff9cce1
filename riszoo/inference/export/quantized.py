"""8-bit weights in the matrix products of an exported model, and what they cost.

Weights are rounded to 8 bits and activations when they are computed (dynamic quantisation). Convolutions stay as they
are: ONNX Runtime has no fast kernel for 8-bit convolutions whose activations are quantised at run time. Weights are
unsigned, because products with signed ones saturate on x86 processors without VNNI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from riszoo.data.ground_truth import GroundTruth
from riszoo.data.masks import Mask
from riszoo.data.scenes import ScenesSplit
from riszoo.inference.export.formats import without_log
from riszoo.inference.export.runner import Model

QUANTISED = ["MatMul", "Gemm"]
IMAGES = 200
"""Images on which the loss is measured, drawn in the size of the model's frame."""


def add_int8(description: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write 8-bit copies of the graphs; returns the description with their files."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options: dict[str, Any] = {"op_types_to_quantize": QUANTISED, "weight_type": QuantType.QUInt8, "per_channel": True}
    files = description["graphs"]["float32"]
    smaller = [f"{Path(file).stem}-int8.onnx" for file in files]
    for before, after in zip(files, smaller, strict=True):
        with without_log():
            quantize_dynamic(folder / before, folder / after, **options)
    return {**description, "graphs": {"float32": files, "int8": smaller}}


def measured_loss(folder: Path) -> dict[str, Any]:
    """mIoU in percent of both precisions, over the sentences with a target of the first images of scenes val."""
    models = {precision: Model(folder, precision) for precision in ("float32", "int8")}
    values: dict[str, list[float]] = {precision: [] for precision in models}
    split = ScenesSplit("val", models["float32"].frame)
    for record in (split[i] for i in range(IMAGES)):
        pairs = [(record.targets[target], sentence.text) for target, sentence in record.sentences()]
        pairs = [(target, text) for target, text in pairs if not target.no_target]
        drawn = [target.segmentation.draw(GroundTruth()) for target, _ in pairs]
        if not pairs:
            continue
        for precision, model in models.items():
            masks, _ = model.segment(record.load(), [text for _, text in pairs])
            values[precision] += map(_iou, masks, drawn)
    miou = {precision: 100 * float(np.mean(each)) for precision, each in values.items()}
    sizes = {precision: _bytes(folder, precision) for precision in models}
    return {"data": f"{IMAGES} images of scenes val", "sentences": len(values["int8"]), "mIoU": miou, "bytes": sizes}


def _iou(predicted: Mask, drawn: Mask) -> float:
    """Two empty masks are equal: their IoU is 1."""
    union = (predicted | drawn).sum()
    return float((predicted & drawn).sum() / union) if union else 1.0


def _bytes(folder: Path, precision: str) -> int:
    is_int8 = precision == "int8"
    return sum(file.stat().st_size for file in folder.glob("*.onnx*") if ("-int8" in file.name) == is_int8)
