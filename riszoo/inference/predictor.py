"""A trained model applied to any image: `riszoo.load("lts").segment("cat.jpg", ["the cat on the left"])`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Sample
from riszoo.data.images import as_rgb, decode, place_image, view_of
from riszoo.data.record import Pixels
from riszoo.encoders.vocabulary import split
from riszoo.errors import UserError
from riszoo.inference.predictions import Prediction, evidence_of, predictions
from riszoo.metrics.protocols import Protocol, get_protocols
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint

ImageLike = str | Path | Image.Image | np.ndarray[Any, Any]


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

    @torch.inference_mode()
    def segment(self, image: ImageLike, texts: str | Sequence[str], name: str | None = None) -> list[Prediction]:
        """One prediction per sentence; the image is encoded once.

        `name` is the prefix of the predictions' ids, by default the name of the file.
        """
        sentences = [texts] if isinstance(texts, str) else list(texts)
        if not sentences:
            raise UserError("no sentence is given: give one or several texts")
        wrong = next((text for text in sentences if not isinstance(text, str)), None)
        if wrong is not None:
            raise UserError(f"{wrong!r:.60} is not a sentence: give one text or a list of texts")
        if name is None:
            name = Path(image).stem if isinstance(image, str | Path) else "image"
        batch = self._batch(pixels_of(image), sentences, name)
        output = self.model(batch.to(self.device))
        output.check_finite(batch)
        found = predictions(output, batch, self.protocol)
        return [replace(prediction, evidence=evidence_of(output, batch, i)) for i, prediction in enumerate(found)]

    def _batch(self, pixels: Pixels, texts: list[str], name: str) -> Batch:
        geometry = Geometry.fit(self.model.geometry, (pixels.shape[0], pixels.shape[1]), self.model.size)
        samples = [Sample(f"{name}-{i + 1}", i, "own", "own", name, "", text) for i, text in enumerate(texts)]
        return Batch(
            images=place_image(pixels, geometry)[None],
            valid=torch.tensor([geometry.valid]),
            image_ids=[name],
            geometry=[geometry],
            texts=texts,
            image_index=torch.zeros(len(texts), dtype=torch.long),
            samples=samples,
            no_target=torch.zeros(len(texts), dtype=torch.bool),
            tokens=self.model.tokenize(texts),
            views=[view_of(pixels, view)[None] for view in self.model.views],
        )

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """Words that are missing from the vocabulary of a word-level model; none for other models."""
        encoder = self.model.text
        vocabulary = getattr(getattr(encoder, "tokenizer", encoder), "vocabulary", None)
        if vocabulary is None:
            return []
        words = dict.fromkeys(word for text in texts for word in split(text))
        return [word for word in words if word not in vocabulary.tokens]


def load(
    model: str,
    checkpoint: str | Path | None = None,
    *,
    data: str = "scenes",
    root: str | Path = "runs",
    protocol: str = "original",
    device: str | None = None,
) -> Predictor:
    """The predictor of a checkpoint, by default the best one of the newest run of the model on `data` under `root`."""
    if "." not in model:
        recipes.get("models", model)
    if checkpoint is None:
        recipes.get("data", data)
        path = runs.newest(Path(root), model, data, "best")
    else:
        path = runs.existing(str(checkpoint))
    return Predictor(from_checkpoint(path, model), protocol, device)


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


def pixels_of(image: ImageLike) -> Pixels:
    """(H0, W0, 3) uint8 from a file, a PIL image or an array, upright by its EXIF orientation."""
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        if not path.is_file():
            raise UserError(f"image {image} is not a file: give the path of an image file")
        return decode(path, upright=True)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
            raise UserError(
                f"an array of shape {image.shape} and type {image.dtype} is not an image: "
                "give uint8 of (H, W), (H, W, 3) or (H, W, 4)"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise UserError(f"a {type(image).__name__} is not an image: give a path, a PIL image or an array")
    image = ImageOps.exif_transpose(image)
    if 0 in image.size:
        raise UserError(f"an image of {image.width} x {image.height} pixels is empty")
    return as_rgb(image)
