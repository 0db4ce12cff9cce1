"""`riszoo segment`: masks for sentences about pictures of your own."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from riszoo import recipes, runs
from riszoo.arguments import OneSentence
from riszoo.errors import UserError

if TYPE_CHECKING:
    from argparse import Namespace

    from PIL import Image

    from riszoo.answers import Answer
    from riszoo.data.base import Pixels

LARGEST = 1600
"""Longer side of an overlay, in pixels; masks keep the picture's own size."""
LONGEST = 100
"""Letters of a picture's name that begin the names of what is written about it."""


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    wanted = _checked(args)
    from riszoo.answers import write_answers
    from riszoo.draw import save
    from riszoo.files import write_atomically
    from riszoo.hub import load, pixels_of

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
        for entry, answer in zip(write_answers(args.out, found), found, strict=True):
            save(_overlaid(pixels, answer), args.out / f"{answer.id}-overlay.png")
            if args.explain:
                save(_explained(pixels, answer), args.out / f"{answer.id}-evidence.png")
            entries.append({**entry, "image": str(path)})
            print(_told(path, answer), flush=True)
    write_atomically(args.out / "answers.json", json.dumps(entries, ensure_ascii=False, indent=1) + "\n")
    print(f"{len(entries)} masks with overlays: {args.out}, all as RLE: {args.out / 'answers.json'}")
    return 0


def _parser() -> OneSentence:
    parser = OneSentence(prog="riszoo segment", description=__doc__)
    parser.add_argument("--model", required=True, help="a recipe's name, or a class of your own")
    parser.add_argument("--image", required=True, nargs="+", action="extend", metavar="FILE", help="pictures")
    parser.add_argument("--text", required=True, nargs="+", action="extend", help="sentences, asked of each picture")
    parser.add_argument("--ckpt_path", metavar="FILE", help="a checkpoint; the newest run's best when left out")
    parser.add_argument("--data", default="scenes", help="what the run to be found was trained on")
    parser.add_argument("--run.root", dest="root", default="runs", help="where runs are looked for")
    parser.add_argument("--protocol", default="original", help="how logits become a mask; `published`: as the paper")
    parser.add_argument("--out", type=Path, default=Path("segmented"), help="the folder for masks and overlays")
    parser.add_argument("--explain", action="store_true", help="draw the model's evidence too")
    parser.add_argument("--device", help="cpu, cuda, ...; a GPU where there is one, when left out")
    return parser


def _checked(args: Namespace) -> dict[str, Path]:
    """Stem -> picture, every name checked before anything heavy is imported."""
    if "." not in args.model:
        recipes.get("models", args.model)
    recipes.get("data", args.data)
    if args.ckpt_path is not None:
        runs.existing(args.ckpt_path)
    if not all(text.strip() for text in args.text):
        raise UserError("--text is empty: say what to look for, such as --text 'the cat on the left'")
    for image in args.image:
        if not Path(image).is_file():
            raise UserError(f"there is no picture {image}: give --image the path of a picture file")
    args.text = [text.encode("utf-8", "replace").decode() for text in args.text]  # a shell may hand on broken bytes
    wanted = _stems([Path(image) for image in args.image])
    _make(args.out)
    _spare_pictures(wanted, args)
    return wanted


def _stems(images: list[Path]) -> dict[str, Path]:
    """A name of its own for each picture: its stem, numbered where several share it."""
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


def _spare_pictures(wanted: dict[str, Path], args: Namespace) -> None:
    """No picture that is asked about is written over."""
    pictures = {path.resolve(): path for path in wanted.values()}
    kinds = ["", "-overlay", "-evidence"]
    for stem in wanted:
        for name in (f"{stem}-{k}{kind}.png" for k in range(1, len(args.text) + 1) for kind in kinds):
            taken = pictures.get((args.out / name).resolve())
            if taken is not None:
                raise UserError(f"the mask {name} would overwrite the picture {taken}: give --out another folder")


def _told(path: Path, answer: Answer) -> str:
    """One line: where, what, and how sure."""
    height, width = answer.mask.shape
    if not answer.mask.any() or answer.nothing:
        found = "nothing found"
    else:
        x, y, w, h = answer.box
        found = f"score {answer.score:.2f}, box {w} x {h} at ({x}, {y}) of {width} x {height}"
    return f"{path}: '{answer.text}': {found}"


def _small(pixels: Pixels, answer: Answer) -> tuple[Pixels, Answer]:
    """Both shrunk to what a drawing needs."""
    from dataclasses import replace

    from riszoo.data.masks import shrink
    from riszoo.data.pictures import resize

    height, width = pixels.shape[:2]
    ratio = min(1.0, LARGEST / max(height, width))
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    return resize(pixels, size), answer if ratio == 1 else replace(answer, mask=shrink(answer.mask, size))


def _overlaid(pixels: Pixels, answer: Answer) -> Image.Image:
    from riszoo.draw import overlay

    picture, small = _small(pixels, answer)
    return overlay(picture, small.mask)


def _explained(pixels: Pixels, answer: Answer) -> Image.Image:
    from riszoo.draw import panel

    picture, small = _small(pixels, answer)
    return panel(picture, small.text, small.mask, evidence=small.evidence)
