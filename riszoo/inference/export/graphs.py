"""A model as two graphs: one encodes images, the other decodes sentences about them.

I images   N sentences   L tokens
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from riszoo.batch import Batch, Features, Tokens
from riszoo.errors import UserError, reason
from riszoo.model import RISModule

Inputs = dict[str, Any]
"""The inputs of a graph by name, in order: tensors and lists of tensors."""


class ImageGraph(nn.Module):
    """Images -> their features: the maps, then the views that a decoder reads. Each is (I, ...)."""

    def __init__(self, model: RISModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, valid: Tensor, views: list[Tensor]) -> list[Tensor]:
        features = self.model.encode_image(images, valid, views)
        return [*features.maps, *features.views]


class SentenceGraph(nn.Module):
    """Features and sentences -> mask logits (N, 1, h, w), and no-target logits (N,) where the model has such a head.

    The tokens may have any width: they are padded to the model's length, which changes nothing.

    Args:
        maps: how many of the features are maps; the others are views
    """

    def __init__(self, model: RISModule, maps: int) -> None:
        super().__init__()
        self.model, self.maps = model, maps

    def forward(
        self, features: list[Tensor], valid: Tensor, image_index: Tensor, ids: Tensor, mask: Tensor
    ) -> list[Tensor]:
        images = Features(features[: self.maps], valid, self.model.size, features[self.maps :])
        output = self.model.decode(images, image_index, self.model.encode_text(self.tokens(ids, mask)))
        return [output.logits] if output.no_target is None else [output.logits, output.no_target]

    def tokens(self, ids: Tensor, mask: Tensor) -> Tokens:
        """The tokens at the model's length, without a condition on their width, which stays open."""
        length = self.model.text.length
        ids, mask = (torch.cat([x, x.new_zeros(x.shape[0], length)], 1)[:, :length] for x in (ids, mask))
        return Tokens(ids, mask, [])


def image_inputs(batch: Batch) -> Inputs:
    return {"images": batch.images, "valid": batch.valid, "views": batch.views}


def sentence_inputs(features: list[Tensor], batch: Batch) -> Inputs:
    assert batch.tokens is not None
    return {
        "features": features,
        "valid": batch.valid,
        "image_index": batch.image_index,
        "ids": batch.tokens.ids,
        "mask": batch.tokens.mask,
    }


class Graph(NamedTuple):
    """A traced graph, the inputs that it was traced on, and its number of outputs."""

    program: ExportedProgram
    inputs: Inputs
    outputs: int

    def input_names(self) -> list[str]:
        """One name for each tensor; those of a list are numbered."""
        named = (
            [f"{name}_{i}" for i in range(len(value))] if isinstance(value, list) else [name]
            for name, value in self.inputs.items()
        )
        return [name for each in named for name in each]


@torch.no_grad()
def programs(model: RISModule, batch: Batch) -> tuple[Graph, Graph]:
    """Both graphs, traced on a batch of several images and sentences. The numbers of these and of tokens stay open."""
    images, sentences, words = Dim("images", min=1), Dim("sentences", min=1), Dim("words", min=1)
    inputs = image_inputs(batch)
    shapes: Inputs = {"images": {0: images}, "valid": {0: images}, "views": [{0: images} for _ in batch.views]}
    image = _traced(ImageGraph(model), inputs, shapes)
    features = ImageGraph(model)(**inputs)
    maps = len(features) - len(model.encode_image(**inputs).views)
    shapes = {"features": [{0: images} for _ in features], "valid": {0: images}, "image_index": {0: sentences}}
    shapes |= {name: {0: sentences, 1: words} for name in ("ids", "mask")}
    return image, _traced(SentenceGraph(model, maps), sentence_inputs(features, batch), shapes)


def _traced(graph: ImageGraph | SentenceGraph, inputs: Inputs, shapes: Inputs) -> Graph:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The tensor attributes")  # those of a GRU; results are checked
            program = torch.export.export(graph, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # the tracer raises nearly anything
        part = f"the {'image encoder' if isinstance(graph, ImageGraph) else 'decoder'} of {type(graph.model).__name__}"
        raise UserError(f"{part} cannot be exported: {reason(error, 200)}; choose another --model") from error
    return Graph(program, inputs, len(program.graph_signature.user_outputs))
