"""Pictures of a model's answers: every drawing of evidence goes through here."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from riszoo.answers import answers, evidence_of
from riszoo.batch import Batch, Output
from riszoo.data.masks import shrink
from riszoo.draw import panel
from riszoo.model import RISModule


def panels(model: RISModule, batch: Batch, output: Output, most: int) -> Iterator[Image.Image]:
    """A row for each of the first sentences: picture, mask against truth, evidence."""
    protocol = model.protocols[0]
    for i, answer in enumerate(answers(output, batch, protocol)[: max(0, most)]):
        top, left, bottom, right = batch.geometry[int(batch.image_index[i])].valid
        picture = batch.images[int(batch.image_index[i]), :, top:bottom, left:right].permute(1, 2, 0).cpu().numpy()
        truths = batch.truths.get(protocol.truth.key)
        truth = None
        if truths and batch.target_index is not None:
            truth = shrink(truths[int(batch.target_index[i])].cpu().numpy(), picture.shape[:2])
        evidence = evidence_of(output, batch, i)
        yield panel(picture, answer.text, shrink(answer.mask, picture.shape[:2]), truth, evidence)
