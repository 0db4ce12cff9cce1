"""A trained model to ask about any image: `riszoo.load("lts").segment("cat.jpg", ["the cat on the left"])`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from riszoo import recipes
from riszoo.batch import Batch, Geometry, Sample
from riszoo.data.dataset import place_image
from riszoo.data.images import as_rgb, decode
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
    """A model that answers sentences about an image, at the image's own size.

    Args:
        model: with its weights
        protocol: how its logits become a mask; one that compares at the image's own size
        device: where it computes
    """

    def __init__(self, model: RISModule, protocol: str = "original", device: str | None = None) -> None:
        self.protocol = _own_size(get_protocols(protocol, published=model.published)[0])
        self.device = _device(device)
        self.model = model.to(self.device).eval()

    def segment(self, image: ImageLike, texts: str | Sequence[str], name: str | None = None) -> list[Prediction]:
        """One answer a sentence. `name` begins the answers' ids; the file's, when left out."""
        asked = [texts] if isinstance(texts, str) else list(texts)
        if not asked:
            raise UserError("no sentence is asked: give one or several texts")
        stem = name or (Path(image).stem if isinstance(image, str | Path) else "image")
        return self.ask(pixels_of(image), asked, stem)

    @torch.inference_mode()
    def ask(self, pixels: Pixels, texts: list[str], stem: str) -> list[Prediction]:
        """(H0, W0, 3) and its sentences; the image is encoded once."""
        batch = self._batch(pixels, texts, stem)
        output = self.model(batch.to(self.device))
        found = predictions(output, batch, self.protocol)
        return [replace(prediction, evidence=evidence_of(output, batch, i)) for i, prediction in enumerate(found)]

    def _batch(self, pixels: Pixels, texts: list[str], stem: str) -> Batch:
        geometry = Geometry.fit(self.model.geometry, (pixels.shape[0], pixels.shape[1]), self.model.size)
        samples = [Sample(f"{stem}-{i + 1}", i, "own", "own", stem, "", text) for i, text in enumerate(texts)]
        return Batch(
            images=place_image(pixels, geometry)[None],
            valid=torch.tensor([geometry.valid]),
            image_ids=[stem],
            geometry=[geometry],
            texts=texts,
            image_index=torch.zeros(len(texts), dtype=torch.long),
            samples=samples,
            no_target=torch.zeros(len(texts), dtype=torch.bool),
            tokens=self.model.tokenize(texts),
        )

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Words that a model with a vocabulary of its own has never read."""
        encoder = self.model.text
        known = getattr(getattr(encoder, "tokenizer", encoder), "vocabulary", None)
        if known is None:
            return []
        return [word for word in dict.fromkeys(w for text in texts for w in split(text)) if word not in known.tokens]


def load(
    model: str,
    checkpoint: str | Path | None = None,
    *,
    data: str = "scenes",
    root: str | Path = "runs",
    protocol: str = "original",
    device: str | None = None,
) -> Predictor:
    """A recipe's trained model, ready to be asked: of a checkpoint, or of the newest run under `root`."""
    if checkpoint is None:
        recipes.get("data", data)
        path = runs.newest(Path(root), model if "." in model else recipes.get("models", model).name, data, "best")
    else:
        path = runs.existing(str(checkpoint))
    loaded = from_checkpoint(path)
    _same_model(loaded, model, path)
    return Predictor(loaded, protocol, device)


def _same_model(loaded: RISModule, model: str, path: Path) -> None:
    """The checkpoint says what it holds; another name beside it is a mistake."""
    wanted = model if "." in model else str(recipes.get("models", model).content["class_path"])
    held = f"{type(loaded).__module__}.{type(loaded).__qualname__}"
    if wanted != held:
        raise UserError(f"{path} holds a {held}, and '{model}' is a {wanted}: name the model that it was trained as")


def _own_size(protocol: Protocol) -> Protocol:
    if protocol.ground_truth.frame is not None:
        height, width = protocol.ground_truth.frame
        raise UserError(
            f"protocol '{protocol.name}' compares at {width} x {height}, and a mask is wanted at the image's own "
            "size: choose 'original' or another that keeps it"
        )
    return protocol


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}; leave it out") from None
    return device


def pixels_of(image: ImageLike) -> Pixels:
    """A file, a PIL image, or an array of 8-bit numbers -> (H0, W0, 3)."""
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        if not path.is_file():
            raise UserError(f"there is no image {image}: give the path of an image file")
        return decode(path)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
            raise UserError(
                f"an array of shape {image.shape} and type {image.dtype} is no image: "
                "give uint8 of (H, W), (H, W, 3) or (H, W, 4)"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise UserError(f"a {type(image).__name__} is no image: give a path, a PIL image or an array")
    if 0 in image.size:
        raise UserError(f"an image of {image.width} x {image.height} pixels has nothing in it")
    return as_rgb(image)
