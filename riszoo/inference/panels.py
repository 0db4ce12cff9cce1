"""Images of a model's answers: every drawing of evidence goes through here."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from riszoo.batch import Batch, Output
from riszoo.data.masks import shrink
from riszoo.inference.drawing import panel
from riszoo.inference.predictions import evidence_of, predictions
from riszoo.model import RISModule


def panels(model: RISModule, batch: Batch, output: Output, most: int) -> Iterator[Image.Image]:
    """A row for each of the first sentences: image, mask against ground truth, evidence."""
    protocol = model.protocols[0]
    for i, prediction in enumerate(predictions(output, batch, protocol)[: max(0, most)]):
        top, left, bottom, right = batch.geometry[int(batch.image_index[i])].valid
        image = batch.images[int(batch.image_index[i]), :, top:bottom, left:right].permute(1, 2, 0).cpu().numpy()
        ground_truths = batch.ground_truths.get(protocol.ground_truth.key)
        ground_truth = None
        if ground_truths and batch.target_index is not None:
            ground_truth = shrink(ground_truths[int(batch.target_index[i])].cpu().numpy(), image.shape[:2])
        evidence = evidence_of(output, batch, i)
        yield panel(image, prediction.text, shrink(prediction.mask, image.shape[:2]), ground_truth, evidence)
