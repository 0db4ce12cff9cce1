"""`riszoo segment`: masks for sentences about images of your own."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.training import runs

if TYPE_CHECKING:
    from argparse import Namespace

    from PIL import Image

    from riszoo.data.record import Pixels
    from riszoo.inference.predictions import Prediction

LARGEST = 1600
"""Longer side of an overlay, in pixels; masks keep the image's own size."""
LONGEST = 100
"""Letters of an image's name that begin the names of what is written about it."""


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    wanted = _checked(args)
    from riszoo.files import write_atomically
    from riszoo.inference.drawing import save
    from riszoo.inference.predictions import write_predictions
    from riszoo.inference.predictor import load, pixels_of

    segmenter = load(
        args.model, args.ckpt_path, data=args.data, root=args.root, protocol=args.protocol, device=args.device
    )
    unread = segmenter.unread(args.text)
    if unread:
        print(f"riszoo: this model was trained without the words: {', '.join(unread)}", file=sys.stderr)
    entries = []
    for stem, path in wanted.items():
        pixels = pixels_of(path)
        found = segmenter.ask(pixels, args.text, stem)
        for entry, prediction in zip(write_predictions(args.out, found), found, strict=True):
            save(_overlaid(pixels, prediction), args.out / f"{prediction.sentence_id}-overlay.png")
            if args.explain:
                save(_explained(pixels, prediction), args.out / f"{prediction.sentence_id}-evidence.png")
            entries.append({**entry, "image": str(path)})
            print(_told(path, prediction), flush=True)
    write_atomically(args.out / "answers.json", json.dumps(entries, ensure_ascii=False, indent=1) + "\n")
    print(f"{len(entries)} masks with overlays: {args.out}, all as RLE: {args.out / 'answers.json'}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="riszoo segment", description=__doc__)
    parser.add_argument("--model", required=True, help="a recipe's name, or a class of your own")
    parser.add_argument("--image", required=True, nargs="+", action="extend", metavar="FILE", help="images")
    parser.add_argument("--text", required=True, nargs="+", action="extend", help="sentences, asked of each image")
    parser.add_argument("--ckpt_path", metavar="FILE", help="a checkpoint; the newest run's best when left out")
    parser.add_argument("--data", default="scenes", help="what the run to be found was trained on")
    parser.add_argument("--run.root", dest="root", default="runs", help="where runs are looked for")
    parser.add_argument("--protocol", default="original", help="how logits become a mask; `published`: as the paper")
    parser.add_argument("--out", type=Path, default=Path("segmented"), help="the folder for masks and overlays")
    parser.add_argument("--explain", action="store_true", help="draw the model's evidence too")
    parser.add_argument("--device", help="cpu, cuda, ...; a GPU where there is one, when left out")
    return parser


def _checked(args: Namespace) -> dict[str, Path]:
    """Stem -> image, every name checked before anything heavy is imported."""
    if "." not in args.model:
        recipes.get("models", args.model)
    recipes.get("data", args.data)
    if args.ckpt_path is not None:
        runs.existing(args.ckpt_path)
    if not all(text.strip() for text in args.text):
        raise UserError("--text is empty: say what to look for, such as --text 'the cat on the left'")
    for image in args.image:
        if not Path(image).is_file():
            raise UserError(f"there is no image {image}: give --image the path of an image file")
    args.text = [text.encode("utf-8", "replace").decode() for text in args.text]  # a shell may hand on broken bytes
    wanted = _stems([Path(image) for image in args.image])
    _make(args.out)
    _spare_images(wanted, args)
    return wanted


def _stems(images: list[Path]) -> dict[str, Path]:
    """A name of its own for each image: its stem, numbered where several share it."""
    images = list(dict.fromkeys(images))
    stems = [image.stem[:LONGEST] for image in images]
    shared = Counter(stems)
    names = [stem if shared[stem] == 1 else f"{stem}_{place}" for place, stem in enumerate(stems, 1)]
    return dict(zip(names, images, strict=True))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from None


def _spare_images(wanted: dict[str, Path], args: Namespace) -> None:
    """No image that is asked about is written over."""
    images = {path.resolve(): path for path in wanted.values()}
    kinds = ["", "-overlay", "-evidence"]
    for stem in wanted:
        for name in (f"{stem}-{k}{kind}.png" for k in range(1, len(args.text) + 1) for kind in kinds):
            taken = images.get((args.out / name).resolve())
            if taken is not None:
                raise UserError(f"the mask {name} would overwrite the image {taken}: give --out another folder")


def _told(path: Path, prediction: Prediction) -> str:
    """One line: where, what, and how sure."""
    height, width = prediction.mask.shape
    if not prediction.mask.any() or prediction.nothing:
        found = "nothing found"
    else:
        x, y, w, h = prediction.box
        found = f"score {prediction.score:.2f}, box {w} x {h} at ({x}, {y}) of {width} x {height}"
    return f"{path}: '{prediction.text}': {found}"


def _small(pixels: Pixels, prediction: Prediction) -> tuple[Pixels, Prediction]:
    """Both shrunk to what a drawing needs."""
    from dataclasses import replace

    from riszoo.data.images import resize
    from riszoo.data.masks import shrink

    height, width = pixels.shape[:2]
    ratio = min(1.0, LARGEST / max(height, width))
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    return resize(pixels, size), prediction if ratio == 1 else replace(prediction, mask=shrink(prediction.mask, size))


def _overlaid(pixels: Pixels, prediction: Prediction) -> Image.Image:
    from riszoo.inference.drawing import overlay

    image, small = _small(pixels, prediction)
    return overlay(image, small.mask)


def _explained(pixels: Pixels, prediction: Prediction) -> Image.Image:
    from riszoo.inference.drawing import panel

    image, small = _small(pixels, prediction)
    return panel(image, small.text, small.mask, evidence=small.evidence)
