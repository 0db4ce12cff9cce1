"""A trained model applied to any image: `riszoo.load("lts").segment("cat.jpg", ["the cat on the left"])`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

import torch

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Sample
from riszoo.data.images import place_image, view_of
from riszoo.data.record import Pixels
from riszoo.encoders.vocabulary import split
from riszoo.errors import UserError
from riszoo.files import file_names
from riszoo.inference.inputs import ImageLike, Sentences, pixels_of, sentence_lists
from riszoo.inference.predictions import Prediction, evidence_of, predictions
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint

AnyImage = TypeVar("AnyImage", bound=ImageLike)

IMAGES = 4
"""Images that are encoded at once, by default."""
SENTENCES = 32
"""Sentences that are decoded at once, at most."""


class Predictor:
    """Segments images with a trained model, at each image's own size.

    Args:
        model: with its weights
        protocol: how logits become a mask; one that compares at the image's own size
        device: default: a GPU where one is available
    """

    def __init__(self, model: RISModule, protocol: str = "original", device: str | None = None) -> None:
        self.protocol = _own_size(get_protocols(protocol, published=model.published)[0])
        self.device = _device(device)
        self.model = model.to(self.device).eval()

    @overload
    def segment(
        self, images: ImageLike, sentences: str | Sequence[str], names: str | None = None
    ) -> list[Prediction]: ...

    @overload
    def segment(
        self,
        images: list[AnyImage] | tuple[AnyImage, ...],
        sentences: Sentences,
        names: Sequence[str] | None = None,
        *,
        batch: int = IMAGES,
    ) -> list[list[Prediction]]: ...

    def segment(
        self,
        images: ImageLike | list[AnyImage] | tuple[AnyImage, ...],
        sentences: Sentences,
        names: str | Sequence[str] | None = None,
        *,
        batch: int = IMAGES,
    ) -> list[Prediction] | list[list[Prediction]]:
        """One prediction for each sentence; for a list of images, a list of predictions for each image.

        Args:
            images: one image or a list: files, PIL images, arrays or tensors
            sentences: one or several for every image, or a list of them for each image
            names: prefixes of the predictions' ids; by default the names of the files
            batch: images that are encoded at once. Each is encoded once, whatever the number of its sentences.
        """
        several = isinstance(images, list | tuple)
        given: list[ImageLike] = [*images] if isinstance(images, list | tuple) else [images]
        if batch < 1:
            raise UserError(f"batch is {batch}: give at least 1")
        texts = sentence_lists(sentences, len(given))
        labels = _labels(given) if names is None else [names] if isinstance(names, str) else list(names)
        if len(labels) != len(given):
            raise UserError(f"{len(labels)} names do not fit {len(given)} image(s): give one for each")
        found = []
        for first in range(0, len(given), batch):
            part = slice(first, first + batch)
            found += self._segment([pixels_of(image) for image in given[part]], texts[part], labels[part])
        return found if several else found[0]

    @torch.inference_mode()
    def _segment(self, images: list[Pixels], texts: list[list[str]], names: list[str]) -> list[list[Prediction]]:
        """The predictions of a few images, whose sentences are decoded in parts where there are many."""
        batch = batch_for(self.model, images, texts, names).to(self.device)
        try:
            if len(batch) > SENTENCES:
                batch.raw = self.model.backbone(batch.images, batch.valid)
            found = (one for first in range(0, len(batch), SENTENCES) for one in self._decode(batch, first))
            return [list(islice(found, len(each))) for each in texts]
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self.device} has too little memory for {len(images)} image(s) at once: give a smaller batch, or "
                "another device"
            ) from None

    def _decode(self, batch: Batch, first: int) -> Iterator[Prediction]:
        """The predictions of a part of the batch's sentences."""
        part = slice(first, first + SENTENCES)
        some = replace(
            batch, texts=batch.texts[part], image_index=batch.image_index[part], samples=batch.samples[part],
            no_target=batch.no_target[part], tokens=self.model.tokenize(batch.texts[part]).to(self.device),
        )  # fmt: skip
        output = self.model(some)
        output.check_finite(some)
        for i, prediction in enumerate(predictions(output, some, self.protocol)):
            yield replace(prediction, evidence=evidence_of(output, some, i))

    def geometry(self, image: Pixels) -> Geometry:
        """How an image is fitted into the model's frame."""
        return _geometry(self.model, image)

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """Words that are missing from the vocabulary of a word-level model; none for other models."""
        encoder = self.model.text
        vocabulary = getattr(getattr(encoder, "tokenizer", encoder), "vocabulary", None)
        if vocabulary is None:
            return []
        words = dict.fromkeys(word for text in texts for word in split(text))
        return [word for word in words if word not in vocabulary.tokens]

    def truncated(self, texts: Sequence[str]) -> dict[str, int]:
        """The sentences whose last words are cut off, each with the number of words that the model reads."""
        spans = self.model.tokenize([*texts]).spans if texts else []
        read = {text: [word for word, _, _ in each] for text, each in zip(texts, spans, strict=True)}
        return {
            text: len(words)
            for text, words in read.items()
            if len(words) < len(split(text)) and words == split(text)[: len(words)]
        }


