"""Cut-outs that tests draw themselves: discs with stripes, in integers, so that every machine draws the same."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

NOUNS = {
    "owl": ("bird", "animal"), "crow": ("bird", "animal"), "duck": ("bird", "animal"), "trout": ("fish", "animal"),
    "shark": ("fish", "animal"), "mouse": ("animal",), "apple": ("fruit", "food"), "pear": ("fruit", "food"),
    "lemon": ("fruit", "food"), "pie": ("food",), "hammer": ("tool",), "saw": ("tool",), "cup": (),
    "sea lion": ("animal",),
}  # fmt: skip
UNSEEN = ("duck", "lemon", "shark")


def draw_cutouts(folder: Path) -> Path:
    """Fourteen nouns, two cut-outs of each, with their table."""
    folder.mkdir(parents=True)
    with (folder / "cutouts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "noun", "kinds", "size", "unseen"))
        for number, (noun, kinds) in enumerate(NOUNS.items()):
            for variant in (1, 2):
                name = f"{noun.replace(' ', '_')}-{variant}.png"
                Image.fromarray(cutout(number, variant)).save(folder / name)
                table.writerow((name, noun, ";".join(kinds), 1 + number % 5, "yes" if noun in UNSEEN else ""))
    return folder


def cutout(number: int, variant: int) -> np.ndarray:
    """(h, w, 4): an ellipse whose colour, form and stripes follow from the number, with a soft edge."""
    height, width = 60 + 7 * (number % 5), 52 + 11 * variant
    y, x = np.mgrid[:height, :width]
    away = 1000 * (2 * y - height + 1) ** 2 // height**2 + 1000 * (2 * x - width + 1) ** 2 // width**2
    alpha = np.clip((1000 - away) * 4, 0, 255)
    stripe = 60 * ((x + number * y) // 6 % 2)
    colour = [(70 + 60 * number) % 196 + stripe, (150 + 90 * number) % 196 + stripe, 40 * variant + stripe]
    return np.stack([*colour, alpha], -1).astype(np.uint8)
