"""`riszoo segment`: masks for sentences about your own images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from riszoo import recipes
from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.files import file_names
from riszoo.metrics.protocols import get_protocols
from riszoo.training import runs

if TYPE_CHECKING:
    from argparse import Namespace

    from riszoo.data.record import Pixels
    from riszoo.inference.predictions import Prediction

MAX_ERRORS = 2
"""Images that the error at the end describes."""
MAX_SIDE = 1600
"""Longer side of an overlay, in pixels; masks keep the image's own size."""


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    images = _checked_images(args)
    from riszoo.files import write_atomically
    from riszoo.inference.predictor import load, pixels_of

    predictor = load(
        args.model, args.ckpt_path, data=args.data, root=args.root, protocol=args.protocol, device=args.device
    )
    unknown = predictor.unknown_words(args.text)
    if unknown:
        print(f"riszoo: the model was trained without the words: {', '.join(unknown)}", file=sys.stderr)
    entries, errors = [], []
    for name, path in images.items():
        try:
            pixels = pixels_of(path)
            found = predictor.segment(pixels, args.text, name)
        except UserError as error:
            errors.append(str(error))
            continue
        for prediction in found:
            entries.append({**_write(args.out, pixels, prediction, args.explain), "image": str(path)})
            print(f"{path}: '{prediction.text}': {_summary(prediction)}", flush=True)
    write_atomically(args.out / "predictions.json", json.dumps(entries, ensure_ascii=False, indent=1) + "\n")
    print(f"{len(entries)} masks with overlays: {args.out}, all as RLE: {args.out / 'predictions.json'}")
    if errors:
        more = f" ({len(errors)} of {len(images)} images failed)" if len(images) > 1 else ""
        raise UserError("; ".join(errors[:MAX_ERRORS]) + more)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="riszoo segment", description=__doc__)
    parser.add_argument("--model", required=True, help="a recipe's name, or your own class")
    parser.add_argument("--image", required=True, nargs="+", action="extend", metavar="FILE", help="images")
    parser.add_argument("--text", required=True, nargs="+", action="extend", help="sentences, each for every image")
    parser.add_argument("--ckpt_path", metavar="FILE", help="a checkpoint; default: the best one of the newest run")
    parser.add_argument("--data", default="scenes", help="the data set of that run")
    parser.add_argument("--run.root", dest="root", default="runs", help="the folder of that run")
    parser.add_argument("--protocol", default="original", help="how logits become a mask; `published`: as in the paper")
    parser.add_argument("--out", type=Path, default=Path("segmented"), help="the folder for masks and overlays")
    parser.add_argument("--explain", action="store_true", help="draw the model's evidence maps too")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where one is available")
    return parser


def _checked_images(args: Namespace) -> dict[str, Path]:
    """The images by the names of their results; every option is checked before anything heavy is imported."""
    if "." not in args.model:
        recipes.get("models", args.model)
    recipes.get("data", args.data)
    get_protocols(args.protocol, published="original")
    if not all(text.strip() for text in args.text):
        raise UserError("--text is empty: give a sentence, such as --text 'the cat on the left'")
    for image in args.image:
        if not Path(image).is_file():
            raise UserError(f"image {image} is not a file: give --image the path of an image file")
    args.text = [text.encode("utf-8", "replace").decode() for text in args.text]  # a shell may pass invalid bytes
    images = _named_images([Path(image) for image in args.image])
    _create_folder(args.out)
    _check_overwriting(images, args.out, len(args.text))
    if args.ckpt_path is None:
        runs.newest(Path(args.root), args.model, args.data, "best")
    else:
        runs.existing(args.ckpt_path)
    return images


def _named_images(paths: list[Path]) -> dict[str, Path]:
    """Each image under its stem, numbered where several images have the same."""
    paths = list(dict.fromkeys(paths))
    return dict(zip(file_names([path.stem for path in paths]), paths, strict=True))


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder}: {error.strerror}; choose another --out") from None


def _check_overwriting(images: dict[str, Path], folder: Path, sentences: int) -> None:
    """Raise UserError where a result would overwrite one of the images."""
    inputs = {path.resolve(): path for path in images.values()}
    for name in images:
        for number in range(1, sentences + 1):
            for suffix in ("", "-overlay", "-evidence"):
                file = f"{name}-{number}{suffix}.png"
                image = inputs.get((folder / file).resolve())
                if image is not None:
                    raise UserError(f"{file} would overwrite the image {image}: give --out another folder")


def _write(folder: Path, pixels: Pixels, prediction: Prediction, explain: bool) -> dict[str, object]:
    """Write mask, overlay and evidence of one prediction; returns its entry for the JSON file."""
    from riszoo.data.images import resize
    from riszoo.data.masks import shrink
    from riszoo.inference.drawing import overlay, panel, save
    from riszoo.inference.predictions import write_prediction

    entry = write_prediction(folder / f"{prediction.sentence_id}.png", prediction)
    height, width = pixels.shape[:2]
    ratio = min(1.0, MAX_SIDE / max(height, width))
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    image, mask = resize(pixels, size), prediction.mask
    if ratio < 1:
        mask = shrink(mask, size)
    save(overlay(image, mask), folder / f"{prediction.sentence_id}-overlay.png")
    if explain:
        drawn = panel(image, prediction.text, mask, evidence=prediction.evidence)
        save(drawn, folder / f"{prediction.sentence_id}-evidence.png")
    return entry


def _summary(prediction: Prediction) -> str:
    """Score and box of a prediction, in words."""
    if not prediction.mask.any() or prediction.no_target:
        return "no target found"
    height, width = prediction.mask.shape
    x, y, w, h = prediction.box
    return f"score {prediction.score:.2f}, box {w} x {h} at ({x}, {y}) of {width} x {height}"
