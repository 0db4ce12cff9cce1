"""Images of answers: masks laid over images, evidence as heat, panels with their sentence, sheets of panels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from riszoo.errors import UserError
from riszoo.files import write_atomically

Pixels = NDArray[np.uint8]  # (H0, W0, 3), RGB
Mask = NDArray[np.bool_]  # (H0, W0)
Map = NDArray[np.floating]  # (h, w), any resolution
Colour = tuple[int, int, int]
Evidence = Mapping[str, Map | Sequence[tuple[str, Map]]]
"""A map for the whole sentence, or one for each word, by name."""

ANSWER: Colour = (255, 0, 170)
GROUND_TRUTH: Colour = (0, 235, 120)
PAPER: Colour = (255, 255, 255)
INK: Colour = (24, 24, 28)
FAINT: Colour = (110, 110, 118)

CELL = 288
"""The longer side of an image in a panel."""
GAP = 12
SENTENCE, CAPTION = 21, 15  # sizes of type

_HEAT = np.array([(12, 8, 38), (88, 20, 110), (186, 54, 85), (249, 142, 9), (252, 255, 164)], dtype=np.float64)


def overlay(image: Pixels, mask: Mask | None, ground_truth: Mask | None = None, colour: Colour = ANSWER) -> Image.Image:
    """The mask tinted and outlined, the ground truth outlined in another colour; everything else is dimmed."""
    bright = ground_truth if mask is None else mask
    light = 1.0 if bright is None else np.where(bright, 1.0, 0.55)[..., None]
    tint = 0.0 if mask is None else 0.38 * mask[..., None]
    drawn = ((1 - tint) * light * image + tint * np.array(colour)).round().astype(np.uint8)
    width = max(1, round(max(image.shape[:2]) / 140))
    for shape, line in ((ground_truth, GROUND_TRUTH), (mask, colour)):
        if shape is not None:
            drawn[_outline(shape, width)] = line
    return Image.fromarray(drawn)


def _outline(mask: Mask, width: int) -> Mask:
    """The pixels just inside a mask's edge; the image's own edge counts."""
    padded = Image.fromarray(np.pad(mask, width).astype(np.uint8) * 255)
    inner = np.asarray(padded.filter(ImageFilter.MinFilter(2 * width + 1)))[width:-width, width:-width]
    edge: Mask = mask & (inner == 0)
    return edge


def heat(image: Pixels, evidence: Map) -> Image.Image:
    """An evidence map over the image in grey: from dark violet, its least, to light yellow, its greatest."""
    height, width = image.shape[:2]
    low, high = float(evidence.min()), float(evidence.max())
    level = (evidence.astype(np.float64) - low) / ((high - low) or 1.0)
    smooth = Image.fromarray(level.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    strength = np.asarray(smooth, dtype=np.float64)
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(strength, stops, _HEAT[:, channel]) for channel in range(3)], -1)
    grey = image.astype(np.float64).mean(-1, keepdims=True)
    return Image.fromarray((0.4 * grey + 0.6 * colours).round().astype(np.uint8))


def panel(
    image: Pixels,
    text: str,
    mask: Mask | None = None,
    ground_truth: Mask | None = None,
    evidence: Evidence | None = None,
) -> Image.Image:
    """One row: the image, what was answered, then each evidence map; the sentence above."""
    scale = CELL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    large = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    cells = [(Image.fromarray(large), [("image", FAINT)])]
    if mask is not None or ground_truth is not None:
        prediction, true = (None if shape is None else _resized(shape, size) for shape in (mask, ground_truth))
        cells.append((overlay(large, prediction, true), _legend(mask, ground_truth)))
    cells += [(heat(large, found), [(name, FAINT)]) for name, found in _named(evidence or {})]
    return _row(text, cells)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask with smooth edges at another size."""
    smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    resized: Mask = np.asarray(smooth) >= 128
    return resized


def _legend(mask: Mask | None, ground_truth: Mask | None) -> list[tuple[str, Colour]]:
    shown = [("answer", ANSWER, mask), ("ground_truth", GROUND_TRUTH, ground_truth)]
    return [(name if shape.any() else f"{name}: nothing", colour) for name, colour, shape in shown if shape is not None]


def _named(evidence: Evidence) -> list[tuple[str, Map]]:
    found: list[tuple[str, Map]] = []
    for name, maps in evidence.items():
        if isinstance(maps, np.ndarray):
            found.append((name, maps))
        else:
            found += [(f"{name}: {word}", each) for word, each in maps]
    return found


def _row(text: str, cells: Sequence[tuple[Image.Image, Sequence[tuple[str, Colour]]]]) -> Image.Image:
    """Cells side by side, the sentence above and a caption below each."""
    height = cells[0][0].height
    width = max(cells[0][0].width, CELL // 3)  # a sliver of an image has room for its caption all the same
    total = max(GAP + len(cells) * (width + GAP), CELL + 2 * GAP)
    large, small = ImageFont.load_default(SENTENCE), ImageFont.load_default(CAPTION)
    lines = _wrapped(text, large, total - 2 * GAP)
    top = GAP + len(lines) * round(1.3 * SENTENCE) + GAP // 2
    sheet = Image.new("RGB", (total, top + height + 2 * CAPTION + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, line in enumerate(lines):
        draw.text((GAP, GAP + place * round(1.3 * SENTENCE)), line, INK, large)
    for place, (cell, captions) in enumerate(cells):
        left = GAP + place * (width + GAP)
        sheet.paste(cell, (left, top))
        _caption(draw, (left, top + height + CAPTION // 3), captions, small, width)
    return sheet


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _caption(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], captions: Sequence[tuple[str, Colour]], font: Font, width: int
) -> None:
    """Names side by side; one in a colour of its own has a patch of it before its name."""
    x, y = at
    for name, colour in captions:
        if colour != FAINT:
            draw.rectangle((x, y + 4, x + 11, y + 15), colour)
            x += 17
        draw.text((x, y), _shortened(name, font, width), FAINT, font)
        x += round(font.getlength(name)) + GAP


def _shortened(name: str, font: Font, width: int) -> str:
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(name + "…") > width:
        name = name[:-1]
    return name + "…"


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Lines of whole words no wider than the width; a word that is wider alone is cut."""
    lines: list[str] = []
    for word in text.split() or [" "]:
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_shortened(word, font, width))
    return lines


def contact_sheet(panels: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Panels in rows, each row as high as its highest, each column as wide as its widest."""
    if not panels or columns < 1:
        raise ValueError(f"a contact sheet needs a panel and a column, not {len(panels)} and {columns}")
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    widths = [max(row[k].width for row in rows if k < len(row)) for k in range(len(rows[0]))]
    heights = [max(each.height for each in row) for row in rows]
    sheet = Image.new("RGB", (sum(widths), sum(heights)), PAPER)
    for r, row in enumerate(rows):
        for k, each in enumerate(row):
            sheet.paste(each, (sum(widths[:k]), sum(heights[:r])))
    return sheet


def save(image: Image.Image, path: str | Path) -> Path:
    """Write an image so that nobody ever sees half of it; the folder is made where it is missing."""
    path, file = Path(path), io.BytesIO()
    kind = Image.registered_extensions().get(path.suffix.lower(), "")
    if kind not in Image.SAVE:
        raise UserError(f"{path} does not end like an image that can be written: name it {path.stem}.png")
    image.save(file, kind)
    write_atomically(path, file.getvalue())
    return path