def _geometry(model: RISModule, image: Pixels) -> Geometry:
    return Geometry.fit(model.geometry, (image.shape[0], image.shape[1]), model.size)


def batch_for(model: RISModule, images: list[Pixels], texts: list[list[str]], names: list[str]) -> Batch:
    """All images with all their sentences as a batch of the model, on the CPU and not yet tokenized."""
    geometry = [_geometry(model, image) for image in images]
    samples = [
        Sample(f"{name}-{i + 1}", i, "own", "own", name, "", text)
        for name, each in zip(names, texts, strict=True)
        for i, text in enumerate(each)
    ]
    counts = torch.tensor([len(each) for each in texts])
    return Batch(
        images=torch.stack([place_image(image, one) for image, one in zip(images, geometry, strict=True)]),
        valid=torch.tensor([one.valid for one in geometry]),
        image_ids=names,
        geometry=geometry,
        texts=[sample.text for sample in samples],
        image_index=torch.arange(len(images)).repeat_interleave(counts),
        samples=samples,
        no_target=torch.zeros(len(samples), dtype=torch.bool),
        views=[torch.stack([view_of(image, view) for image in images]) for view in model.views],
    )


def _labels(images: list[ImageLike]) -> list[str]:
    """The name of each file, and `image` for others; numbered where they are equal."""
    return file_names([Path(image).stem if isinstance(image, str | Path) else "image" for image in images])


def load(
    model: str,
    checkpoint: str | Path | None = None,
    *,
    data: str = "scenes",
    root: str | Path = "runs",
    protocol: str = "original",
    device: str | None = None,
) -> Predictor:
    """The predictor of a checkpoint: a file, `best` or `last` of the newest run, or `shipped`.

    By default it is the best one of the newest run of the model on `data` under `root`, and without a run the weights
    that riszoo ships; a line on stderr says which.
    """
    if "." not in model:
        recipes.get("models", model)
    recipes.get("data", data)
    path = runs.chosen(None if checkpoint is None else str(checkpoint), Path(root), model, data)
    predictor = Predictor(from_checkpoint(path, model), protocol, device)
    if checkpoint is None:
        print(f"riszoo: weights of {runs.described(path)}", file=sys.stderr)
    return predictor


def _own_size(protocol: Protocol) -> Protocol:
    if protocol.ground_truth.frame is not None:
        height, width = protocol.ground_truth.frame
        raise UserError(
            f"protocol '{protocol.name}' compares at {width} x {height}, not at the image's own size: choose "
            "'original' or another protocol that does"
        )
    return protocol


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}; choose another") from None
    return device
