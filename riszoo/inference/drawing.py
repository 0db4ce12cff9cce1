"""Drawings of predictions: masks and evidence over images, panels with their sentence, sheets of panels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from riszoo.errors import UserError, reason
from riszoo.files import write_atomically

Pixels = NDArray[np.uint8]  # (H0, W0, 3), RGB
Mask = NDArray[np.bool_]  # (H0, W0)
Map = NDArray[np.floating]  # (h, w), any resolution
Evidence = Mapping[str, Map | Sequence[tuple[str, Map]]]
"""By name, a map of the whole sentence or a list of (word, map)."""
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Cell = tuple[Image.Image, list[tuple[str, Colour]]]
"""An image, and its captions with their colours."""

PREDICTION: Colour = (255, 0, 170)
GROUND_TRUTH: Colour = (0, 235, 120)
BACKGROUND: Colour = (255, 255, 255)
TEXT: Colour = (24, 24, 28)
CAPTION: Colour = (110, 110, 118)
HEAT = np.array([(12, 8, 38), (88, 20, 110), (186, 54, 85), (249, 142, 9), (252, 255, 164)], dtype=np.float64)

CELL = 288
"""The longer side of an image in a panel, in pixels."""
GAP = 12
NARROWEST = 160
"""The width of an image with a sentence below it, at least."""
SENTENCE_SIZE, CAPTION_SIZE = 21, 15
"""Font sizes."""
LINE_HEIGHT = round(1.3 * SENTENCE_SIZE)
LONGEST_TEXT = 600
"""Characters of a sentence or caption that are drawn."""


def overlay(
    image: Pixels, mask: Mask | None, ground_truth: Mask | None = None, colour: Colour = PREDICTION
) -> Image.Image:
    """The image with the mask tinted and outlined and the ground truth outlined; the rest is darkened."""
    highlighted = ground_truth if mask is None else mask
    brightness = 1.0 if highlighted is None else np.where(highlighted, 1.0, 0.55)[..., None]
    tint = 0.0 if mask is None else 0.38 * mask[..., None]
    pixels = ((1 - tint) * brightness * image + tint * np.array(colour)).round().astype(np.uint8)
    width = max(1, round(max(image.shape[:2]) / 140))
    for outlined, line_colour in ((ground_truth, GROUND_TRUTH), (mask, colour)):
        if outlined is not None:
            pixels[_outline(outlined, width)] = line_colour
    return Image.fromarray(pixels)


def captioned(image: Image.Image, text: str) -> Image.Image:
    """The image with the sentence below it; a narrow image is centred in the width that words need."""
    width = max(image.width, NARROWEST)
    size = max(CAPTION_SIZE, width // 40)
    font, height = ImageFont.load_default(size), round(1.3 * size)
    lines = _wrapped(text, font, width - 2 * GAP)
    sheet = Image.new("RGB", (width, image.height + len(lines) * height + GAP), BACKGROUND)
    sheet.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((GAP, image.height + GAP // 2 + i * height), line, TEXT, font)
    return sheet


def _outline(mask: Mask, width: int) -> Mask:
    """The mask's pixels within `width` of its edge; the image border counts as an edge."""
    padded = Image.fromarray(np.pad(mask, width).astype(np.uint8) * 255)
    inner = np.asarray(padded.filter(ImageFilter.MinFilter(2 * width + 1)))[width:-width, width:-width]
    edge: Mask = mask & (inner == 0)
    return edge


def heat(image: Pixels, evidence: Map) -> Image.Image:
    """An evidence map over the grey image, from dark violet (minimum) to light yellow (maximum)."""
    height, width = image.shape[:2]
    low, high = float(evidence.min()), float(evidence.max())
    relative = (evidence.astype(np.float64) - low) / ((high - low) or 1.0)
    resized = Image.fromarray(relative.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(resized, dtype=np.float64)
    stops = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(values, stops, HEAT[:, channel]) for channel in range(3)], -1)
    grey = image.astype(np.float64).mean(-1, keepdims=True)
    return Image.fromarray((0.4 * grey + 0.6 * colours).round().astype(np.uint8))


