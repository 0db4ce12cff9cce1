"""What `riszoo segment` is to segment: images from files, folders, patterns and stdin, each with its sentences.

Nothing heavy is imported, so that wrong paths are reported at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riszoo.errors import UserError
from riszoo.files import file_names

if TYPE_CHECKING:
    from riszoo.data.record import Pixels

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in [
        "avif", "bmp", "gif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo", "pbm", "pgm", "png", "pnm",
        "ppm", "tga", "tif", "tiff", "webp",
    ]
)  # fmt: skip
"""Those of the images of a folder; a file that is named may have any."""
STDIN = "-"
MOST_BYTES = 64 << 20
"""The largest list of sentences, or of images and sentences."""
EXAMPLES, EXAMPLE_SIZE = 4, 320
"""Images of the embedded data set for a try, and the length of their sides."""
Pairs = dict[Path, list[str]]


@dataclass(frozen=True)
class Task:
    """One image with its sentences; `name` begins the names of its files, `label` is what messages call it."""

    name: str
    label: str
    image: Path | Pixels
    texts: list[str]


def file_tasks(images: Iterable[str], texts: list[str]) -> list[Task]:
    """Every sentence for every image, and the pairs of stdin where an image is `-`."""
    pairs: Pairs = {}
    named: set[Path] = set()  # by --image, in any place beside stdin
    for image in images:
        if image == STDIN:
            for path, own in _stdin_pairs(texts):
                pairs.setdefault(path, []).extend(own)
        else:
            for path in _files(image):
                pairs.setdefault(path, []).extend([] if path in named else texts)
                named.add(path)
    names = file_names([path.stem for path in pairs])
    missing = next((path for path, own in pairs.items() if not own), None)
    if missing is not None:
        raise UserError(f"no sentence for {missing}: give --text, such as --text 'the cat on the left'")
    return [Task(name, _utf8(str(path)), path, own) for name, (path, own) in zip(names, pairs.items(), strict=True)]


def example_tasks() -> list[Task]:
    """A few images of the embedded data set with their sentences."""
    from riszoo.data.scenes import ScenesSplit

    split = ScenesSplit("val", EXAMPLE_SIZE)
    records = [split[i] for i in range(EXAMPLES)]
    return [
        Task(each.image_id, each.image_id, each.load(), [sentence.text for _, sentence in each.sentences()])
        for each in records
    ]


def _files(image: str) -> list[Path]:
    """The file itself, the images of a folder, or the files that match a pattern, in the order of their names."""
    path = Path(image)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [each for each in sorted(path.iterdir()) if each.suffix.lower() in SUFFIXES and each.is_file()]
        if not found:
            raise UserError(f"the folder {image} contains no image: give --image a file, a folder or a pattern")
        return found
    if any(character in image for character in "*?["):
        try:
            found = sorted(each for each in _matches(path) if each.is_file())
        except ValueError as error:
            raise UserError(f"--image {image} is not a pattern: {error}") from None
        if not found:
            raise UserError(f"no file matches --image {image}: check the pattern")
        return found
    raise UserError(f"image {image} is not a file: give --image the path of an image file")


def _matches(pattern: Path) -> Iterable[Path]:
    """The paths that match a pattern; `**` matches folders of any depth."""
    anchor = Path(pattern.anchor)
    return anchor.glob(str(pattern.relative_to(anchor)))


# -- sentences --------------------------------------------------------------------------------------------------------


def checked_texts(texts: Iterable[Any], where: str) -> list[str]:
    """The sentences themselves; raises UserError for one that is empty or not text."""
    found = list(texts)
    if not all(isinstance(text, str) and text.strip() for text in found):
        raise UserError(f"{where} is empty: give a sentence, such as --text 'the cat on the left'")
    return [_utf8(text) for text in found]


def _utf8(text: str) -> str:
    """Text of which a shell or a file system may have passed invalid bytes."""
    return text.encode("utf-8", "replace").decode()


def sentences_in(file: Path) -> list[str]:
    """The sentences of a text file, one a line."""
    try:
        with file.open("rb") as stream:
            lines = _lines(stream.read(MOST_BYTES + 1), str(file))
    except OSError as error:
        raise UserError(f"cannot read --text_file {file}: {error.strerror}; give a file of sentences") from None
    if not lines:
        raise UserError(f"--text_file {file} contains no sentence: write one on each line")
    return [text for _, text in lines]


def _lines(content: bytes, where: str) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    if len(content) > MOST_BYTES:
        raise UserError(f"{where} is larger than {MOST_BYTES >> 20} MiB: split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(
            f"{where} is not UTF-8 text: write a sentence, or an image and a sentence, on each line"
        ) from None
    return [(number, line.strip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _stdin_pairs(texts: list[str]) -> list[tuple[Path, list[str]]]:
    """The images of stdin, each with the sentence of its line, or with `texts` where the line has none."""
    lines = _lines(sys.stdin.buffer.read(MOST_BYTES + 1), "stdin")
    if not lines:
        raise UserError("stdin is empty: write an image, a tab and a sentence on each line, or leave out --image -")
    pairs = []
    for number, line in lines:
        image, own = _json_pair(line, number) if line.lstrip().startswith("{") else _tabbed_pair(line)
        if "\0" in image:
            raise UserError(f"line {number} of stdin: the name of the image has a zero byte; give a path")
        pairs.append((Path(image), checked_texts(own, f"the sentence of line {number} of stdin") or texts))
    return pairs


def _tabbed_pair(line: str) -> tuple[str, list[str]]:
    image, tab, text = line.partition("\t")
    return image.strip(), [text] if tab else []


def _json_pair(line: str, number: int) -> tuple[str, list[Any]]:
    """Image and sentences of {"image": ..., "text": "..."} or {"image": ..., "text": ["...", "..."]}."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"line {number} of stdin is not valid JSON: give an image, a tab and a sentence") from None
    image, text = row.get("image"), row.get("text", row.get("sentence", []))
    if not isinstance(image, str) or not image:
        raise UserError(f'line {number} of stdin names no image: give {{"image": "a.jpg", "text": "the cat"}}')
    return image, text if isinstance(text, list) else [text]
