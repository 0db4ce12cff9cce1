"""How a ground truth is drawn. Imports nothing heavy, so that protocols can be listed at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GroundTruth:
    """How a ground truth is drawn: a protocol names one, the data module draws it.

    overlap   where parts of one annotation overlap: `any` counts it inside, `once` (LAVT's reading) outside
    engine    `coco` the COCO mask API, `pillow` with outline (PhraseCut), `scaled` polygons scaled to the frame first
    frame     None: the image's own size; otherwise the mask is shrunk to this (h, w), or drawn there for `scaled`
    resample  how a drawn mask is brought to `frame`
    """

    overlap: Literal["any", "once"] = "any"
    engine: Literal["coco", "pillow", "scaled"] = "coco"
    frame: tuple[int, int] | None = None
    resample: Literal["nearest"] = "nearest"

    @property
    def key(self) -> str:
        """The name under which a batch carries this ground truth."""
        frame = "original" if self.frame is None else f"{self.frame[0]}x{self.frame[1]}"
        return f"{self.overlap}-{self.engine}-{frame}-{self.resample}"
