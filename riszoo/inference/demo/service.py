"""What the demo computes: masks and evidence of several models for one image, within limits. Imports no web library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from riszoo.data.images import FORMATS, resize
from riszoo.data.record import Pixels
from riszoo.data.scenes import ScenesSplit
from riszoo.errors import UserError, unknown_name
from riszoo.inference.drawing import heat, overlay
from riszoo.inference.inputs import pixels_of
from riszoo.inference.predictions import Prediction
from riszoo.inference.predictor import Predictor

MOST_BYTES, MOST_PIXELS = 16 << 20, 24_000_000
"""The largest file that may be uploaded, and the largest image that is decoded."""
MOST_SENTENCES, MOST_CHARACTERS = 8, 300
"""Sentences of one request, and characters of each."""
SIDE, EVIDENCE_SIDE = 960, 240
"""Pixels of the longer side: larger images are reduced before they are segmented, and for maps of evidence."""
MOST_MAPS = 60
"""Maps of evidence of one answer."""
LOWEST, HIGHEST = 0.05, 0.95
"""The probabilities that a pixel of a mask may have to exceed."""
EXAMPLES, EXAMPLE_SIZE = 4, 320

Drawing = tuple[Image.Image, str]
"""An image and its caption."""


@dataclass
class Answer:
    """The drawings for one request: for each sentence the masks of all models, then the maps of evidence."""

    masks: list[Drawing] = field(default_factory=list)
    evidence: list[Drawing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Service:
    """Answers requests with one copy of each model.

    Args:
        models: the predictors by name
    """

    def __init__(self, models: Mapping[str, Predictor]) -> None:
        self.models = dict(models)

    def answer(
        self, image: str | Path | None, text: str, names: Sequence[str], threshold: float, *, evidence: bool
    ) -> Answer:
        """The masks of these models; raises UserError for a request outside the limits.

        Args:
            image: an image file
            text: sentences, one a line
            names: of the models
            threshold: the probability that the pixels of a mask exceed
            evidence: draw the models' maps too
        """
        sentences = checked_sentences(text)
        models = self._chosen(names)
        if not LOWEST <= threshold <= HIGHEST:
            raise UserError(f"threshold {threshold:g}: give a probability from {LOWEST} to {HIGHEST}")
        pixels = _reduced(checked_image(image), SIDE)
        found = {
            name: predictor.at_threshold(threshold).segment(Image.fromarray(pixels), sentences)
            for name, predictor in models.items()
        }
        answer = Answer(notes=[*self._notes(models, sentences)])
        for i in range(len(sentences)):
            for name, predictions in found.items():
                answer.masks.append((overlay(pixels, predictions[i].mask), caption(name, predictions[i])))
                answer.evidence += _maps(pixels, name, predictions[i]) if evidence else []
        if len(answer.evidence) > MOST_MAPS:
            answer.notes.append(f"the first {MOST_MAPS} of {len(answer.evidence)} maps of evidence are shown")
        del answer.evidence[MOST_MAPS:]
        return answer

    def _chosen(self, names: Sequence[str]) -> dict[str, Predictor]:
        for name in names:
            if name not in self.models:
                raise unknown_name("model", str(name), self.models)
        if not names:
            raise UserError(f"no model is chosen: choose one of {', '.join(self.models)}")
        return {name: predictor for name, predictor in self.models.items() if name in names}

    def _notes(self, models: Mapping[str, Predictor], sentences: Sequence[str]) -> Iterator[str]:
        """What a model cannot read of the sentences."""
        for name, predictor in models.items():
            if unknown := predictor.unknown_words(sentences):
                yield f"{name} was trained without the words: {', '.join(unknown)}"
            for text, words in predictor.truncated(sentences).items():
                yield f"{name} reads only the first {words} words of '{text:.80}'"


def checked_sentences(text: str) -> list[str]:
    """The lines that are not empty; raises UserError for none, too many or too long ones."""
    sentences = [line.strip() for line in text.splitlines() if line.strip()]
    if not sentences:
        raise UserError("the sentence is missing: describe one object of the image on each line")
    if len(sentences) > MOST_SENTENCES:
        raise UserError(f"{len(sentences)} sentences: give at most {MOST_SENTENCES}, one on each line")
    longest = max(map(len, sentences))
    if longest > MOST_CHARACTERS:
        raise UserError(f"a sentence of {longest} characters: give at most {MOST_CHARACTERS}")
    return sentences


def checked_image(image: str | Path | None) -> Pixels:
    """The pixels of a file whose size is within the limits, which are checked before it is decoded."""
    if not image:
        raise UserError("the image is missing: upload one, or choose an example")
    path = Path(image)
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UserError(f"the file has {path.stat().st_size / 2**20:.0f} MiB: give at most {MOST_BYTES >> 20} MiB")
    try:
        with Image.open(path, formats=FORMATS) as opened:
            width, height = opened.size
    except Exception:  # a hostile file raises nearly anything
        raise UserError("the file is not an image that can be read: give a PNG or JPEG file") from None
    if width * height > MOST_PIXELS:
        raise UserError(f"the image has {width} x {height} pixels: give at most {MOST_PIXELS // 10**6} million")
    try:
        return pixels_of(path)
    except UserError:  # its sentence names a file of the server
        raise UserError("the image is damaged and cannot be decoded: give another file") from None


def caption(name: str, prediction: Prediction) -> str:
    """The sentence, the model, and its score."""
    empty = not prediction.mask.any() or bool(prediction.no_target)
    result = "no target found" if empty else f"score {prediction.score:.2f}"
    return f"{prediction.text} · {name}, {result}"


def _reduced(pixels: Pixels, side: int) -> Pixels:
    """The image with its longer side at most `side`."""
    height, width = pixels.shape[:2]
    ratio = min(1.0, side / max(height, width))
    return resize(pixels, (max(1, round(height * ratio)), max(1, round(width * ratio))))


def _maps(pixels: Pixels, name: str, prediction: Prediction) -> list[Drawing]:
    """The model's evidence for one sentence: a map of the whole, or of each word."""
    small = _reduced(pixels, EVIDENCE_SIDE)
    drawn: list[Drawing] = []
    for kind, maps in prediction.evidence.items():
        words: list[tuple[str, Any]] = maps if isinstance(maps, list) else [("", maps)]
        drawn += [(heat(small, each), f"{word or prediction.text} · {name}, {kind}") for word, each in words]
    return drawn


def example_images(folder: Path) -> list[tuple[Path, str]]:
    """Images of the embedded data set, written to a folder, with their sentences, one a line."""
    split = ScenesSplit("val", EXAMPLE_SIZE)
    examples = []
    for record in (split[i] for i in range(EXAMPLES)):
        path = folder / f"{record.image_id}.png"
        Image.fromarray(record.load()).save(path)
        examples.append((path, "\n".join(sentence.text for _, sentence in record.sentences())))
    return examples
