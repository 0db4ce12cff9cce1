"""A trained model applied to any image: `riszoo.load("lts").segment("cat.jpg", ["the cat on the left"])`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

import torch

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Output, Sample
from riszoo.data.images import place_image, view_of
from riszoo.data.record import Pixels
from riszoo.encoders.vocabulary import split
from riszoo.errors import UserError
from riszoo.files import file_names
from riszoo.inference.hub.fetch import is_address
from riszoo.inference.inputs import ImageLike, Sentences, pixels_of, sentence_lists
from riszoo.inference.predictions import Prediction, evidence_of, predictions
from riszoo.inference.tiling import Canvas
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint

AnyImage = TypeVar("AnyImage", bound=ImageLike)

IMAGES = 4
"""Images that are encoded at once, by default."""
SENTENCES = 32
"""Sentences that are decoded at once, at most."""
TILED_SENTENCES = 8
"""Sentences whose windows are blended at once, at most: each has logits over the whole image."""


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

    def at_threshold(self, probability: float) -> Predictor:
        """A predictor with the same model, whose masks are the pixels above this probability."""
        if not 0 < probability < 1:
            raise UserError(f"threshold {probability}: give a probability above 0 and below 1")
        other = copy(self)
        threshold = math.log(probability / (1 - probability))
        other.protocol = replace(get_protocols("original", published="original")[0], threshold=threshold)
        return other

    @overload
    def segment(
        self, images: ImageLike, sentences: str | Sequence[str], names: str | None = None, *, tile: int | None = None
    ) -> list[Prediction]: ...

    @overload
    def segment(
        self,
        images: list[AnyImage] | tuple[AnyImage, ...],
        sentences: Sentences,
        names: Sequence[str] | None = None,
        *,
        batch: int = IMAGES,
        tile: int | None = None,
    ) -> list[list[Prediction]]: ...

    def segment(
        self,
        images: ImageLike | list[AnyImage] | tuple[AnyImage, ...],
        sentences: Sentences,
        names: str | Sequence[str] | None = None,
        *,
        batch: int = IMAGES,
        tile: int | None = None,
    ) -> list[Prediction] | list[list[Prediction]]:
        """One prediction for each sentence; for a list of images, a list of predictions for each image.

        Args:
            images: one image or a list: files, PIL images, arrays or tensors
            sentences: one or several for every image, or a list of them for each image
            names: prefixes of the predictions' ids; by default the names of the files
            batch: images that are encoded at once. Each is encoded once, whatever the number of its sentences.
            tile: the side of the overlapping windows in which a larger image is segmented, in its pixels; by default
                an image is resized to the model's frame
        """
        several = isinstance(images, list | tuple)
        given: list[ImageLike] = [*images] if isinstance(images, list | tuple) else [images]
        if batch < 1:
            raise UserError(f"batch is {batch}: give at least 1")
        self.check_tile(tile)
        texts = sentence_lists(sentences, len(given))
        labels = _labels(given) if names is None else [names] if isinstance(names, str) else list(names)
        if len(labels) != len(given):
            raise UserError(f"{len(labels)} names do not fit {len(given)} image(s): give one for each")
        found: list[list[Prediction]] = []
        for first in range(0, len(given), batch):
            part = slice(first, first + batch)
            one_by_one = self.stream([pixels_of(image) for image in given[part]], texts[part], labels[part], tile=tile)
            found += [list(islice(one_by_one, len(each))) for each in texts[part]]
        return found if several else found[0]

    def stream(
        self, images: list[Pixels], texts: list[list[str]], names: list[str], *, tile: int | None = None
    ) -> Iterator[Prediction]:
        """The predictions of a few images, image after image and sentence after sentence, each made when it is asked
        for, so that the masks of many sentences about a large image need not fit into memory together.

        Without `tile` the images are encoded together; `texts` and `names` have an entry for each of them.
        """
        if tile is None:
            yield from self._decoded(images, texts, names)
        else:
            for image, own, name in zip(images, texts, names, strict=True):
                yield from self._decoded([image], [own], [name], tile if max(image.shape[:2]) > tile else None)

    @torch.inference_mode()
    def _decoded(
        self, images: list[Pixels], texts: list[list[str]], names: list[str], tile: int | None = None
    ) -> Iterator[Prediction]:
        """The predictions of a few images, whose sentences are decoded in parts where there are many.

        `tile` is the side of the windows of a single image.
        """
        try:
            batch = batch_for(self.model, images, texts, names).to(self.device)
            at_once = SENTENCES if tile is None else TILED_SENTENCES
            if len(batch) > at_once:
                batch.raw = self.model.backbone(batch.images, batch.valid)
            for first in range(0, len(batch), at_once):
                yield from self._decode(batch, slice(first, first + at_once), images[0], tile)
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self.device} has too little memory for {len(images)} image(s) at once: give a smaller batch, or "
                "another device"
            ) from None

    def _decode(self, batch: Batch, part: slice, image: Pixels, tile: int | None) -> Iterator[Prediction]:
        """The predictions of a part of the batch's sentences; with `tile`, from windows of its only image too."""
        some = replace(
            batch, texts=batch.texts[part], image_index=batch.image_index[part], samples=batch.samples[part],
            no_target=batch.no_target[part], tokens=self.model.tokenize(batch.texts[part]).to(self.device),
        )  # fmt: skip
        output = self._output(some)
        blended, over = (output, some) if tile is None else self._tiled(output, some, image, tile)
        for i, prediction in enumerate(predictions(blended, over, self.protocol)):
            yield replace(prediction, evidence=evidence_of(output, some, i))

    def _output(self, batch: Batch) -> Output:
        output: Output = self.model(batch)
        output.check_finite(batch)
        return output

    def _tiled(self, output: Output, batch: Batch, image: Pixels, tile: int) -> tuple[Output, Batch]:
        """The output with its logits blended with those of the image's windows, and the batch over the image alone."""
        canvas = Canvas((image.shape[0], image.shape[1]), tile, (output.logits.shape[-2], output.logits.shape[-1]))
        at_once = max(1, SENTENCES // len(batch))
        for first in range(0, len(canvas.windows), at_once):
            windows = canvas.windows[first : first + at_once]
            crops = [image[canvas.pixels(window)] for window in windows]
            names = [batch.image_ids[0]] * len(crops)
            part = batch_for(self.model, crops, [batch.texts] * len(crops), names).to(self.device)
            logits = torch.split(self._output(part).logits[:, 0], len(batch))
            for window, one, geometry in zip(windows, logits, part.geometry, strict=True):
                canvas.add(window, one, geometry)
        blended = canvas.blended(output.logits[:, 0], batch.geometry[0])
        return replace(output, logits=blended), replace(batch, geometry=[canvas.geometry])

    def check_tile(self, tile: int | None) -> None:
        """Raise UserError where windows of this side would have to be enlarged."""
        least = max(self.model.size)
        if tile is not None and tile < least:
            raise UserError(f"tile {tile} is smaller than the model's frame: give at least {least} pixels")

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
    model: str | None = None,
    checkpoint: str | Path | None = None,
    *,
    data: str = "scenes",
    root: str | Path = "runs",
    protocol: str = "original",
    device: str | None = None,
) -> Predictor:
    """The predictor of a checkpoint: a file, `hf://user/repository`, `best` or `last` of the newest run, or `shipped`.

    By default it is the best one of the newest run of the model on `data` under `root`, and without a run the weights
    that riszoo ships; a line on stderr says which.

    Args:
        model: a recipe's name, your own class as my.module.Class, or the folder or address of a repository of the Hub;
            not needed beside a checkpoint that is a file, a folder or an address
        checkpoint: riszoo's, or one that the model's authors published
        data, root: the data set of the run, and the folder of the run folders
        protocol: how logits become a mask
        device: `cpu`, `cuda`, ...; default: a GPU where one is available
    """
    if model is None or (checkpoint is None and _is_repository(model)):
        alone = runs.naming_its_model(checkpoint) if model is None else model
        return Predictor(from_checkpoint(runs.existing(alone)), protocol, device)
    if "." not in model:
        recipes.get("models", model)
    recipes.get("data", data)
    path = runs.chosen(None if checkpoint is None else str(checkpoint), Path(root), model, data)
    predictor = Predictor(from_checkpoint(path, model), protocol, device)
    if checkpoint is None:
        print(f"riszoo: weights of {runs.described(path)}", file=sys.stderr)
    return predictor


def _is_repository(model: str) -> bool:
    return is_address(model) or (recipes.find("models", model) is None and Path(model).is_dir())


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
    except RuntimeError:  # its text lists every backend that PyTorch was ever built for
        raise UserError(f"device '{name}' is not a device: give cpu, cuda, or one of several, such as cuda:1") from None
    try:
        torch.zeros(1, device=device).item()  # a device without data, such as meta, has none
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}; choose another") from None
    return device
