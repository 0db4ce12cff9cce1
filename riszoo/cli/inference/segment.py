"""`riszoo segment`: masks for sentences about your own images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from riszoo import recipes
from riszoo.cli.inference.tasks import Task, checked_texts, example_tasks, file_tasks, sentences_in
from riszoo.cli.parser import CommandParser
from riszoo.cli.request import check_model
from riszoo.cli.startup import fast_imports
from riszoo.errors import UserError, without_controls
from riszoo.metrics.protocols import get_protocols
from riszoo.training import runs

if TYPE_CHECKING:
    from argparse import Namespace

    from riszoo.data.record import Pixels
    from riszoo.inference.predictions import Prediction
    from riszoo.inference.predictor import Predictor

WEIGHTS = "a checkpoint, or `best`, `last`, `shipped`; default: the best of the newest run, then the shipped weights"
EXAMPLE_MODEL = "risam"
"""The model of --example: of those whose weights are shipped, the best on its data set."""
MODEL = (
    f"a recipe's name, or your own class; default: what the file of --ckpt_path says, and of --example {EXAMPLE_MODEL}"
)
MOST_REDUCED = 8
"""How many times an image's sides may exceed the model's frame before a warning."""
Failures = dict[str, str]
"""The reason why an image failed, by its label."""
Opened = tuple[Task, "Pixels"]


def parser() -> CommandParser:
    parser = CommandParser(
        prog="riszoo segment", description=__doc__, may_be_empty=("--text",),
        hint="give images with --image and sentences with --text",
    )  # fmt: skip
    parser.add_argument("--model", help=MODEL)
    parser.add_argument(
        "--image", nargs="+", action="extend", default=[], metavar="FILE",
        help="images, folders or patterns; `-` reads lines of image, tab, sentence (or of JSON) from stdin",
    )  # fmt: skip
    parser.add_argument("--text", nargs="+", action="extend", default=[], help="sentences, each for every image")
    parser.add_argument("--text_file", type=Path, metavar="FILE", help="more sentences, one a line")
    parser.add_argument("--example", action="store_true", help="segment images of the embedded data set")
    parser.add_argument("--ckpt_path", metavar="FILE", help=WEIGHTS)
    parser.add_argument("--data", default="scenes", help="the data set of that run")
    parser.add_argument("--run.root", dest="root", default="runs", help="the folder of that run")
    parser.add_argument("--protocol", default="original", help="how logits become a mask; `published`: as in the paper")
    parser.add_argument(
        "--out", type=Path, help="the folder for masks and overlays; default: segmented, with --json none"
    )
    parser.add_argument("--json", action="store_true", help="print each prediction as a line of JSON, and nothing else")
    parser.add_argument("--explain", action="store_true", help="draw the model's evidence maps too")
    parser.add_argument("--batch", type=int, default=4, help="images that are encoded at once; default: 4")
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS",
        help="segment larger images in overlapping windows of this side; default: resize them",
    )  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where one is available")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    tasks = _checked_tasks(args)
    with fast_imports():
        from riszoo.cli.inference.files import Results
        from riszoo.inference.predictor import load

    predictor = load(
        args.model, args.ckpt_path, data=args.data, root=args.root, protocol=args.protocol, device=args.device
    )
    predictor.check_tile(args.tile)
    _warn_about_sentences(predictor, tasks)
    results = Results(args.out, as_json=args.json, explain=args.explain)
    failures: Failures = {}
    large: dict[str, str] = {}
    try:
        for (task, pixels), prediction in _segmented(predictor, tasks, args.batch, args.tile, failures):
            if args.tile is None and min(predictor.geometry(pixels).scale) * MOST_REDUCED < 1:
                large[task.label] = f"{task.label} ({pixels.shape[1]} x {pixels.shape[0]})"
            results.add(task.label, pixels, prediction)
    finally:  # after an interruption too
        results.close()
    _warn_about_sizes([*large.values()], predictor.model.size)
    _report(failures, len(tasks))
    return 0


def _checked_tasks(args: Namespace) -> list[Task]:
    """The images with their sentences; every option is checked before anything heavy is imported."""
    if args.model is None and args.example and args.ckpt_path is None:
        args.model = EXAMPLE_MODEL
    if args.model is None:
        runs.naming_its_model(args.ckpt_path)
    else:
        check_model(args.model)
    recipes.get("data", args.data)
    if len(get_protocols(args.protocol, published="original")) > 1:
        raise UserError(f"--protocol {args.protocol:.60}: give one, such as original")
    for name in ("batch", "tile"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: give at least 1")
    if args.out is None and not args.json:
        args.out = Path("segmented")
    given = checked_texts(args.text, "--text")
    given += [] if args.text_file is None else sentences_in(args.text_file)
    if args.example and (args.image or given):
        raise UserError("--example has its own images and sentences: leave out --image, --text and --text_file")
    if not (args.example or args.image):
        raise UserError("--image is missing: give image files, folders or patterns, `-` for stdin, or --example")
    tasks = [] if args.example else file_tasks(args.image, given)
    if args.explain and args.out is None:
        raise UserError("--explain draws into the folder of --out: give both, or leave --json out")
    if args.model is None:
        runs.existing(args.ckpt_path)
    else:
        runs.chosen(args.ckpt_path, Path(args.root), args.model, args.data)
    if args.out is not None:
        _create_folder(args.out)
        _check_overwriting(tasks, args.out)
    return tasks or example_tasks()


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder}: {error.strerror}; choose another --out") from None


def _check_overwriting(tasks: list[Task], folder: Path) -> None:
    """Raise UserError where a result would overwrite one of the images."""
    inputs = {task.image.resolve(): task.image for task in tasks if isinstance(task.image, Path)}
    for task in tasks:
        for number in range(1, len(task.texts) + 1):
            for suffix in ("", "-overlay", "-evidence"):
                file = f"{task.name}-{number}{suffix}.png"
                image = inputs.get((folder / file).resolve())
                if image is not None:
                    raise UserError(f"{file} would overwrite the image {image}: give --out another folder")


def _segmented(
    predictor: Predictor, tasks: list[Task], batch: int, tile: int | None, failures: Failures
) -> Iterator[tuple[Opened, Prediction]]:
    """Each prediction with its image; an image that cannot be segmented is added to `failures`."""
    from riszoo.inference.inputs import pixels_of

    for first in range(0, len(tasks), batch):
        opened: list[Opened] = []
        for task in tasks[first : first + batch]:
            try:
                opened.append((task, pixels_of(task.image)))
            except UserError as error:
                failures[task.label] = str(error)
        if opened:
            yield from _predicted(predictor, opened, tile, failures)


def _predicted(
    predictor: Predictor, opened: list[Opened], tile: int | None, failures: Failures
) -> Iterator[tuple[Opened, Prediction]]:
    """The predictions of a few images, which are tried one by one where they fail together."""
    expected = [one for one in opened for _ in one[0].texts]
    done = 0
    try:
        found = predictor.stream(
            [pixels for _, pixels in opened],
            [task.texts for task, _ in opened],
            [task.name for task, _ in opened],
            tile=tile,
        )
        for one, prediction in zip(expected, found, strict=True):
            yield one, prediction
            done += 1
    except UserError as error:
        if len(opened) == 1:
            failures[opened[0][0].label] = str(error)
            return
        again = (each for one in opened for each in _predicted(predictor, [one], tile, failures))
        yield from islice(again, done, None)


# -- messages ---------------------------------------------------------------------------------------------------------


def _warn(text: str) -> None:
    print(f"riszoo: {without_controls(text)}", file=sys.stderr)


def _warn_about_sentences(predictor: Predictor, tasks: list[Task]) -> None:
    """Name words that the model was trained without, and sentences that are longer than it reads."""
    texts = list(dict.fromkeys(text for task in tasks for text in task.texts))
    unknown = predictor.unknown_words(texts)
    if unknown:
        _warn(f"the model was trained without the words: {', '.join(unknown)}")
    truncated = predictor.truncated(texts)
    if truncated:
        text, words = next(iter(truncated.items()))
        more = f", and {len(truncated) - 1} more sentences are too long" if len(truncated) > 1 else ""
        _warn(f"the model reads only the first {words} words of '{text:.80}'{more}: shorten them")


def _warn_about_sizes(large: list[str], frame: tuple[int, int]) -> None:
    if large:
        _warn(
            f"{len(large)} image(s) are resized to fit {frame[1]} x {frame[0]} pixels, such as {large[0]}: "
            f"small objects vanish; --tile {4 * max(frame)} segments them in windows"
        )


def _report(failures: Failures, images: int) -> None:
    """Raise UserError with every image that failed; the reasons of several are printed before."""
    if len(failures) > 1:
        for reason in failures.values():
            _warn(reason)
        raise UserError(f"{len(failures)} of {images} images failed: {', '.join(failures)}")
    for reason in failures.values():
        raise UserError(reason + (f" (1 of {images} images failed)" if images > 1 else ""))
