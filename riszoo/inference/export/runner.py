"""Segments images with an exported model: the graphs, model.json and the tokenizer beside this file.

    python run.py cat.jpg "the cat on the left" "the other one" --out masks

Needs numpy and onnxruntime (torch for .pt2 graphs), Pillow to read images, and tokenizers where model.json says so.

    I images   N sentences   L tokens   H0 x W0 an image's own size   H x W the network's frame   h x w a grid
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Inputs = dict[str, Any]
WORD = re.compile(r"\w+|[^\w\s]")
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
"""The image files that are read: Pillow's others include PostScript, for which it starts another program."""


class Placement(NamedTuple):
    """How an image lies in the frame; each pair is vertical, horizontal."""

    original: tuple[int, int]
    inside: tuple[int, int]
    offset: tuple[int, int]


class Model:
    """An exported model. `encode` an image once, then `decode` any number of sentences about it.

    Args:
        folder: with model.json, the graphs and the tokenizer
        precision: `float32`, or `int8` where the export has it
    """

    def __init__(self, folder: str | Path = Path(__file__).parent, precision: str = "float32") -> None:
        folder = Path(folder)
        self.config = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        height, width = self.config["size"]
        self.frame: tuple[int, int] = (height, width)
        self.image, self.sentence = (open_graph(folder / file) for file in self.config["graphs"][precision])
        self.token_ids = open_tokenizer(folder, self.config["tokenizer"])

    def segment(self, pixels: Array, texts: list[str]) -> tuple[Array, Array | None]:
        """An image (H0, W0, 3) uint8 -> masks (N, H0, W0) bool, and which sentences a no-target head rejects (N,)."""
        image, placement = self.place(pixels)
        views = [self.view(pixels, view)[None] for view in self.config["views"]]
        box = np.array([[*placement.offset, *np.add(placement.offset, placement.inside)]], np.int64)
        features = self.encode(image[None], box, views)
        logits, *no_target = self.decode(features, box, np.zeros(len(texts), np.int64), *self.tokenize(texts))
        return self.masks(logits[:, 0], placement), no_target[0] > 0 if no_target else None

    def encode(self, images: Array, valid: Array, views: list[Array]) -> list[Array]:
        """Images (I, 3, H, W) uint8, their boxes in the frame (I, 4), further inputs -> features, each (I, ...)."""
        return self.image({"images": images, "valid": valid, "views": views})

    def decode(self, features: list[Array], valid: Array, image_index: Array, ids: Array, mask: Array) -> list[Array]:
        """Logits (N, 1, h, w), and no-target logits (N,) where the model has such a head."""
        return self.sentence(
            {"features": features, "valid": valid, "image_index": image_index, "ids": ids, "mask": mask}
        )

    def tokenize(self, texts: list[str]) -> tuple[Array, Array]:
        """Token ids (N, L), and which of them are no padding (N, L)."""
        rows = [self.token_ids(text) for text in texts]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.arange(ids.shape[1]) < np.array([len(row) for row in rows])[:, None]
        ids[mask] = [token for row in rows for token in row]
        return ids, mask

    def place(self, pixels: Array) -> tuple[Array, Placement]:
        """An image (H0, W0, 3) in the frame (3, H, W), and how it lies there."""
        size, offset, inside = pixels.shape[:2], (0, 0), self.frame
        if self.config["geometry"] != "squeeze":
            ratio = min(self.frame[0] / size[0], self.frame[1] / size[1])
            sides = [
                half_up(side * ratio) if self.config["geometry"] == "pad" else round(side * ratio) for side in size
            ]
            inside = (min(self.frame[0], max(1, sides[0])), min(self.frame[1], max(1, sides[1])))
        if self.config["geometry"] == "letterbox":
            offset = ((self.frame[0] - inside[0]) // 2, (self.frame[1] - inside[1]) // 2)
        image = np.zeros((3, *self.frame), np.uint8)
        rows, cols = (slice(start, start + length) for start, length in zip(offset, inside, strict=True))
        image[:, rows, cols] = resized(pixels, inside)
        return image, Placement((size[0], size[1]), inside, offset)

    def view(self, pixels: Array, view: dict[str, Any]) -> Array:
        """An image (H0, W0, 3) as one of the model's further inputs: (3, h, w) float, squeezed."""
        rows, cols = (
            kernel_weights(before, after, view["kernel"], view["antialias"])
            for before, after in zip(pixels.shape[:2], view["size"], strict=True)
        )
        made: Array = np.einsum("yh,hwc,xw->cyx", rows, pixels, cols, optimize=True).astype(np.float32)
        return made

    def masks(self, logits: Array, placement: Placement) -> Array:
        """Logits (N, h, w) over the frame -> masks (N, H0, W0) bool."""
        along = zip(*placement, self.frame, logits.shape[1:], strict=True)
        rows, cols = (sampling(*axis) for axis in along)
        masks: Array = rows @ logits @ cols.T > 0
        return masks


def open_graph(path: Path) -> Callable[[Inputs], list[Array]]:
    """A graph as a function of its inputs by name; a list of inputs is numbered."""
    if path.suffix == ".pt2":
        import torch

        module = torch.export.load(path).module()

        def run_module(inputs: Inputs) -> list[Array]:
            tensors = [
                list(map(torch.from_numpy, v)) if isinstance(v, list) else torch.from_numpy(v) for v in inputs.values()
            ]
            with torch.no_grad():
                return [output.numpy() for output in module(*tensors)]

        return run_module
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run_session(inputs: Inputs) -> list[Array]:
        flat: Inputs = {}
        for name, value in inputs.items():
            flat |= {f"{name}_{i}": each for i, each in enumerate(value)} if isinstance(value, list) else {name: value}
        outputs: list[Array] = session.run(None, {name: flat[name] for name in names})
        return outputs

    return run_session


def open_tokenizer(folder: Path, config: dict[str, Any]) -> Callable[[str], list[int]]:
    """The token ids of a sentence, special tokens included."""
    length: int = config["length"]
    if config["kind"] == "tokenizers":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / config["file"]))
        if config["keep_end"]:
            tokenizer.enable_truncation(length)
        return lambda text: list(tokenizer.encode(text).ids)[:length]
    known = {token: index for index, token in enumerate(config["tokens"])}
    unknown = known[config["unknown"]]
    before, after = ([known[token] for token in config[name]] for name in ("before", "after"))

    def ids_of(text: str) -> list[int]:
        words = [word.lower() for word in WORD.findall(text)][: config["words"]]
        return [*before, *(known.get(word, unknown) for word in words), *after][:length] or [unknown]

    return ids_of


