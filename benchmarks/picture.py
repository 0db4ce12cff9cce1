"""The picture at the top of the README: masks of several models for sentences of the embedded validation split.

    python benchmarks/picture.py lts risam vipa                 the newest run of each model
    python benchmarks/picture.py lts vipa=runs/mine/checkpoints/best.ckpt --root runs/bench

Shows the first sentence of each of a few kinds, always of another image, whatever the masks are like. Writes
masks-light.png and masks-dark.png into docs/results/plots, for pages of both kinds.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from riszoo import load
from riszoo.batch import Sample
from riszoo.data.dataset import RISDataset
from riszoo.data.masks import GroundTruth, Mask
from riszoo.data.record import Pixels
from riszoo.data.scenes import ScenesSplit
from riszoo.files import write_atomically
from riszoo.inference.drawing import overlay

PLOTS = Path(__file__).parents[1] / "docs" / "results" / "plots"
KINDS = ("attribute", "relation", "ordinal")
SIDE = 288
"""Pixels of an image; the scenes are the same at every size."""
TEXT = {"light": "#1f2328", "dark": "#f0f6fc"}
CELL, GAP, HEADING, SENTENCE, ROW = 1.5, 0.1, 0.3, 0.28, 2.05
"""Inches: an image, the gap beside it, the line of names, that of a sentence, and a whole row."""
COLOURS = 128
"""Entries of the palette, which keeps the files small."""
Row = tuple[Pixels, Sample, Mask, dict[str, Mask]]


def rows(models: Mapping[str, str | None], root: str) -> list[Row]:
    """Image, sentence, ground truth and the mask of each model, by kind of sentence."""
    dataset = RISDataset(ScenesSplit("val", size=SIDE), (SIDE, SIDE), "squeeze")
    predictors = {name: load(name, checkpoint, root=root) for name, checkpoint in models.items()}
    found: list[Row] = []
    for sample, image in first_of_each_kind(dataset):
        record = dataset.split[image]
        (target,) = [target for target in record.targets if target.target_id == sample.target_id]
        pixels = record.load()
        masks = {name: one.segment(pixels, sample.text)[0].mask for name, one in predictors.items()}
        found.append((pixels, sample, target.segmentation.draw(GroundTruth()), masks))
    return found


def first_of_each_kind(dataset: RISDataset) -> list[tuple[Sample, int]]:
    """The first sentence of each kind whose image is not shown yet, with its image."""
    shown: dict[str, tuple[Sample, int]] = {}
    for index, image in enumerate(dataset.split.sentence_image.tolist()):
        (sample,) = dataset.samples([index])
        kind = sample.tags[0]
        if kind in KINDS and kind not in shown and image not in {other for _, other in shown.values()}:
            shown[kind] = (sample, image)
        if len(shown) == len(KINDS):
            break
    return [shown[kind] for kind in KINDS]


def picture(found: Sequence[Row], colour: str) -> bytes:
    """A PNG without background: a row for each sentence, a column for each model."""
    columns = ["image", "ground truth", *found[0][3]]
    width, height = len(columns) * (CELL + GAP) - GAP, HEADING + len(found) * ROW
    figure = Figure(figsize=(width, height))

    def write(text: str, x: float, y: float, size: float, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, text, color=colour, fontsize=size, va="baseline", **style)

    for column, name in enumerate(columns):
        write(name, column * (CELL + GAP) + CELL / 2, 0.75 * HEADING, 10, ha="center")
    for number, (pixels, sample, truth, masks) in enumerate(found):
        top = HEADING + number * ROW
        write(f"“{sample.text}”", 0, top + 0.75 * SENTENCE, 10.5, fontweight="bold")
        drawn = [pixels, overlay(pixels, None, truth), *(overlay(pixels, mask) for mask in masks.values())]
        for column, cell in enumerate(drawn):
            left, bottom = column * (CELL + GAP), height - top - SENTENCE - CELL
            figure.add_axes((left / width, bottom / height, CELL / width, CELL / height), frameon=False).imshow(cell)
        for column, mask in enumerate(masks.values(), 2):
            caption = f"IoU {100 * iou(mask, truth):.0f}"
            write(caption, column * (CELL + GAP) + CELL / 2, top + SENTENCE + CELL + 0.17, 9, ha="center")
    for axes in figure.axes:
        axes.set_axis_off()
    return small_png(figure)


def small_png(figure: Figure) -> bytes:
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=160, transparent=True)
    Image.open(drawn).quantize(COLOURS, Image.Quantize.FASTOCTREE).save(reduced, "PNG", optimize=True)
    return reduced.getvalue()


def iou(mask: Mask, truth: Mask) -> float:
    return float((mask & truth).sum() / max(1, np.logical_or(mask, truth).sum()))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL[=FILE]", help="a recipe, or a recipe and its checkpoint")
    parser.add_argument("--root", default="runs", help="the folder of the runs")
    parser.add_argument("--out", type=Path, default=PLOTS, help="the folder of the pictures")
    args = parser.parse_args(argv)
    models = {name: file or None for name, _, file in (given.partition("=") for given in args.models)}
    found = rows(models, args.root)
    for page, colour in TEXT.items():
        path = args.out / f"masks-{page}.png"
        write_atomically(path, picture(found, colour))
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