def panel(
    image: Pixels,
    text: str,
    mask: Mask | None = None,
    ground_truth: Mask | None = None,
    evidence: Evidence | None = None,
) -> Image.Image:
    """One row below the sentence: the image, the mask with the ground truth, then each evidence map."""
    scale = CELL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    cells: list[Cell] = [(Image.fromarray(resized), [("image", CAPTION)])]
    if mask is not None or ground_truth is not None:
        masks = [None if each is None else _resized(each, size) for each in (mask, ground_truth)]
        cells.append((overlay(resized, masks[0], masks[1]), _legend(mask, ground_truth)))
    cells += [(heat(resized, each), [(name, CAPTION)]) for name, each in _named_maps(evidence or {})]
    return _row(text, cells)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another size, its edges smoothed."""
    smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    resized: Mask = np.asarray(smooth) >= 128
    return resized


def _legend(mask: Mask | None, ground_truth: Mask | None) -> list[tuple[str, Colour]]:
    entries = [("prediction", PREDICTION, mask), ("ground truth", GROUND_TRUTH, ground_truth)]
    return [(name if drawn.any() else f"{name}: empty", colour) for name, colour, drawn in entries if drawn is not None]


def _named_maps(evidence: Evidence) -> list[tuple[str, Map]]:
    """Every map with its caption."""
    named: list[tuple[str, Map]] = []
    for name, maps in evidence.items():
        if isinstance(maps, np.ndarray):
            named.append((name, maps))
        else:
            named += [(f"{name}: {word}", each) for word, each in maps]
    return named


def _row(text: str, cells: Sequence[Cell]) -> Image.Image:
    """Cells side by side, with the sentence above and captions below."""
    height = cells[0][0].height
    width = max(cells[0][0].width, CELL // 3)  # room for the captions of a very narrow image
    total = max(GAP + len(cells) * (width + GAP), CELL + 2 * GAP)
    large, small = ImageFont.load_default(SENTENCE_SIZE), ImageFont.load_default(CAPTION_SIZE)
    lines = _wrapped(text, large, total - 2 * GAP)
    top = GAP + len(lines) * LINE_HEIGHT + GAP // 2
    sheet = Image.new("RGB", (total, top + height + 2 * CAPTION_SIZE + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((GAP, GAP + i * LINE_HEIGHT), line, TEXT, large)
    for i, (cell, captions) in enumerate(cells):
        left = GAP + i * (width + GAP)
        sheet.paste(cell, (left, top))
        _draw_captions(draw, (left, top + height + CAPTION_SIZE // 3), captions, small, width)
    return sheet


def _draw_captions(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], captions: Sequence[tuple[str, Colour]], font: Font, width: int
) -> None:
    """Captions side by side; one of a mask's colour follows a square of that colour."""
    x, y = at
    for name, colour in captions:
        if colour != CAPTION:
            draw.rectangle((x, y + 4, x + 11, y + 15), colour)
            x += 17
        draw.text((x, y), _shortened(name, font, width), CAPTION, font)
        x += round(font.getlength(name)) + GAP


def _shortened(text: str, font: Font, width: int) -> str:
    if len(text) <= LONGEST_TEXT and font.getlength(text) <= width:
        return text
    text = text[:LONGEST_TEXT]
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Lines of whole words that fit the width; a single word that does not is shortened."""
    lines: list[str] = []
    text = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
    for word in text.split() or [" "]:
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_shortened(word, font, width))
    return lines


def contact_sheet(panels: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Panels in rows of `columns`; each row and column is as large as its largest panel."""
    if not panels or columns < 1:
        raise ValueError(f"a contact sheet needs at least one panel and one column, not {len(panels)} and {columns}")
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    widths = [max(row[k].width for row in rows if k < len(row)) for k in range(len(rows[0]))]
    heights = [max(each.height for each in row) for row in rows]
    sheet = Image.new("RGB", (sum(widths), sum(heights)), BACKGROUND)
    for r, row in enumerate(rows):
        for k, each in enumerate(row):
            sheet.paste(each, (sum(widths[:k]), sum(heights[:r])))
    return sheet


def save(image: Image.Image, path: str | Path) -> Path:
    """Write an image atomically; a missing folder is created."""
    path, file = Path(path), io.BytesIO()
    kind = Image.registered_extensions().get(path.suffix.lower(), "")
    if kind not in Image.SAVE:
        raise UserError(f"{path} has no suffix of an image format that can be written: name it {path.stem}.png")
    try:
        image.save(file, kind)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written as {kind} ({reason(error)}): name it {path.stem}.png") from None
    write_atomically(path, file.getvalue())
    return path