# -- resizing ---------------------------------------------------------------------------------------------------------


def half_up(length: float) -> int:
    return math.floor(length + 0.5)


def resized(pixels: Array, size: tuple[int, int]) -> Array:
    """(H0, W0, 3) uint8 -> (3, h, w) uint8: Pillow's bilinear filter with antialiasing."""
    lines = zip(pixels.shape[:2], size, strict=True)
    rows, cols = (kernel_weights(before, after, "bilinear", True) for before, after in lines)
    wide = np.floor(np.einsum("hwc,xw->chx", pixels, cols, optimize=True) + 0.5)
    levels: Array = np.clip(np.floor(rows @ wide + 0.5), 0, 255).astype(np.uint8)
    return levels


def kernel_weights(before: int, after: int, kernel: str, antialias: bool) -> Array:
    """(after, before): the share of each pixel of a line in each pixel of the resized line."""
    if before == after:
        return np.eye(after)
    scale = before / after
    support = max(scale, 1.0) if antialias else 1.0
    centre = (np.arange(after)[:, None] + 0.5) * scale - 0.5
    radius = math.ceil(2 * support) + 1
    taps = np.floor(centre) + np.arange(-radius, radius + 2)  # (after, taps)
    distance = np.abs(taps - centre) / support
    if kernel == "bilinear":
        weights = np.maximum(1 - distance, 0)
    else:
        a = -0.5 if antialias else -0.75
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((distance - 5) * distance + 8) * distance * a - 4 * a
        weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    if antialias:  # pixels outside do not count; without antialiasing the border is repeated
        weights = weights * ((taps >= 0) & (taps < before))
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((after, before))
    np.add.at(matrix, (np.arange(after)[:, None], np.clip(taps, 0, before - 1).astype(int)), weights)
    return matrix


def sampling(cells: int, inside: int, offset: int, frame: int, grid: int) -> Array:
    """(cells, grid): bilinear weights from a grid over the frame to the image's own pixels along one axis."""
    centre = ((np.arange(cells) + 0.5) * inside / cells + offset) * grid / frame - 0.5
    low = np.floor(centre)
    matrix = np.zeros((cells, grid), np.float32)
    for tap, weight in ((low, 1 - (centre - low)), (low + 1, centre - low)):
        np.add.at(matrix, (np.arange(cells), np.clip(tap, 0, grid - 1).astype(int)), weight.astype(np.float32))
    return matrix


def as_rgb(image: Any) -> Array:
    """A Pillow image as (H0, W0, 3) uint8, as the model read its images: transparency white, 16-bit greys scaled."""
    from PIL import Image

    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        levels = np.nan_to_num(np.asarray(image, np.float32))
        greatest = float(levels.max(initial=0))
        top = next((top for top in (1.0, 255.0, 65535.0) if greatest <= top), greatest)
        top = 65535.0 if image.mode.startswith("I;") else top
        grey = (levels.clip(0, top) * (255 / top)).round().astype(np.uint8)
        grey[levels == image.info.get("transparency")] = 255
        image = Image.fromarray(grey)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Segment an image with an exported model.")
    parser.add_argument("image", type=Path)
    parser.add_argument("text", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("masks"), help="folder for one PNG a sentence")
    parser.add_argument("--precision", choices=["float32", "int8"], default="float32")
    args = parser.parse_args()
    from PIL import Image, ImageOps

    Image.init()
    try:
        with Image.open(args.image, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            pixels = as_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # a hostile file raises nearly anything
        parser.error(f"{args.image} cannot be read as an image: {error}")
    graphs = json.loads((Path(__file__).parent / "model.json").read_text(encoding="utf-8"))["graphs"]
    if args.precision not in graphs:
        parser.error(f"this export has no graphs of {args.precision}: give --precision {' or '.join(graphs)}")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {args.out} cannot be a folder: {error.strerror}; give another")
    masks, rejected = Model(precision=args.precision).segment(pixels, args.text)
    for number, (text, mask) in enumerate(zip(args.text, masks, strict=True), 1):
        file = args.out / f"{args.image.stem}-{number}.png"
        partial = file.with_suffix(".part")
        Image.fromarray(mask.astype(np.uint8) * 255).save(partial, "PNG")
        partial.replace(file)
        found = mask.any() and not (rejected is not None and rejected[number - 1])
        print(f"{file}: '{text}': {mask.mean():.1%} of the image" if found else f"{file}: '{text}': no target")


if __name__ == "__main__":
    main()
